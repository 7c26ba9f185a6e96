"""What chance alone does to every metric: real rows measured against real rows, and resampled rows against each other.

The first gives the noise floor, which is what a perfect sampler scores at these numbers of rows; the second gives the
confidence interval of what a sampler did score. The metrics come from `fidelity.py` and `joint.py`; `weighing.py` makes
limits of the floor. The same rows and seed give the same numbers always.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vae_ops.validation.columns import EncodedTable, NumberColumn, row_count, take_rows
from vae_ops.validation.evidence import Interval
from vae_ops.validation.fidelity import (
    Counted,
    coarsen_columns,
    count_columns,
    dependence_error,
    mean_shift,
    shape_distance,
    trend_errors,
)
from vae_ops.validation.joint import FEWEST_ITERATIONS, MAX_CELLS, auc_standard_error, c2st

__all__ = [
    "NOISE_SIGMAS",
    "Errors",
    "Prepared",
    "bound_by_chance",
    "bounds_by_chance",
    "c2st_floor",
    "measure_errors",
    "normal_interval",
    "prepare_tables",
    "real_against_real",
    "standard_errors",
]

Numbers = NDArray[np.float64]

NOISE_SIGMAS = 2.0
REPEATS, FEWEST_REPEATS = 20, 6
RESAMPLES, FEWEST_RESAMPLES = 40, 10
RESAMPLED_ROWS = 10_000
MAX_WORK = 60_000_000  # rows × (columns + pairs) over all repeats, about five seconds on one core
C2ST_REPEATS = 3
_95_PERCENT = 1.96


@dataclass(frozen=True)
class Errors:
    """Every column's and pair's errors; a leading axis, where there is one, runs over repeats.

    Attributes:
        shapes: `(…, columns)`, from 0 to 1.
        shifts: `(…, columns)`: distance of the means in real standard deviations; 0 for categories.
        trends: `(…, pairs)`, from 0 to 1, as SDMetrics measures them.
        dependences: `(…, pairs)`, from 0 to 1, beyond what the columns show by themselves.
    """

    shapes: Numbers
    shifts: Numbers
    trends: Numbers
    dependences: Numbers


@dataclass(frozen=True)
class Prepared:
    """A table that can be measured on any of its rows without sorting anything again."""

    encoded: EncodedTable
    counted: Mapping[str, Counted]
    coarse: Mapping[str, Counted]

    def take(self, rows: NDArray[np.int64]) -> "Prepared":
        """The table at these row numbers."""
        counted = {name: column.take(rows) for name, column in self.counted.items()}
        return Prepared(
            take_rows(self.encoded, rows), counted, {name: column.take(rows) for name, column in self.coarse.items()}
        )

    @property
    def rows(self) -> int:
        """Number of rows."""
        return row_count(self.encoded)


def prepare_tables(real: EncodedTable, tables: Sequence[EncodedTable]) -> list[Prepared]:
    """Prepares tables that were encoded together; `real` decides which categories are frequent and where bins end."""
    counted = {name: count_columns(column, [table[name] for table in tables]) for name, column in real.items()}
    coarse = {name: coarsen_columns(column, [table[name] for table in tables]) for name, column in real.items()}
    return [
        Prepared(table, *({name: sides[index] for name, sides in codes.items()} for codes in (counted, coarse)))
        for index, table in enumerate(tables)
    ]


def measure_errors(real: Prepared, other: Prepared, pairs: Sequence[tuple[str, str]]) -> Errors:
    """Measures every column in the order of the table, and every pair in the order of `pairs`."""
    trends = trend_errors(real.encoded, other.encoded, pairs)
    coarse = {name: (column, other.coarse[name]) for name, column in real.coarse.items()}
    return Errors(
        np.array([shape_distance(column, other.counted[name]) for name, column in real.counted.items()]),
        np.array([_shift(real.encoded, other.encoded, name) for name in real.encoded]),
        np.array([trends[pair] for pair in pairs]),
        np.array([dependence_error(coarse[first], coarse[second]) for first, second in pairs]),
    )


def _shift(real: EncodedTable, other: EncodedTable, name: str) -> float:
    left, right = real[name], other[name]
    if not isinstance(left, NumberColumn) or not isinstance(right, NumberColumn):
        return 0.0
    return abs(mean_shift(left, right) or 0.0)


def _repeat(measure: Callable[[np.random.Generator], Errors], times: int, seed: Sequence[int]) -> Errors:
    found = [measure(np.random.default_rng([*seed, repeat])) for repeat in range(times)]
    return Errors(*(np.stack([getattr(one, name) for one in found]) for name in Errors.__dataclass_fields__))


def _affordable(rows: int, table: Prepared, pairs: Sequence[tuple[str, str]], most: int, fewest: int) -> int:
    work = max(rows, 1) * (len(table.encoded) + len(pairs) + 1)
    return max(fewest, min(most, MAX_WORK // work))


def real_against_real(
    pool: Prepared, sizes: tuple[int, int], pairs: Sequence[tuple[str, str]], *, seed: int
) -> Errors | None:
    """Measures disjoint random parts of the real rows against each other, again and again.

    The parts have the sizes of the judged samples where the real rows suffice, else smaller ones, which differ by more:
    what a perfect sampler scores is then overstated, never understated. Resampling with replacement instead would put
    the same rare values on both sides and call a perfect sampler of a sparse column faulty.

    Args:
        pool: All real rows.
        sizes: Rows of the two sides that the floor is for.
        pairs: Pairs of columns to measure.
        seed: Decides the parts.

    Returns:
        Errors with one row per repeat; None for fewer than two real rows, which tell nothing about chance.
    """
    rows = pool.rows
    first = min(sizes[0], max(rows - sizes[1], rows // 2))
    both = min(rows, first + sizes[1])
    if first < 1 or both == first:
        return None

    def measure(generator: np.random.Generator) -> Errors:
        order = generator.permutation(rows)
        return measure_errors(pool.take(order[:first]), pool.take(order[first:both]), pairs)

    return _repeat(measure, _affordable(both, pool, pairs, REPEATS, FEWEST_REPEATS), [seed, 1])


def standard_errors(real: Prepared, other: Prepared, pairs: Sequence[tuple[str, str]], *, seed: int) -> "Resampled":
    """Bootstraps both tables; of large ones m out of n rows (Bickel, Götze and van Zwet, Statistica Sinica 7, 1997)."""
    sides = tuple(max(table.rows, 1) for table in (real, other))
    drawn = tuple(min(rows, RESAMPLED_ROWS) for rows in sides)

    def measure(generator: np.random.Generator) -> Errors:
        left, right = (generator.integers(0, rows, count) for rows, count in zip(sides, drawn, strict=True))
        return measure_errors(real.take(left), other.take(right), pairs)

    errors = _repeat(measure, _affordable(sum(drawn), real, pairs, RESAMPLES, FEWEST_RESAMPLES), [seed, 2])
    return Resampled(errors, float(np.sqrt(sum(1 / rows for rows in sides) / sum(1 / count for count in drawn))))


@dataclass(frozen=True)
class Resampled:
    """Bootstrap replicates.

    Attributes:
        errors: One row per replicate.
        shrink: By how much the replicates scatter more than tables of the full sizes would.
    """

    errors: Errors
    shrink: float

    def deviation(self, replicates: Numbers) -> Numbers:
        """Standard error of a statistic, given its value in each replicate along the first axis."""
        deviation: Numbers = self.shrink * np.std(replicates, axis=0, ddof=1)
        return deviation


def normal_interval(value: float, standard_error: float, *, low: float = 0.0, high: float = 1.0) -> Interval:
    """A 95 % interval around the value, within its range.

    A bootstrap's percentiles would not do for a distance: every replicate adds noise to noise, so all of them tend to
    lie above the value (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13).
    """
    reach = _95_PERCENT * standard_error
    return Interval(max(low, value - reach), min(high, value + reach))


def bound_by_chance(samples: Numbers) -> float:
    """What a metric may reach by chance: mean and two deviations of its value `(repeats,)` between real rows."""
    return float(samples.mean() + NOISE_SIGMAS * samples.std(ddof=1))


def bounds_by_chance(samples: Numbers) -> Numbers:
    """What the worst of many metrics may reach by chance, each at its own level.

    Args:
        samples: `(repeats, metrics)`: values between real rows.

    Returns:
        `(metrics,)`: each metric's mean and as many of its deviations as the farthest out of all metrics is likely to
        lie, so that a table of many columns is not called faulty for the one that chance moved most.
    """
    mean, deviation = samples.mean(axis=0), samples.std(axis=0, ddof=1)
    farthest = _distance_from_the_others(samples).max(axis=1, initial=0.0)
    bound: Numbers = mean + max(NOISE_SIGMAS, bound_by_chance(farthest)) * deviation
    return bound


def _distance_from_the_others(samples: Numbers) -> Numbers:
    """Each value's distance from the mean of the other repeats, in their deviations.

    A repeat that helped to estimate the deviation it is measured in never lies far out, which a new one may.
    """
    repeats = len(samples)
    mean = (samples.sum(axis=0) - samples) / (repeats - 1)
    square = ((samples**2).sum(axis=0) - samples**2) / (repeats - 1)
    variance = (square - mean**2) * (repeats - 1) / (repeats - 2)
    known = variance > 1e-12 * square
    deviation = np.sqrt(np.where(known, variance, 1.0))
    return np.where(known, (samples - mean) / deviation, 0.0)


def c2st_floor(pool: EncodedTable, rows: int, *, seed: int) -> float:
    """AUC that boosted trees may reach between two real samples by chance, at least 0.5.

    The highest of a few tests between disjoint random parts of the real rows, or what theory (Hanley and McNeil)
    expects at this number of rows, whichever is more.

    Args:
        pool: All real rows.
        rows: Rows of each side in the test that the floor is for.
        seed: Decides the parts.
    """
    available = row_count(pool)
    part = min(rows, available // 2)
    aucs = [0.5 + NOISE_SIGMAS * auc_standard_error(0.5, rows, rows)] if rows else [1.0]
    for repeat in range(C2ST_REPEATS if part else 0):
        order = np.random.default_rng([seed, 3, repeat]).permutation(available)
        sides = take_rows(pool, order[:part]), take_rows(pool, order[part : 2 * part])
        # Few rounds: where there is nothing to learn, more of them only take longer.
        outcome = c2st(
            *sides, seed=seed + repeat, max_cells=MAX_CELLS // C2ST_REPEATS, max_iterations=FEWEST_ITERATIONS
        )
        aucs.append(outcome.auc)
    return float(min(1.0, max(aucs)))
