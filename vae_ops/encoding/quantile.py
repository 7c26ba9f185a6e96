"""Ordered numbers to tokens and back: the part that numbers, dates, times and durations share.

A `QuantileCoder` sees a plain int64 or float64 array without nulls. Few distinct values become one token value each;
otherwise frequent exact values get one of their own and the rest is cut into bins of equal mass. Decoding draws a point
inside the bin along the column's own quantile curve and snaps it to the column's own grid. What the numbers mean
(units, scales, calendars) is the business of the encodings that call this.
"""

from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

__all__ = ["DecimalGrid", "QuantileCoder"]

# int64 or float64.
Numbers: TypeAlias = NDArray[Any]

# A column with at most this many distinct values, each seen in some rows, is learned value by value.
_MAX_EXACT = 250
_ROWS_PER_EXACT = 4
# Beyond that, a value this frequent is still learned by itself: a tie that a tree would find.
_FREQUENT_SHARE = 0.01
_MAX_FREQUENT = 64
# Resolution of the quantile curve kept in the model.
_MAX_KNOTS = 4096
# More bins say more of each value, but each is seen in fewer rows: beyond these, samples become easier to tell apart.
_MAX_BINS = 128
_MIN_BINS = 4
_ROWS_PER_BIN = 32
_MAX_DECIMALS = 12
# From here on the spacing of float64 is coarser than any decimal, and rounding would only overflow.
_NO_DECIMALS = 1e15


@dataclass(frozen=True)
class DecimalGrid:
    """How many decimals floats of each decade carry: instruments and exports keep significant digits, not places.

    Attributes:
        decades: Sorted decimal exponents `floor(log10 |x|)` that were seen.
        decimals: Decimals kept in that decade; −1 where the values fill the floats and nothing is snapped.
    """

    decades: tuple[int, ...]
    decimals: tuple[int, ...]

    @classmethod
    def fit(cls, values: NDArray[np.float64], relative_error: float) -> Self:
        """Finds, by decade, the fewest decimals that rebuild 99.5 % of the values.

        Args:
            values: Finite values, shape (n,).
            relative_error: Half the spacing of the column's float type, relative to the value.
        """
        decade = _decade(values)
        needed = np.full(len(values), _MAX_DECIMALS + 1)
        small = np.abs(values) < _NO_DECIMALS
        needed[~small] = 0
        for digits in range(_MAX_DECIMALS, -1, -1):
            needed[
                small
                & (
                    np.abs(np.round(np.where(small, values, 0.0), digits) - values)
                    <= np.abs(values) * relative_error * 2
                )
            ] = digits
        found = np.unique(decade)
        kept = []
        for one in found:
            most = int(np.quantile(needed[decade == one], 0.995, method="inverted_cdf"))
            kept.append(most)
        # Larger numbers never carry more decimals than smaller ones; a sparse decade borrows from those above it.
        kept = np.maximum.accumulate(kept[::-1])[::-1].tolist()
        return cls(tuple(int(d) for d in found), tuple(-1 if d > _MAX_DECIMALS else d for d in kept))

    def snap(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rounds each value to the decimals of the nearest seen decade; shape (n,) in and out."""
        if not self.decades:
            return values
        seen = np.asarray(self.decades)
        right = np.clip(np.searchsorted(seen, _decade(values)), 0, len(seen) - 1)
        decimals = np.where(np.abs(values) < _NO_DECIMALS, np.asarray(self.decimals)[right], -1)
        snapped = values.copy()
        for digits in np.unique(decimals[decimals >= 0]):
            chosen = decimals == digits
            snapped[chosen] = np.round(values[chosen], int(digits))
        return snapped


def _decade(values: NDArray[np.float64]) -> NDArray[np.int64]:
    magnitude = np.abs(values)
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log10(magnitude))
    return np.where(magnitude > 0, np.clip(exponent, -_MAX_DECIMALS, 18), -_MAX_DECIMALS).astype(np.int64)


@dataclass(frozen=True)
class QuantileCoder:
    """Codes ordered numbers as one token: an exact value, or a bin.

    Attributes:
        exact: Sorted values that have a token of their own; tokens 0 … len(exact) − 1.
        knots: Sorted quantile curve of the other values, equal mass between neighbours; empty if all are exact.
        cuts: Indices into `knots` where the bins begin, and the last knot; empty if all are exact. Bin i is token
            len(exact) + i.
        step: Grid of an int64 column (greatest common divisor of the gaps); 1 for floats.
        grid: Decimals by decade of a float64 column; None for int64.
        positions: Gaussian score of the mid-rank of each exact value, then of each bin; shape (size,).
    """

    exact: Numbers
    knots: Numbers
    cuts: NDArray[np.int64]
    step: int
    grid: DecimalGrid | None
    positions: NDArray[np.float32]

    @classmethod
    def fit(cls, values: Numbers, *, relative_error: float = 2.0**-53) -> Self:
        """Fits on finite values.

        Args:
            values: int64 or float64, shape (n,), n ≥ 1, no NaN, no infinity.
            relative_error: Half the relative spacing of the column's float type, for the decimal grid.
        """
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= min(_MAX_EXACT, max(len(values) // _ROWS_PER_EXACT, 1)):
            frequent = np.ones(len(distinct), dtype=bool)
        else:
            frequent = counts >= max(_FREQUENT_SHARE * len(values), 2)
            frequent &= counts >= np.sort(counts)[-min(_MAX_FREQUENT, len(counts))]
        exact = distinct[frequent]
        rest = np.sort(values[~np.isin(values, exact)])
        knots, cuts = _bins(rest)
        below = np.searchsorted(np.sort(values), exact, side="left")
        edges = np.searchsorted(np.sort(values), knots[cuts], side="left") if len(cuts) else np.zeros(0)
        if len(cuts):
            edges[-1] = len(values)
        exact_ranks, bin_ranks = below + counts[frequent] / 2, (edges[1:] + edges[:-1]) / 2
        step, grid = _grid(distinct, relative_error)
        return cls(
            exact=exact,
            knots=knots,
            cuts=cuts,
            step=step,
            grid=grid,
            positions=_gaussian_score(np.concatenate([exact_ranks, bin_ranks]) / len(values)),
        )

    @property
    def bins(self) -> int:
        """Number of bins that the inexact values fall into."""
        return max(len(self.cuts) - 1, 0)

    @property
    def size(self) -> int:
        """Vocabulary: exact values, then bins."""
        return len(self.exact) + self.bins

    def encode(self, values: Numbers) -> NDArray[np.int32]:
        """Tokens of shape (n,).

        Values outside the fitted range fall into the outermost bin; without bins, onto the nearest exact value.
        """
        near = np.clip(np.searchsorted(self.exact, values), 0, max(len(self.exact) - 1, 0))
        is_exact = self.exact[near] == values if len(self.exact) else np.zeros(len(values), dtype=bool)
        if self.bins:
            bins = np.searchsorted(self.knots[self.cuts[1:-1]], values, side="right")
            return np.where(is_exact, near, len(self.exact) + bins).astype(np.int32)
        left = np.clip(near - 1, 0, None)
        # Halved, so that the ends of the float range can be told apart without overflow.
        half, below, above = values / 2.0, self.exact[left] / 2.0, self.exact[near] / 2.0
        return np.where(~is_exact & (np.abs(half - below) < np.abs(half - above)), left, near).astype(np.int32)

    def decode(self, tokens: NDArray[np.int32], rng: np.random.Generator) -> Numbers:
        """Values, shape (n,), for tokens of shape (n,); the generator places each inside its bin."""
        values = np.zeros(len(tokens), dtype=self.exact.dtype)
        is_exact = tokens < len(self.exact)
        values[is_exact] = self.exact[tokens[is_exact]]
        inside = ~is_exact
        if inside.any():
            bins = tokens[inside] - len(self.exact)
            values[inside] = self._place(bins, _spread_within(bins, rng))
        return values

    def _place(self, bins: NDArray[np.int32], uniform: NDArray[np.float64]) -> Numbers:
        first, last = self.cuts[bins], self.cuts[bins + 1]
        place = first + uniform * (last - first)
        left = np.minimum(place.astype(np.int64), len(self.knots) - 2)
        share = _stretch_ends(place - left, left, len(self.knots) - 2)
        if self.grid is not None:
            low, high = self.knots[left], self.knots[left + 1]
            values = self.grid.snap(np.asarray(low * (1.0 - share) + high * share, dtype=np.float64))
            return np.clip(values, self.knots[0], self.knots[-1])
        # Gaps as unsigned numbers: near ±2⁶³ a signed difference overflows.
        gap = self.knots[left + 1].astype(np.uint64) - self.knots[left].astype(np.uint64)
        at_end = left == len(self.knots) - 2
        steps = np.floor(share * (gap // np.uint64(self.step) + at_end).astype(np.float64)).astype(np.uint64)
        move = np.minimum(steps * np.uint64(self.step), gap)
        return np.asarray((self.knots[left].astype(np.uint64) + move).astype(np.int64))

    def state(self) -> dict[str, Any]:
        """Everything needed to rebuild the coder: plain values and arrays."""
        grid = None if self.grid is None else {"decades": list(self.grid.decades), "decimals": list(self.grid.decimals)}
        return {
            "exact": self.exact,
            "knots": self.knots,
            "cuts": self.cuts,
            "step": self.step,
            "grid": grid,
            "positions": self.positions,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        grid = state["grid"]
        rebuilt = None if grid is None else DecimalGrid(tuple(grid["decades"]), tuple(grid["decimals"]))
        return cls(**{**state, "grid": rebuilt})


def _spread_within(bins: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), stratified among the rows of each bin: less noise at the same distribution."""
    order = np.lexsort((rng.random(len(bins)), bins))
    ordered = bins[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(bins)])
    rank = np.arange(len(bins)) - np.repeat(starts, counts)
    uniform = np.empty(len(bins))
    uniform[order] = (rank + rng.random(len(bins))) / np.repeat(counts, counts)
    return uniform


def _stretch_ends(share: NDArray[Any], left: NDArray[np.int64], last: int) -> NDArray[np.float64]:
    """Pushes draws in the outermost gaps of the curve towards the observed ends, so that samples span the range.

    The gap beside an extreme is often wide and gets a handful of draws; spread evenly they would stop far short of the
    extreme. The fourth power leaves the expected nearest of k draws at about 1/k⁴ of the gap, without repeating the
    extreme itself.
    """
    low = np.where(left == 0, share**4, share)
    return np.where(left == last, 1 - (1 - low) ** 4, low)


def _bins(rest: Numbers) -> tuple[Numbers, NDArray[np.int64]]:
    """Quantile curve of sorted values, and the indices where bins of equal mass begin."""
    if len(rest) < 2 or rest[0] == rest[-1]:
        return rest[:0], np.zeros(0, dtype=np.int64)
    size = min(len(rest), _MAX_KNOTS + 1)
    knots = rest[np.round(np.linspace(0, len(rest) - 1, size)).astype(np.int64)]
    bins = int(np.clip(len(rest) // _ROWS_PER_BIN, _MIN_BINS, _MAX_BINS))
    edges = np.unique(knots[np.round(np.linspace(0, size - 1, bins + 1)).astype(np.int64)])
    cuts = np.searchsorted(knots, edges, side="left")
    cuts[-1] = size - 1
    return knots, np.unique(cuts)


def _grid(distinct: Numbers, relative_error: float) -> tuple[int, DecimalGrid | None]:
    if distinct.dtype == np.float64:
        return 1, DecimalGrid.fit(distinct.astype(np.float64), relative_error)
    gaps = np.diff(distinct.astype(np.uint64))
    step = int(np.gcd.reduce(gaps)) if len(gaps) else 1
    return max(step, 1), None


def _gaussian_score(rank: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.clip(ndtri(np.clip(rank, 1e-6, 1 - 1e-6)), -4.0, 4.0).astype(np.float32)
