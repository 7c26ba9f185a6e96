"""Everything that fidelity rests on, measured once: errors, noise floor and resamples of all columns, pairs and rows.

The metrics are those of `fidelity.py` and `joint.py`, chance is the business of `noise_floor.py`; `findings.py` weighs
what is gathered here, and `gate.py` decides.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vae_ops.schema import SemanticType
from vae_ops.validation.columns import EncodedTable, NumberColumn, row_count, take_rows
from vae_ops.validation.evidence import Interval
from vae_ops.validation.fidelity import PairTrend, choose_pairs, mean_shift, pair_trends
from vae_ops.validation.joint import C2stResult, c2st
from vae_ops.validation.noise_floor import (
    Errors,
    Resampled,
    bound_by_chance,
    bounds_by_chance,
    c2st_floor,
    measure_errors,
    normal_interval,
    prepare_tables,
    real_against_real,
    standard_errors,
)

__all__ = ["Comparison", "Figure", "compare_tables", "trending_columns", "unseen_rows"]

Numbers = NDArray[np.float64]

MAX_PAIRS = 1_000  # the mean over a fixed-seed sample of pairs is as good as over all of them
C2ST_ROWS = 500  # a smaller holdout is topped up with training rows: trees learn nothing from a handful


@dataclass(frozen=True)
class Figure:
    """One number, its interval, and what chance alone may make of it."""

    value: float
    interval: Interval
    noise: float


@dataclass(frozen=True)
class Comparison:
    """What was measured between real and synthetic rows.

    Attributes:
        rows: Fewest rows of the two sides.
        names: Compared columns.
        pairs: Compared pairs.
        shifts: Signed distance of the means in real standard deviations, by column of numbers.
        errors: Of all columns and pairs.
        floor: The same between real rows, one row per repeat; None where there are too few rows to tell.
        resampled: The same between resampled rows.
        c2st: The joint test; None where it is switched off.
        c2st_noise: AUC that chance alone may reach.
    """

    rows: int
    names: tuple[str, ...]
    pairs: tuple[PairTrend, ...]
    shifts: Mapping[str, float]
    errors: Errors
    floor: Errors | None
    resampled: Resampled
    c2st: C2stResult | None
    c2st_noise: float

    def mean_shape(self) -> Figure:
        """Mean error over columns."""
        return self._mean(lambda errors: errors.shapes)

    def mean_trend(self, *, counting: bool) -> Figure:
        """Mean error over pairs of columns, all of them or those that have a trend."""
        chosen = np.array([pair.counts or not counting for pair in self.pairs], dtype=np.bool_)
        return self._mean(lambda errors: errors.trends[..., chosen])

    def shapes(self) -> list[Figure]:
        """Error of each column."""
        return self._each(lambda errors: errors.shapes)

    def mean_shifts(self) -> list[Figure]:
        """Distance of the means of each column; 0 for categories."""
        return self._each(lambda errors: errors.shifts, high=float("inf"))

    def dependences(self) -> list[Figure]:
        """Error of each pair beyond what its columns show by themselves."""
        return self._each(lambda errors: errors.dependences)

    def _mean(self, of: Callable[[Errors], Numbers]) -> Figure:
        if not of(self.errors).size:
            return Figure(0.0, Interval(0.0, 0.0), 0.0)
        value = float(of(self.errors).mean())
        spread = float(self.resampled.deviation(of(self.resampled.errors).mean(axis=-1)))
        noise = 1.0 if self.floor is None else min(1.0, bound_by_chance(of(self.floor).mean(axis=-1)))
        return Figure(value, normal_interval(value, spread), noise)

    def _each(self, of: Callable[[Errors], Numbers], *, high: float = 1.0) -> list[Figure]:
        values, spreads = of(self.errors), self.resampled.deviation(of(self.resampled.errors))
        noises = np.ones(len(values)) if self.floor is None else np.minimum(bounds_by_chance(of(self.floor)), high)
        return [
            Figure(float(value), normal_interval(float(value), float(spread), high=high), float(noise))
            for value, spread, noise in zip(values, spreads, noises, strict=True)
        ]


def trending_columns(semantic_types: Mapping[str, SemanticType]) -> list[str]:
    """Columns that can depend on others."""
    unrelated = {SemanticType.CONSTANT, SemanticType.NULL, SemanticType.IDENTIFIER}
    return [name for name, semantic_type in semantic_types.items() if semantic_type not in unrelated]


def compare_tables(
    pool: EncodedTable,
    training_rows: int,
    synthetic: EncodedTable,
    semantic_types: Mapping[str, SemanticType],
    *,
    jointly: bool,
    seed: int,
) -> Comparison:
    """Measures synthetic rows against real ones, and real ones against each other.

    Shape and trend are measured against the training rows, the two-sample test against the holdout.

    Args:
        pool: The real rows, those of the training first, then the holdout.
        training_rows: How many of them the model was trained on.
        synthetic: Rows drawn from the model, encoded together with the pool.
        semantic_types: Of all columns.
        jointly: Whether to run the two-sample test.
        seed: Decides the sample of pairs, parts, resamples and folds.
    """
    chosen = choose_pairs(trending_columns(semantic_types), MAX_PAIRS, seed)
    training = take_rows(pool, np.arange(training_rows))
    real, others, drawn = prepare_tables(training, [training, pool, synthetic])
    joint = c2st(unseen_rows(pool, training_rows), synthetic, seed=seed) if jointly else None
    return Comparison(
        rows=min(row_count(pool), row_count(synthetic)),
        names=tuple(pool),
        pairs=tuple(pair_trends(training, synthetic, chosen)),
        shifts=_shifts(training, synthetic),
        errors=measure_errors(real, drawn, chosen),
        floor=real_against_real(others, (training_rows, row_count(synthetic)), chosen, seed=seed),
        resampled=standard_errors(real, drawn, chosen, seed=seed),
        c2st=joint,
        c2st_noise=c2st_floor(pool, joint.rows, seed=seed) if joint else 0.5,
    )


def unseen_rows(pool: EncodedTable, training_rows: int) -> EncodedTable:
    """The holdout, topped up with the last training rows where it is small."""
    rows = row_count(pool)
    return take_rows(pool, np.arange(max(0, min(training_rows, rows - C2ST_ROWS)), rows))


def _shifts(real: EncodedTable, synthetic: EncodedTable) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, column in real.items():
        other = synthetic[name]
        if isinstance(column, NumberColumn) and isinstance(other, NumberColumn):
            shift = mean_shift(column, other)
            if shift is not None:
                found[name] = shift
    return found
