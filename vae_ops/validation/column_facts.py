"""One column as a person wants to see it: distances in its own units, nulls, coverage, and two distributions to draw.

`fidelity.py` holds the distance that is judged; nothing here weighs in the verdict of `gate.py`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vae_ops.validation.columns import CategoryColumn, Column, NumberColumn
from vae_ops.validation.evidence import Distribution

__all__ = ["ColumnFacts", "describe_column", "wasserstein"]

HISTOGRAM_BINS = 40
MOST_WHOLE = 100_000  # from here on one whole number more in a bin does not show
DRAWN_CATEGORIES = 12
_DRAWN_SHARE = 0.99


@dataclass(frozen=True)
class ColumnFacts:
    """What `evidence.ColumnEvidence` says of a column beside its error; see there."""

    wasserstein: float | None
    null_percent_real: float
    null_percent_synthetic: float
    range_coverage: float | None
    category_coverage: float | None
    distribution: Distribution


def describe_column(real: Column, synthetic: Column) -> ColumnFacts:
    """Describes one column of two tables that were encoded together."""
    if isinstance(real, NumberColumn) and isinstance(synthetic, NumberColumn):
        return ColumnFacts(
            wasserstein(real, synthetic),
            100 * float(np.mean(real.missing != 0)),
            100 * float(np.mean(synthetic.missing != 0)),
            _range_coverage(real.finite, synthetic.finite),
            None,
            _histogram(real, synthetic),
        )
    if isinstance(real, CategoryColumn) and isinstance(synthetic, CategoryColumn):
        return ColumnFacts(
            None,
            100 * float(np.mean(_is_null(real))),
            100 * float(np.mean(_is_null(synthetic))),
            None,
            float(np.isin(real.codes, np.unique(synthetic.codes)).mean()),
            _categories(real, synthetic),
        )
    raise TypeError("One side of the column is encoded as numbers, the other as categories; encode both together.")


def wasserstein(real: NumberColumn, synthetic: NumberColumn) -> float | None:
    """Wasserstein-1 distance of the finite values in the column's units, dates and times in seconds.

    It is the area between the two distribution functions: how far a value must move on average (Vallender, Theory of
    Probability and its Applications 18, 1974).

    Returns:
        None where either side has no finite value, or the distance is too great for float64.
    """
    left, right = np.sort(real.finite), np.sort(synthetic.finite)
    if not len(left) or not len(right):
        return None
    at = np.sort(np.concatenate([left, right]))
    shares = [np.searchsorted(side, at[:-1], side="right") / len(side) for side in (left, right)]
    with np.errstate(over="ignore"):  # values on both ends of float64 are farther apart than float64 can say
        area = 2.0 * np.sum(np.abs(shares[0] - shares[1]) * np.diff(at / 2.0)) * real.unit
    return float(area) if np.isfinite(area) else None


def _range_coverage(real: NDArray[np.float64], synthetic: NDArray[np.float64]) -> float | None:
    if not len(real):
        return None
    if not len(synthetic):
        return 0.0
    low, high = real.min() / 2, real.max() / 2  # halved, because the widest range is wider than float64
    if low == high:
        return float(bool((synthetic == real[0]).any()))
    shared = min(high, synthetic.max() / 2) - max(low, synthetic.min() / 2)
    return float(max(0.0, shared) / (high - low))


def _is_null(column: CategoryColumn) -> NDArray[np.bool_]:
    if column.values is None:
        return np.zeros(len(column.codes), dtype=np.bool_)
    null: NDArray[np.bool_] = column.values.is_null().to_numpy(zero_copy_only=False)[column.codes]
    return null


def _histogram(real: NumberColumn, synthetic: NumberColumn) -> Distribution:
    edges = _edges(np.concatenate([real.finite, synthetic.finite]))
    shares = [_binned_shares(side, edges) for side in (real, synthetic)]
    return Distribution("histogram", tuple(map(float, real.in_units(edges))), (), *shares)


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal bins over all but the outermost values, which the first and the last bin take in."""
    if not len(values):
        return np.array([0.0, 1.0])
    low, high = np.quantile(values, [(1 - _DRAWN_SHARE) / 2, (1 + _DRAWN_SHARE) / 2], method="nearest")
    whole = bool(np.all(values == np.floor(values)))
    if whole and high / 2 - low / 2 < MOST_WHOLE / 2:
        # Bins of equally many whole numbers: others would hold one more or one less in turn, and look like a comb.
        width = -(-(high - low + 1) // HISTOGRAM_BINS)
        return np.asarray(np.arange(low, high + width + 1, width) - 0.5)
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    return 2.0 * np.linspace(low / 2.0, high / 2.0, HISTOGRAM_BINS + 1)


def _binned_shares(column: NumberColumn, edges: NDArray[np.float64]) -> tuple[float, ...]:
    bins = np.searchsorted(edges[1:-1], column.values[column.missing == 0], side="right")
    return tuple(map(float, np.bincount(bins, minlength=len(edges) - 1) / max(len(column.values), 1)))


def _categories(real: CategoryColumn, synthetic: CategoryColumn) -> Distribution:
    counts = [np.bincount(side.codes, minlength=real.size) for side in (real, synthetic)]
    shares = [count / max(count.sum(), 1) for count in counts]
    order = np.lexsort((-shares[1], -shares[0]))
    shown, rest = order[:DRAWN_CATEGORIES], order[DRAWN_CATEGORIES:]
    labels = tuple(real.label(int(code)) for code in shown)
    drawn = [tuple(map(float, share[shown])) for share in shares]
    if len(rest):
        labels = (*labels, "(all others)")
        drawn = [(*part, float(share[rest].sum())) for part, share in zip(drawn, shares, strict=True)]
    return Distribution("categories", (), labels, drawn[0], drawn[1])
