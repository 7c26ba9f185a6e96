"""How well synthetic rows match real ones: shape per column and trend per pair of columns, as pure functions.

Both averages are SDMetrics' Column Shapes and Column Pair Trends, turned into errors. `joint.py` looks at all columns
at once, `column_facts.py` describes one column for a person, `noise_floor.py` asks what chance alone does to these
numbers and `gate.py` what is good enough. Columns arrive encoded by `columns.py`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vae_ops.validation.columns import MISSING_CODES, CategoryColumn, Column, EncodedTable, NumberColumn

__all__ = [
    "BINS",
    "STRONG_ASSOCIATION",
    "STRONG_CORRELATION",
    "Counted",
    "PairTrend",
    "choose_pairs",
    "coarsen_columns",
    "contingency_error",
    "correlation_matrix",
    "count_columns",
    "cramers_v",
    "dependence_error",
    "dependences_of_counts",
    "discrete_codes",
    "distances_of_counts",
    "ks_error",
    "mean_shift",
    "pair_trends",
    "shape_distance",
    "shape_error",
    "total_variation",
    "trend_errors",
]

Codes = NDArray[np.int64]

BINS = 10
MAX_CATEGORIES = 255  # what scikit-learn's histogram trees take in one feature
COARSE_CATEGORIES = 30  # two columns of these fill at most 900 cells, so that a cell holds more than noise
# From where on SDMetrics 0.32's quality report counts a pair: |r| and Cramér's V of the real rows.
STRONG_CORRELATION, STRONG_ASSOCIATION = 0.5, 0.3


# --- one column ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """A column as a distance counts it: ready to be compared again and again on other rows.

    Attributes:
        codes: int64 `(rows,)`, below `size`.
        size: Number of codes.
        ordered: The first so many codes stand for present values in rising order; 0 for categories.
    """

    codes: Codes
    size: int
    ordered: int

    def take(self, rows: Codes) -> "Counted":
        """The column at these row numbers."""
        return Counted(self.codes[rows], self.size, self.ordered)


def count_columns(real: Column, columns: Sequence[Column]) -> list[Counted]:
    """Codes one column of several tables alike; of categories the infrequent ones in `real` are lumped together.

    A column of more than 254 categories is compared by those most frequent in `real` and all others as one, because the
    share of a category seen a few times says nothing about the sampler.
    """
    if isinstance(real, CategoryColumn):
        lookup, size = _lumping(real)
        return [Counted(lookup[_categories(column).codes], size, 0) for column in columns]
    numbers = [_numbers(column) for column in columns]
    distinct = np.unique(np.concatenate([column.values[column.missing == 0] for column in numbers]))
    return [Counted(_ranks(column, distinct), len(distinct) + len(MISSING_CODES), len(distinct)) for column in numbers]


def _ranks(column: NumberColumn, distinct: NDArray[np.float64], *, above: int = 0) -> Codes:
    """Place of each value among rising bounds; `above` says how many places lie beyond the last bound."""
    absent = len(distinct) + above + column.missing.astype(np.int64)
    return np.where(column.missing == 0, np.searchsorted(distinct, column.values), absent)


def _numbers(column: Column) -> NumberColumn:
    if not isinstance(column, NumberColumn):
        raise TypeError("One side of the column is encoded as numbers, the other as categories; encode both together.")
    return column


def _categories(column: Column) -> CategoryColumn:
    if not isinstance(column, CategoryColumn):
        raise TypeError("One side of the column is encoded as numbers, the other as categories; encode both together.")
    return column


def shape_distance(real: Counted, synthetic: Counted) -> float:
    """Distance of one column's two distributions, from 0 to 1: KS where values have an order, else total variation.

    In the KS distance null and NaN are categories of their own: it is the largest difference, over all values t,
    between the two shares of rows at or below t, above t, null, or NaN.
    """
    left, right = (np.bincount(side.codes, minlength=side.size) for side in (real, synthetic))
    return float(distances_of_counts(left, right, real.ordered))


def distances_of_counts(real: Codes, synthetic: Codes, ordered: int = 0) -> NDArray[np.float64]:
    """`shape_distance` of many tables at once.

    Args:
        real: Rows by code, `(…, size)`.
        synthetic: The same of the other side.
        ordered: The first so many codes stand for present values in rising order; 0 for categories.

    Returns:
        float64 `(…)`, from 0 to 1.
    """
    difference = _shares(real) - _shares(synthetic)
    if not ordered:
        return np.asarray(np.abs(difference).sum(axis=-1) / 2)
    below = np.cumsum(difference[..., :ordered], axis=-1)
    above = below[..., -1:] - below
    apart = np.concatenate([below, above, difference[..., ordered:]], axis=-1)
    return np.asarray(np.abs(apart).max(axis=-1))


def _shares(counts: Codes) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / counts.sum(axis=-1, keepdims=True)
    return shares


def _variation(left: Codes, right: Codes) -> float:
    return float(np.abs(left / left.sum() - right / right.sum()).sum() / 2)


def shape_error(real: Column, synthetic: Column) -> float:
    """Distance of one column's two distributions, from 0 to 1: KS for numbers, total variation for categories.

    Without missing values these are 1 - SDMetrics' `KSComplement` and 1 - `TVComplement`; see `shape_distance` for
    missing ones and `count_columns` for very many categories.
    """
    left, right = count_columns(real, [real, synthetic])
    return shape_distance(left, right)


def ks_error(real: NumberColumn, synthetic: NumberColumn) -> float:
    """Kolmogorov-Smirnov distance of two number columns, from 0 (same) to 1 (nothing in common); symmetric."""
    return shape_error(real, synthetic)


def total_variation(real: Codes, synthetic: Codes, size: int) -> float:
    """Total-variation distance of two samples of codes below `size`.

    Returns:
        A distance from 0 (same shares) to 1 (no code in common); symmetric.
    """
    return _variation(np.bincount(real, minlength=size), np.bincount(synthetic, minlength=size))


def mean_shift(real: NumberColumn, synthetic: NumberColumn) -> float | None:
    """How far the mean of the synthetic values lies above that of the real ones, in real standard deviations.

    Returns:
        None where the real values do not vary or either side has none.
    """
    left, right = real.finite, synthetic.finite
    if not len(left) or not len(right):
        return None
    # Halved and scaled, because the widest range of float64 overflows a difference and a sum.
    left, right = left / 2 - left[0] / 2, right / 2 - left[0] / 2
    scale = max(float(np.abs(left).max()), float(np.abs(right).max()))
    deviation = float((left / scale).std()) if scale > 0 else 0.0
    # Beside enormous synthetic values the real ones do not vary as far as float64 can see.
    return float(((right / scale).mean() - (left / scale).mean()) / deviation) if deviation > 1e-12 else None


# --- pairs of columns ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairTrend:
    """How two columns depend on each other on both sides.

    Attributes:
        error: From 0 (alike) to 1.
        strength_real: |r| or Cramér's V, from 0 to 1.
        strength_synthetic: The same of the synthetic rows.
        counts: Whether the real rows have a trend that is worth counting.
    """

    first: str
    second: str
    kind: Literal["correlation", "contingency"]
    error: float
    strength_real: float
    strength_synthetic: float
    counts: bool


def pair_trends(real: EncodedTable, synthetic: EncodedTable, pairs: Sequence[tuple[str, str]]) -> list[PairTrend]:
    """Compares how pairs of columns depend on each other.

    Two number columns: half the absolute difference of Pearson's correlations over rows where both are present. Any
    other pair, and number columns whose correlation is undefined on either side: total variation of the two contingency
    tables, with numbers in ten equal-width bins over each table's own range, the maximum in a bin of its own, and null
    and NaN in further ones. These are 1 - SDMetrics' `CorrelationSimilarity` and `ContingencySimilarity` as Column Pair
    Trends applies them; the mean over all pairs is that of SDMetrics' property with its thresholds of 0 (also TabSyn's,
    arXiv 2310.09656), the mean over those that count is the one of SDMetrics 0.32's quality report.

    Returns:
        One record per pair, in the order of `pairs`.
    """
    return _Trends(real, synthetic, pairs).measure()


def trend_errors(
    real: EncodedTable, synthetic: EncodedTable, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], float]:
    """The errors of `pair_trends` alone, which take less time than the strengths."""
    return _Trends(real, synthetic, pairs).errors()


class _Trends:
    """Correlations and codes of all columns that occur in the pairs, computed once."""

    def __init__(self, real: EncodedTable, synthetic: EncodedTable, pairs: Sequence[tuple[str, str]]) -> None:
        self.pairs = pairs
        used = sorted({name for pair in pairs for name in pair})
        self.codes = {name: discrete_codes(real[name], synthetic[name]) for name in used}
        self.place, self.correlations = _both_correlations(real, synthetic, used)

    def correlation(self, pair: tuple[str, str]) -> tuple[float, float] | None:
        """Real and synthetic correlation of a pair; None where it has none."""
        if pair[0] not in self.place or pair[1] not in self.place:
            return None
        first, second = self.place[pair[0]], self.place[pair[1]]
        both = float(self.correlations[0][first, second]), float(self.correlations[1][first, second])
        return None if np.isnan(both).any() else both

    def errors(self) -> dict[tuple[str, str], float]:
        errors = {}
        for pair in self.pairs:
            both = self.correlation(pair)
            first, second = (self.codes[name] for name in pair)
            errors[pair] = contingency_error(first, second) if both is None else abs(both[0] - both[1]) / 2
        return errors

    def measure(self) -> list[PairTrend]:
        return [self._measure(pair) for pair in self.pairs]

    def _measure(self, pair: tuple[str, str]) -> PairTrend:
        both = self.correlation(pair)
        if both is not None:
            counts = abs(both[0]) > STRONG_CORRELATION
            return PairTrend(*pair, "correlation", abs(both[0] - both[1]) / 2, abs(both[0]), abs(both[1]), counts)
        real, synthetic = _contingency(*(self.codes[name] for name in pair))
        strong = cramers_v(real)
        error = _variation(real, synthetic)
        return PairTrend(*pair, "contingency", error, strong, cramers_v(synthetic), strong > STRONG_ASSOCIATION)


def contingency_error(first: tuple[Codes, Codes, int], second: tuple[Codes, Codes, int]) -> float:
    """Total variation of the joint distribution of two coded columns, from 0 to 1; symmetric in real and synthetic.

    Args:
        first: Real codes, synthetic codes and number of codes of one column.
        second: The same of the other column.
    """
    return _variation(*_contingency(first, second))


def _contingency(first: tuple[Codes, Codes, int], second: tuple[Codes, Codes, int]) -> tuple[Codes, Codes]:
    """Contingency tables `(first, second)` of the real and of the synthetic rows."""
    size = first[2] * second[2]
    left, right = (
        np.bincount(first[side] * second[2] + second[side], minlength=size).reshape(first[2], second[2])
        for side in (0, 1)
    )
    return left, right


def cramers_v(contingency: Codes) -> float:
    """Cramér's V of a contingency table, from 0 (independent) to 1; rows and columns without counts are left out."""
    counts = contingency[contingency.any(axis=1)][:, contingency.any(axis=0)].astype(np.float64)
    if min(counts.shape) < 2:
        return 0.0
    rows = counts.sum()
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0, keepdims=True) / rows
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    return float(np.sqrt(chi_squared / (rows * (min(counts.shape) - 1))))


def coarsen_columns(real: Column, columns: Sequence[Column]) -> list[Counted]:
    """Codes one column of several tables by the tenths of `real`, or by its most frequent categories and all others."""
    if isinstance(real, CategoryColumn):
        lookup, size = _lumping(real, COARSE_CATEGORIES)
        return [Counted(lookup[_categories(column).codes], size, 0) for column in columns]
    tenths = np.linspace(0.0, 1.0, BINS + 1)[1:-1]
    edges = np.unique(np.quantile(real.finite, tenths, method="lower")) if len(real.finite) else np.empty(0)
    size = len(edges) + 1 + len(MISSING_CODES)
    return [Counted(_ranks(_numbers(column), edges, above=1), size, 0) for column in columns]


def dependence_error(first: tuple[Counted, Counted], second: tuple[Counted, Counted]) -> float:
    """How far apart two columns' joint distributions are beyond what either column shows by itself.

    The total variation of the two contingency tables less the larger one of their margins: 0 where the pair depends on
    each other alike, whatever its columns' own errors. Unlike the error of `pair_trends` it sees dependence that bends,
    and no outlier moves its bins.

    Args:
        first: One column, coarsened, in the real and in the synthetic rows.
        second: The other.

    Returns:
        A distance from 0 to 1; symmetric.
    """
    codes = [(sides[0].codes, sides[1].codes, sides[0].size) for sides in (first, second)]
    return float(dependences_of_counts(*_contingency(*codes)))


def dependences_of_counts(real: Codes, synthetic: Codes) -> NDArray[np.float64]:
    """`dependence_error` of many contingency tables at once.

    Args:
        real: Rows by code of the first and of the second column, `(…, first, second)`.
        synthetic: The same of the other side.

    Returns:
        float64 `(…)`, from 0 to 1.
    """
    difference = real / real.sum(axis=(-2, -1), keepdims=True) - synthetic / synthetic.sum(axis=(-2, -1), keepdims=True)
    margins = [np.abs(difference.sum(axis=axis)).sum(axis=-1) for axis in (-2, -1)]
    beyond: NDArray[np.float64] = np.abs(difference).sum(axis=(-2, -1)) - np.maximum(*margins)
    return np.maximum(beyond, 0.0) / 2


def correlation_matrix(columns: Sequence[NumberColumn]) -> NDArray[np.float64]:
    """Pearson's correlation of every pair of columns over the rows where both are finite; NaN where undefined."""
    raw = np.column_stack([column.values for column in columns])
    present = np.isfinite(raw)
    values = _standardised(raw, present)
    if present.all():
        return _complete_correlation(values)
    mask = present.astype(np.float64)
    count, total, squares = mask.T @ mask, values.T @ mask, (values * values).T @ mask
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = values.T @ values - total * total.T / count
        variance = squares - total * total / count
        # A column is constant where only rounding is left of its variance.
        variance[variance <= 1e-12 * count] = np.nan
        correlation = covariance / np.sqrt(variance * variance.T)
    return np.clip(correlation, -1.0, 1.0)


def _complete_correlation(standardised: NDArray[np.float64]) -> NDArray[np.float64]:
    """One product instead of four, which a wide table feels."""
    constant = ~standardised.any(axis=0)
    correlation = (standardised.T @ standardised / len(standardised)).clip(-1.0, 1.0)
    correlation[constant, :] = correlation[:, constant] = np.nan
    return correlation


def _standardised(values: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Columns scaled to mean 0 and deviation 1 over present values, 0 where absent or constant."""
    count = np.maximum(present.sum(axis=0), 1)
    # From the least value and halved, so that constants become exact zeros and the widest range does not overflow.
    least = np.where(present, values, np.inf).min(axis=0, initial=np.inf)
    shifted = np.where(present, values, 0.0) / 2.0 - np.where(np.isfinite(least), least, 0.0) / 2.0
    shifted[~present] = 0.0
    shifted /= np.maximum(shifted.max(axis=0, initial=0.0), np.finfo(np.float64).tiny)
    centred = np.where(present, shifted - shifted.sum(axis=0) / count, 0.0)
    deviation = np.sqrt((centred * centred).sum(axis=0) / count)
    scaled: NDArray[np.float64] = np.divide(centred, deviation, out=np.zeros_like(centred), where=shifted.any(axis=0))
    return scaled


def _both_correlations(
    real: EncodedTable, synthetic: EncodedTable, names: Sequence[str]
) -> tuple[Mapping[str, int], list[NDArray[np.float64]]]:
    """Place of each number column in the two correlation matrices, and the matrices."""
    numbers = [name for name in names if isinstance(real[name], NumberColumn)]
    if len(numbers) < 2:
        return {}, []
    sides = [[_numbers(table[name]) for name in numbers] for table in (real, synthetic)]
    return {name: index for index, name in enumerate(numbers)}, [correlation_matrix(side) for side in sides]


def choose_pairs(names: Sequence[str], most: int, seed: int) -> list[tuple[str, str]]:
    """All pairs of columns, or a fixed-seed sample of `most` of them where there are more."""
    pairs = list(itertools.combinations(names, 2))
    if len(pairs) <= most:
        return pairs
    chosen = np.random.default_rng(seed).choice(len(pairs), size=most, replace=False)
    return [pairs[index] for index in np.sort(chosen)]


def discrete_codes(real: Column, synthetic: Column) -> tuple[Codes, Codes, int]:
    """Both sides of a column as few codes: numbers in bins, categories with the infrequent ones lumped together."""
    if isinstance(real, NumberColumn):
        return _binned(real), _binned(_numbers(synthetic)), BINS + 1 + len(MISSING_CODES)
    lookup, size = _lumping(real)
    return lookup[real.codes], lookup[_categories(synthetic).codes], size


def _binned(column: NumberColumn) -> Codes:
    """Ten equal-width bins over the column's own finite values and one for the maximum, as SDMetrics digitises."""
    finite = column.finite
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # Halved and doubled, which is exact: the full range of float64 is wider than float64.
    edges = 2.0 * np.linspace(low / 2.0, high / 2.0, BINS + 1)[1:]
    return np.where(column.missing == 0, np.digitize(column.values, edges), BINS + 1 + column.missing)


def _lumping(real: CategoryColumn, most: int = MAX_CATEGORIES) -> tuple[Codes, int]:
    """New code by old code: 0 for all that is rare or absent in `real`, at most `most` codes in all.

    Categories of one count are kept or lumped together, so that the order of rows decides nothing.
    """
    counts = np.bincount(real.codes, minlength=real.size)
    kept = counts > 0
    if kept.sum() >= most:
        kept = counts > np.sort(counts)[-most]
    lookup = np.zeros(real.size, dtype=np.int64)
    lookup[kept] = np.arange(1, kept.sum() + 1)
    return lookup, int(kept.sum()) + 1
