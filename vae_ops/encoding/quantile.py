"""Ordered numbers to tokens and back: the part that numbers, dates, times and durations share.

A `QuantileCoder` sees a plain int64 or float64 array without nulls. Few distinct values become one token value each;
otherwise frequent exact values get one of their own and the rest is cut into bins of equal mass. A fraction says where
in its bin a value lies, along the column's own quantile curve; decoding snaps to the column's own grid. What they mean
(units, scales, calendars) is the business of the encodings that call this.
"""

from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from vae_ops.errors import BundleError

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

    def check(self) -> None:
        """Makes sure that a grid which was read from somewhere is one that `fit` could have given."""
        limits = len(self.decades) * [(-_MAX_DECIMALS, 18)] + len(self.decimals) * [(-1, _MAX_DECIMALS)]
        numbers = zip((*self.decades, *self.decimals), limits, strict=True)
        is_whole = all(type(number) is int and low <= number <= high for number, (low, high) in numbers)
        if not is_whole or len(self.decades) != len(self.decimals) or list(self.decades) != sorted(set(self.decades)):
            raise BundleError("The decimals of a saved column are not whole numbers by decade.")

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
        spans: Gaussian scores of the ranks where each exact value, then each bin, begins and ends; shape (size, 2).
            Both are the mid-rank's for an exact value.
    """

    exact: Numbers
    knots: Numbers
    cuts: NDArray[np.int64]
    step: int
    grid: DecimalGrid | None
    spans: NDArray[np.float32]

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
        step, grid = _grid(distinct, relative_error)
        return cls(
            exact=exact,
            knots=knots,
            cuts=cuts,
            step=step,
            grid=grid,
            spans=_gaussian_score(_ranks(np.sort(values), exact, counts[frequent], knots[cuts])),
        )

    @property
    def bins(self) -> int:
        """Number of bins that the inexact values fall into."""
        return max(len(self.cuts) - 1, 0)

    @property
    def size(self) -> int:
        """Vocabulary: exact values, then bins."""
        return len(self.exact) + self.bins

    def encode(self, values: Numbers) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Tokens, and where inside its bin each value lies (½ for exact values); both of shape (n,).

        Values outside the fitted range fall into the outermost bin; without bins, onto the nearest exact value.
        """
        near = np.clip(np.searchsorted(self.exact, values), 0, max(len(self.exact) - 1, 0))
        is_exact = self.exact[near] == values if len(self.exact) else np.zeros(len(values), dtype=bool)
        if self.bins:
            bins = np.searchsorted(self.knots[self.cuts[1:-1]], values, side="right")
            tokens = np.where(is_exact, near, len(self.exact) + bins).astype(np.int32)
            return tokens, np.where(is_exact, 0.5, self._fraction(bins, values))
        left = np.clip(near - 1, 0, None)
        # Halved, so that the ends of the float range can be told apart without overflow.
        half, below, above = values / 2.0, self.exact[left] / 2.0, self.exact[near] / 2.0
        nearest = np.where(~is_exact & (np.abs(half - below) < np.abs(half - above)), left, near)
        return nearest.astype(np.int32), np.full(len(values), 0.5)

    def decode(self, tokens: NDArray[np.int32], fractions: NDArray[Any]) -> Numbers:
        """Values, shape (n,), for tokens and places inside their bins, both of shape (n,)."""
        values = np.zeros(len(tokens), dtype=self.exact.dtype)
        is_exact = tokens < len(self.exact)
        values[is_exact] = self.exact[tokens[is_exact]]
        inside = ~is_exact
        if inside.any():
            bins = tokens[inside] - len(self.exact)
            values[inside] = self._place(bins, fractions[inside].astype(np.float64))
        return values

    def _place(self, bins: NDArray[np.int32], fractions: NDArray[np.float64]) -> Numbers:
        first, last = self.cuts[bins], self.cuts[bins + 1]
        place = first + fractions * (last - first)
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

    def _fraction(self, bins: NDArray[np.int64], values: Numbers) -> NDArray[np.float64]:
        """The inverse of `_place`, up to the grid; a value that spans several knots lies in their middle."""
        inner = np.clip(values, self.knots[0], self.knots[-1])
        lowest = np.searchsorted(self.knots, inner, side="left")
        left = np.clip(np.searchsorted(self.knots, inner, side="right") - 1, 0, len(self.knots) - 2)
        share = _loosen_ends(self._share(left, inner), left, len(self.knots) - 2)
        first, last = self.cuts[bins], self.cuts[bins + 1]
        place = (np.minimum(lowest, left) + left) / 2 + share
        return np.clip((place - first) / (last - first), 0.0, 1.0)

    def _share(self, left: NDArray[np.int64], values: Numbers) -> NDArray[np.float64]:
        """How far between two neighbouring knots each value lies, from 0 to 1."""
        low, high = self.knots[left], self.knots[left + 1]
        if self.grid is not None:
            # Halved, because the whole range of the floats may lie between two knots.
            gap = high / 2 - low / 2
            return np.asarray(np.clip((values / 2 - low / 2) / np.where(gap > 0, gap, 1.0), 0.0, 1.0))
        step = np.uint64(self.step)
        steps = (high.astype(np.uint64) - low.astype(np.uint64)) // step + (left == len(self.knots) - 2)
        done = (values.astype(np.uint64) - low.astype(np.uint64)) // step
        return np.asarray((done + 0.5) / np.maximum(steps, 1))

    def carried_from(self, earlier: "QuantileCoder") -> NDArray[np.int64]:
        """Which token of an earlier fit each token goes on from, shape (size,).

        An exact value goes on from itself, or from whatever stood for it; a bin from the earlier bin of its rank.
        """
        exact = earlier.encode(self.exact)[0].astype(np.int64)
        if not self.bins:
            return exact
        first = len(earlier.exact) if earlier.bins else 0
        ranks = earlier.spans[first:].mean(axis=1)
        order = np.argsort(ranks, kind="stable")
        wanted = self.spans[len(self.exact) :].mean(axis=1)
        return np.concatenate([exact, first + order[_nearest(ranks[order], wanted)]])

    def state(self) -> dict[str, Any]:
        """Everything needed to rebuild the coder: plain values and arrays."""
        grid = None if self.grid is None else {"decades": list(self.grid.decades), "decimals": list(self.grid.decimals)}
        return {
            "exact": self.exact,
            "knots": self.knots,
            "cuts": self.cuts,
            "step": self.step,
            "grid": grid,
            "spans": self.spans,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The inverse of `state`.

        Raises:
            BundleError: The state is not one that `fit` could have given.
        """
        grid = state["grid"]
        rebuilt = None if grid is None else DecimalGrid(tuple(grid["decades"]), tuple(grid["decimals"]))
        coder = cls(**{**state, "grid": rebuilt})
        coder._check()
        return coder

    def _check(self) -> None:
        kind = np.dtype(np.int64 if self.grid is None else np.float64)
        found = [(array.dtype, array.ndim) for array in (self.exact, self.knots, self.cuts)]
        if found != [(kind, 1), (kind, 1), (np.dtype(np.int64), 1)] or self.spans.shape != (self.size, 2):
            raise BundleError("The arrays of a saved column are not of the kinds and shapes that its tokens need.")
        ends = [0, len(self.knots) - 1] if self.bins else []
        is_sorted = all(np.all(array[1:] >= array[:-1]) for array in (self.exact, self.knots))
        if not is_sorted or self.cuts[[0, -1][: len(ends)]].tolist() != ends or np.any(np.diff(self.cuts) < 1):
            raise BundleError("The values of a saved column are not in order.")
        if self.grid is not None:
            self.grid.check()
        numbers = (self.exact, self.knots, self.spans)
        if self.size < 1 or self.step < 1 or not all(np.all(np.isfinite(array)) for array in numbers):
            raise BundleError("The values of a saved column are missing or not finite.")


def _nearest(ordered: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    """Index of the nearest of some sorted numbers."""
    middles = (ordered[1:] + ordered[:-1]) / 2
    return np.searchsorted(middles, wanted).astype(np.int64)


def _stretch_ends(share: NDArray[Any], left: NDArray[np.int64], last: int) -> NDArray[np.float64]:
    """Pushes draws in the outermost gaps of the curve towards the observed ends, so that samples span the range.

    The gap beside an extreme is often wide and gets a handful of draws; spread evenly they would stop far short of the
    extreme. The fourth power leaves the expected nearest of k draws at about 1/k⁴ of the gap, without repeating the
    extreme itself.
    """
    low = np.where(left == 0, share**4, share)
    return np.where(left == last, 1 - (1 - low) ** 4, low)


def _loosen_ends(share: NDArray[np.float64], left: NDArray[np.int64], last: int) -> NDArray[np.float64]:
    """The inverse of `_stretch_ends`."""
    high = np.where(left == last, 1 - (1 - share) ** 0.25, share)
    return np.where(left == 0, high**0.25, high)


def _ranks(ordered: Numbers, exact: Numbers, counts: NDArray[np.int64], edges: Numbers) -> NDArray[np.float64]:
    """Ranks, from 0 to 1, where exact values and the bins between the edges begin and end; shape (values, 2)."""
    middle = np.searchsorted(ordered, exact, side="left") + counts / 2
    bounds = np.searchsorted(ordered, edges, side="left").astype(np.float64)
    # The outermost values are half a row away from the ends, where the Gaussian score is infinite.
    bounds[-1:] = len(ordered) - 0.5
    bounds = np.maximum(bounds, 0.5)
    spans = [np.column_stack([middle, middle]), np.column_stack([bounds[:-1], bounds[1:]])]
    return np.concatenate(spans) / len(ordered)


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
