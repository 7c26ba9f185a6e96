"""How well synthetic rows match real ones: shape per column, trend per pair of columns, and all columns at once (C2ST).

Every metric is a pure function of columns encoded by `columns.py`. What is good enough is decided by `gate.py`; whether
the match was bought by copying rows is asked by `privacy.py`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from vae_ops.validation.columns import (
    MISSING_CODES,
    CategoryColumn,
    Column,
    EncodedTable,
    NumberColumn,
    take_rows,
)

__all__ = [
    "C2stResult",
    "auc_standard_error",
    "c2st",
    "choose_pairs",
    "contingency_error",
    "correlation_matrix",
    "ks_error",
    "shape_error",
    "total_variation",
    "trend_errors",
]

BINS = 10
MAX_CATEGORIES = 255  # what scikit-learn's histogram trees take in one feature
MAX_CELLS = 1_200_000  # rows × columns of the C2ST, about ten seconds on one core
MIN_ROWS = 1_000  # a wide table gives up columns before it gives up these rows
FOLDS = 5
SUSPICIOUS = 3.0  # standard errors above chance at which it is worth asking which columns tell
TELLING_COLUMNS = 3
MAX_ITERATIONS, FEWEST_ITERATIONS = 100, 40
MAX_SPLIT_SEARCHES = 6_000  # iterations × columns of one fit, so that 300 columns take seconds, not minutes


def ks_error(real: NumberColumn, synthetic: NumberColumn) -> float:
    """Kolmogorov-Smirnov distance of two number columns in which null and NaN are categories of their own.

    The largest difference, over all values t, between the two shares of rows at or below t, above t, null, or NaN.
    Without missing values this is the usual statistic, and 1 - SDMetrics' `KSComplement`.

    Returns:
        A distance from 0 (same distribution) to 1 (nothing in common); symmetric.
    """
    left, right = np.sort(real.values[real.missing == 0]), np.sort(synthetic.values[synthetic.missing == 0])
    at = np.concatenate([left, right])
    below = _share_below(left, at, len(real.values)) - _share_below(right, at, len(synthetic.values))
    kinds = [np.mean(real.missing == kind) - np.mean(synthetic.missing == kind) for kind in MISSING_CODES.values()]
    above = kinds[0] - below  # rows above t are the present ones that are not at or below t
    return float(np.abs(np.concatenate([below, above, kinds])).max())


def _share_below(ordered: NDArray[np.float64], at: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    return np.searchsorted(ordered, at, side="right") / rows


def total_variation(real: NDArray[np.int64], synthetic: NDArray[np.int64], size: int) -> float:
    """Total-variation distance of two samples of codes below `size`; 1 - SDMetrics' `TVComplement`.

    Returns:
        A distance from 0 (same shares) to 1 (no code in common); symmetric.
    """
    difference = np.bincount(real, minlength=size) / len(real) - np.bincount(synthetic, minlength=size) / len(synthetic)
    return float(np.abs(difference).sum() / 2)


def shape_error(real: Column, synthetic: Column) -> float:
    """Distance of one column's two distributions, from 0 to 1: KS for numbers, total variation for categories.

    A column of more than 254 categories is compared by those most frequent in `real` and all others lumped together,
    because the share of a category seen a few times says nothing about the sampler.
    """
    if isinstance(real, NumberColumn) and isinstance(synthetic, NumberColumn):
        return ks_error(real, synthetic)
    return total_variation(*_discrete(real, synthetic))


def trend_errors(
    real: EncodedTable, synthetic: EncodedTable, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], float]:
    """How differently pairs of columns depend on each other, from 0 (alike) to 1.

    Two number columns: half the absolute difference of Pearson's correlations over rows where both are present. Any
    other pair, and number columns whose correlation is undefined on either side: total variation of the two contingency
    tables, with numbers in ten equal-width bins over the range of `real` and null and NaN in bins of their own. These
    are 1 - SDMetrics' `CorrelationSimilarity` and `ContingencySimilarity` (arXiv 2310.09656 averages them over pairs).

    Returns:
        One error per pair, in the order of `pairs`.
    """
    used = sorted({name for pair in pairs for name in pair})
    codes = {name: _discrete(real[name], synthetic[name]) for name in used}
    correlations = _correlation_errors(real, synthetic, used)
    errors = {}
    for first, second in pairs:
        error = correlations.get((first, second), np.nan)
        errors[first, second] = contingency_error(codes[first], codes[second]) if np.isnan(error) else error
    return errors


def contingency_error(
    first: tuple[NDArray[np.int64], NDArray[np.int64], int], second: tuple[NDArray[np.int64], NDArray[np.int64], int]
) -> float:
    """Total variation of the joint distribution of two coded columns, from 0 to 1; symmetric in real and synthetic.

    Args:
        first: Real codes, synthetic codes and number of codes of one column.
        second: The same of the other column.
    """
    size = second[2]
    return total_variation(first[0] * size + second[0], first[1] * size + second[1], first[2] * size)


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


def _correlation_errors(
    real: EncodedTable, synthetic: EncodedTable, names: Sequence[str]
) -> Mapping[tuple[str, str], float]:
    """Half the absolute difference of correlations by ordered pair of number columns; NaN where undefined."""
    left = {name: column for name in names if isinstance(column := real[name], NumberColumn)}
    right = {name: column for name in left if isinstance(column := synthetic[name], NumberColumn)}
    if len(left) < 2:
        return {}
    errors = np.abs(correlation_matrix(list(left.values())) - correlation_matrix(list(right.values()))) / 2
    return {(a, b): float(errors[i, j]) for i, a in enumerate(left) for j, b in enumerate(left) if i != j}


def choose_pairs(names: Sequence[str], most: int, seed: int) -> list[tuple[str, str]]:
    """All pairs of columns, or a fixed-seed sample of `most` of them where there are more."""
    pairs = list(itertools.combinations(names, 2))
    if len(pairs) <= most:
        return pairs
    chosen = np.random.default_rng(seed).choice(len(pairs), size=most, replace=False)
    return [pairs[index] for index in np.sort(chosen)]


def _discrete(real: Column, synthetic: Column) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Both sides of a column as few codes: numbers in bins, categories with the infrequent ones lumped together."""
    if isinstance(real, NumberColumn) and isinstance(synthetic, NumberColumn):
        edges = _bin_edges(real)
        return _binned(real, edges), _binned(synthetic, edges), BINS + len(MISSING_CODES)
    if isinstance(real, CategoryColumn) and isinstance(synthetic, CategoryColumn):
        lookup, size = _lumping(real)
        return lookup[real.codes], lookup[synthetic.codes], size
    raise TypeError("One side of the column is encoded as numbers, the other as categories; encode both together.")


def _bin_edges(column: NumberColumn) -> NDArray[np.float64]:
    """Inner edges of ten equal-width bins over the finite values."""
    finite = column.values[np.isfinite(column.values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    # Halved and doubled, which is exact: the full range of float64 is wider than float64.
    return 2.0 * np.linspace(low / 2.0, high / 2.0, BINS + 1)[1:-1]


def _binned(column: NumberColumn, edges: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.where(column.missing == 0, np.digitize(column.values, edges), BINS + column.missing)


def _lumping(real: CategoryColumn) -> tuple[NDArray[np.int64], int]:
    """New code by old code: 0 for all that is rare or absent in `real`, at most `MAX_CATEGORIES` codes in all.

    Categories of one count are kept or lumped together, so that the order of rows decides nothing.
    """
    counts = np.bincount(real.codes, minlength=real.size)
    kept = counts > 0
    if kept.sum() >= MAX_CATEGORIES:
        kept = counts > np.sort(counts)[-MAX_CATEGORIES]
    lookup = np.zeros(real.size, dtype=np.int64)
    lookup[kept] = np.arange(1, kept.sum() + 1)
    return lookup, int(kept.sum()) + 1


@dataclass(frozen=True)
class C2stResult:
    """Outcome of a classifier two-sample test (Lopez-Paz and Oquab, arXiv 1610.06545).

    Attributes:
        auc: Cross-validated AUC of boosted trees that tell synthetic from real; 0.5 cannot tell, 1 always can.
        standard_error: Of an AUC of 0.5 at these numbers of rows.
        rows: Rows used of each side.
        columns: Columns used.
        telling: The columns that gave most away, with the AUC lost when one is shuffled, greatest loss first; empty
            where the AUC is no better than chance.
    """

    auc: float
    standard_error: float
    rows: int
    columns: int
    telling: tuple[tuple[str, float], ...]


def c2st(real: EncodedTable, synthetic: EncodedTable, *, seed: int = 0) -> C2stResult:
    """Asks boosted trees to tell synthetic rows from real ones.

    Equally many rows of each side are used; a table too large for a quick answer is cut to a fixed-seed sample of its
    rows, and a very wide one of its columns. Deterministic for given rows and seed.

    Args:
        real: Real rows that the model was not trained on.
        synthetic: Synthetic rows, encoded together with `real`.
        seed: Decides samples, folds and shuffles.
    """
    generator = np.random.default_rng(seed)
    rows, names = _c2st_size(real, synthetic, generator)
    if rows < FOLDS or not names:
        return C2stResult(0.5, 0.5, rows, len(names), ())
    sides = [take_rows({n: t[n] for n in names}, _sample(_rows(t), rows, generator)) for t in (real, synthetic)]
    features, categorical = _features(sides[0], sides[1])
    # One thread: on a busy machine the trees' OpenMP threads wait for each other and take ten times as long.
    with threadpool_limits(1):
        auc, losses = _cross_validate(features, np.repeat([0, 1], rows), categorical, seed)
    telling = sorted(zip(names, losses, strict=True), key=lambda pair: -pair[1]) if losses else []
    return C2stResult(auc, auc_standard_error(0.5, rows, rows), rows, len(names), tuple(telling[:TELLING_COLUMNS]))


def _cross_validate(
    features: NDArray[np.float64], labels: NDArray[np.int64], categorical: list[bool], seed: int
) -> tuple[float, list[float]]:
    """AUC over all folds, and where it is above chance the AUC that the last fold loses without each feature."""
    scores = np.zeros(len(labels))
    for fit, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32).split(features, labels):
        trees = _trees(len(fit), categorical, seed).fit(features[fit], labels[fit])
        scores[test] = trees.predict_proba(features[test])[:, 1]
    auc, side = float(roc_auc_score(labels, scores)), len(labels) // 2
    if auc <= 0.5 + SUSPICIOUS * auc_standard_error(0.5, side, side):
        return auc, []
    return auc, _shuffle_losses(trees, features[test], labels[test], np.random.default_rng(seed))


def auc_standard_error(auc: float, first: int, second: int) -> float:
    """Standard error of an AUC between two samples of these sizes (Hanley and McNeil, Radiology 143, 1982)."""
    both_first, both_second = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (first - 1) * (both_first - auc * auc) + (second - 1) * (both_second - auc * auc)
    return float(np.sqrt(max(variance, 0.0) / (first * second)))


def _c2st_size(real: EncodedTable, synthetic: EncodedTable, generator: np.random.Generator) -> tuple[int, list[str]]:
    """Rows of each side and columns that keep one fit within `MAX_CELLS`."""
    names = list(real)
    available = min(_rows(real), _rows(synthetic))
    affordable = max(MIN_ROWS, MAX_CELLS // (2 * max(len(names), 1)))
    rows = min(available, affordable)
    most = MAX_CELLS // (2 * max(rows, 1))
    return rows, [names[index] for index in _sample(len(names), most, generator)]


def _rows(table: EncodedTable) -> int:
    for column in table.values():
        return len(column.values if isinstance(column, NumberColumn) else column.codes)
    return 0


def _sample(available: int, most: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """At most `most` of the numbers below `available`, in order."""
    if available <= most:
        return np.arange(available)
    return np.sort(generator.choice(available, size=most, replace=False))


def _features(real: EncodedTable, synthetic: EncodedTable) -> tuple[NDArray[np.float64], list[bool]]:
    """Feature matrix of the real rows over the synthetic ones, and which features are categories."""
    parts = [_feature(real[name], synthetic[name]) for name in real]
    return np.column_stack(parts), [isinstance(column, CategoryColumn) for column in real.values()]


def _feature(real: Column, synthetic: Column) -> NDArray[np.float64]:
    if isinstance(real, NumberColumn) and isinstance(synthetic, NumberColumn):
        return np.concatenate([_ordered(real), _ordered(synthetic)])
    left, right, _ = _discrete(real, synthetic)
    return np.concatenate([left, right]).astype(np.float64)


def _ordered(column: NumberColumn) -> NDArray[np.float64]:
    """Finite values for the trees, null and NaN as two values below all others.

    The trees take midpoints between values, which infinities do not have, and refuse a fold in which all is missing.
    """
    bounded = column.values.clip(-1e300, 1e300)
    return np.where(column.missing == 0, bounded, -1e300 * (1.0 + column.missing))


def _trees(rows: int, categorical: list[bool], seed: int) -> HistGradientBoostingClassifier:
    affordable = MAX_SPLIT_SEARCHES // len(categorical)
    return HistGradientBoostingClassifier(
        max_iter=max(FEWEST_ITERATIONS, min(MAX_ITERATIONS, affordable)),
        learning_rate=0.1,
        max_leaf_nodes=31,
        min_samples_leaf=max(3, min(20, rows // 20)),
        categorical_features=categorical,
        early_stopping=False,
        random_state=seed % 2**32,
    )


def _shuffle_losses(
    trees: HistGradientBoostingClassifier,
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    generator: np.random.Generator,
) -> list[float]:
    """AUC lost on these rows when one feature at a time is shuffled."""
    whole = roc_auc_score(labels, trees.predict_proba(features)[:, 1])
    losses = []
    for index in range(features.shape[1]):
        shuffled = features.copy()
        shuffled[:, index] = generator.permutation(shuffled[:, index])
        losses.append(float(whole - roc_auc_score(labels, trees.predict_proba(shuffled)[:, 1])))
    return losses
