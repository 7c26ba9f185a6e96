"""All columns at once: boosted trees that try to tell synthetic rows from real ones, and what gives the rows away.

A pure function of columns encoded by `columns.py`. `fidelity.py` looks at single columns and at pairs; whether an AUC
is good enough is decided by `gate.py`, and what AUC chance alone reaches is measured by `noise_floor.py`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from vae_ops.validation.columns import CategoryColumn, Column, EncodedTable, NumberColumn, row_count, take_rows
from vae_ops.validation.evidence import Interval
from vae_ops.validation.fidelity import discrete_codes

__all__ = [
    "FEWEST_ITERATIONS",
    "FOLDS",
    "MAX_CELLS",
    "C2stResult",
    "C2stScores",
    "auc_interval",
    "auc_standard_error",
    "c2st",
    "c2st_scores",
]

MAX_CELLS = 600_000  # rows × columns of both sides, about five seconds on one core
MIN_ROWS = 1_000  # a wide table gives up columns before it gives up these rows
FOLDS = 5
SUSPICIOUS = 3.0  # standard errors above chance at which it is worth asking which columns tell
TELLING_COLUMNS = 3
MAX_ITERATIONS, FEWEST_ITERATIONS = 100, 40
MAX_SPLIT_SEARCHES = 6_000  # iterations × columns of one fit, so that 300 columns take seconds, not minutes
RESAMPLES = 200


@dataclass(frozen=True)
class C2stResult:
    """Outcome of a classifier two-sample test (Lopez-Paz and Oquab, arXiv 1610.06545).

    Attributes:
        auc: Cross-validated AUC of boosted trees that tell synthetic from real; 0.5 cannot tell, 1 always can.
        interval: Bootstrap interval of the AUC over the scored rows.
        standard_error: Of an AUC of 0.5 at these numbers of rows.
        rows: Rows used of each side.
        columns: Columns used.
        telling: The columns that gave most away, with the AUC lost when one is shuffled, greatest loss first; empty
            where the AUC is no better than chance.
    """

    auc: float
    interval: Interval
    standard_error: float
    rows: int
    columns: int
    telling: tuple[tuple[str, float], ...]


def c2st(
    real: EncodedTable,
    synthetic: EncodedTable,
    *,
    seed: int = 0,
    max_cells: int = MAX_CELLS,
    max_iterations: int = MAX_ITERATIONS,
) -> C2stResult:
    """Asks boosted trees to tell synthetic rows from real ones.

    Equally many rows of each side are used; a table too large for a quick answer is cut to a fixed-seed sample of its
    rows, and a very wide one of its columns. Deterministic for given rows and seed.

    Args:
        real: Real rows that the model was not trained on.
        synthetic: Synthetic rows, encoded together with `real`.
        seed: Decides samples, folds, shuffles and resamples.
        max_cells: Most rows × columns to look at, of both sides together.
        max_iterations: Most boosting rounds.
    """
    scored = c2st_scores(real, synthetic, seed=seed, max_cells=max_cells, max_iterations=max_iterations)
    rows = len(scored.real)
    if not rows:
        return C2stResult(0.5, Interval(0.0, 1.0), 0.5, _size(real, synthetic, max_cells)[0], len(scored.names), ())
    losses = zip(scored.names, scored.losses, strict=True) if scored.losses else ()
    return C2stResult(
        auc=float(roc_auc_score(np.repeat([0, 1], rows), np.concatenate([scored.real, scored.synthetic]))),
        interval=auc_interval(scored.real, scored.synthetic, seed=seed),
        standard_error=auc_standard_error(0.5, rows, rows),
        rows=rows,
        columns=len(scored.names),
        telling=tuple(sorted(losses, key=lambda pair: -pair[1])[:TELLING_COLUMNS]),
    )


@dataclass(frozen=True)
class C2stScores:
    """How synthetic each row looks to trees that were fitted without it.

    Attributes:
        real: float64 `(rows,)`, from 0 to 1; empty where there are too few rows.
        synthetic: The same of as many synthetic rows, or a multiple of them.
        names: Columns used.
        losses: The AUC lost when each column is shuffled; empty where the AUC is no better than chance or nobody asked.
    """

    real: NDArray[np.float64]
    synthetic: NDArray[np.float64]
    names: tuple[str, ...]
    losses: tuple[float, ...]


def c2st_scores(
    real: EncodedTable,
    synthetic: EncodedTable,
    *,
    seed: int = 0,
    max_cells: int = MAX_CELLS,
    max_iterations: int = MAX_ITERATIONS,
    most_per_real: int = 1,
    with_losses: bool = True,
) -> C2stScores:
    """Scores that `c2st` makes its AUC of; arguments as there.

    Against tables of equally many synthetic rows and one seed, the same real rows are scored in the same folds.

    Args:
        real: Real rows.
        synthetic: Synthetic rows, encoded together with `real`.
        seed: Decides samples, folds and shuffles.
        max_cells: Most rows × columns to look at, of both sides together.
        max_iterations: Most boosting rounds.
        most_per_real: Synthetic rows beside each real one, where there are so many and they may be looked at: an AUC of
            few real rows is then known better.
        with_losses: Whether it matters which columns tell the sides apart.
    """
    rows, most = _size(real, synthetic, max_cells)
    generator = np.random.default_rng(seed)
    names = [list(real)[index] for index in _sample(len(real), most, generator)]
    if rows < FOLDS or not names:
        return C2stScores(np.empty(0), np.empty(0), tuple(names), ())
    affordable = max_cells // (rows * len(names)) - 1
    counts = rows, rows * max(1, min(most_per_real, affordable, row_count(synthetic) // rows))
    sides = [
        take_rows({n: t[n] for n in names}, _sample(row_count(t), count, generator))
        for t, count in zip((real, synthetic), counts, strict=True)
    ]
    features, categorical = _features(sides[0], sides[1])
    # One thread: on a busy machine the trees' OpenMP threads wait for each other and take ten times as long.
    with threadpool_limits(1):
        scores, losses = _cross_validate(
            features, np.repeat([0, 1], counts), categorical, seed, max_iterations, with_losses
        )
    return C2stScores(scores[:rows], scores[rows:], tuple(names), tuple(losses))


def _cross_validate(
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    categorical: list[bool],
    seed: int,
    most: int,
    with_losses: bool,
) -> tuple[NDArray[np.float64], list[float]]:
    """Scores of all rows and, if asked for and above chance, the AUC that the last fold loses without each feature."""
    scores = np.zeros(len(labels))
    for fit, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed % 2**32).split(features, labels):
        trees = _trees(len(fit), categorical, seed, most).fit(features[fit], labels[fit])
        scores[test] = trees.predict_proba(features[test])[:, 1]
    if not with_losses or roc_auc_score(labels, scores) <= 0.5 + SUSPICIOUS * auc_standard_error(
        0.5, *np.bincount(labels)
    ):
        return scores, []
    return scores, _shuffle_losses(trees, features[test], labels[test], np.random.default_rng(seed))


def auc_interval(negative: NDArray[np.float64], positive: NDArray[np.float64], *, seed: int) -> Interval:
    """Bootstrap percentile interval, 95 %, of the AUC between two samples of scores.

    Args:
        negative: Scores that should be low.
        positive: Scores that should be high.
        seed: Decides the resamples.
    """
    both = np.concatenate([negative, positive])
    place = np.unique(both, return_inverse=True)[1]
    sides, size = (place[: len(negative)], place[len(negative) :]), int(place.max()) + 1
    generator = np.random.default_rng(seed)
    aucs = []
    for _ in range(RESAMPLES):
        low, high = (
            np.bincount(side[generator.integers(0, len(side), len(side))], minlength=size) / len(side) for side in sides
        )
        aucs.append(float(high @ (np.cumsum(low) - low / 2)))
    return Interval(*(float(bound) for bound in np.quantile(aucs, [0.025, 0.975])))


def auc_standard_error(auc: float, first: int, second: int) -> float:
    """Standard error of an AUC between two samples of these sizes (Hanley and McNeil, Radiology 143, 1982)."""
    both_first, both_second = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (first - 1) * (both_first - auc * auc) + (second - 1) * (both_second - auc * auc)
    return float(np.sqrt(max(variance, 0.0) / (first * second)))


def _size(real: EncodedTable, synthetic: EncodedTable, max_cells: int) -> tuple[int, int]:
    """Rows of each side and the most columns that keep one fit within `max_cells`."""
    available = min(row_count(real), row_count(synthetic))
    affordable = max(MIN_ROWS, max_cells // (2 * max(len(real), 1)))
    rows = min(available, affordable)
    return rows, max_cells // (2 * max(rows, 1))


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
    left, right, _ = discrete_codes(real, synthetic)
    return np.concatenate([left, right]).astype(np.float64)


def _ordered(column: NumberColumn) -> NDArray[np.float64]:
    """Finite values for the trees, null and NaN as two values below all others.

    The trees take midpoints between values, which infinities do not have, and refuse a fold in which all is missing.
    """
    bounded = column.values.clip(-1e300, 1e300)
    return np.where(column.missing == 0, bounded, -1e300 * (1.0 + column.missing))


def _trees(rows: int, categorical: list[bool], seed: int, most: int) -> HistGradientBoostingClassifier:
    affordable = MAX_SPLIT_SEARCHES // len(categorical)
    return HistGradientBoostingClassifier(
        max_iter=max(FEWEST_ITERATIONS, min(most, affordable)),
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
