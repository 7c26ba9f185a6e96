"""Champion against challenger: may tonight's model take over from the one in force?

Both models' rows are compared with the same real rows. The challenger wins unless it is provably worse in something:
beyond chance, by intervals of the difference, and by more than nobody would notice. `paired.py` measures,
`succession.py` holds the outcome. Whether rows may be published at all is decided by `gate.py`, champion or not.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.schema import SemanticType
from vae_ops.settings import GateSettings
from vae_ops.validation.columns import EncodedTable, align_table, encode_tables, quoted, row_count, take_rows
from vae_ops.validation.comparison import trending_columns, unseen_rows
from vae_ops.validation.evidence import Interval
from vae_ops.validation.fidelity import choose_pairs
from vae_ops.validation.joint import C2stScores, c2st_scores
from vae_ops.validation.neighbours import Places, measure_units, place_rows
from vae_ops.validation.paired import (
    FEWEST_GROUPS,
    FEWEST_REAL,
    Difference,
    compare_aucs,
    compare_closeness,
    compare_columns,
    compare_pairs,
    compare_shares_of_training,
)
from vae_ops.validation.succession import Trial, TrialMetric
from vae_ops.validation.weighing import digits, percent

__all__ = ["IMMATERIAL", "compare_models"]

IMMATERIAL = 0.05  # share of what the gate allows: a loss that even a dozen refreshes in a row do not add up to a fault
LEVEL = 0.05  # odds that any interval of a trial misses its difference
COMPARED_CELLS = 2_000_000  # rows × columns of each side, so that 300 columns are compared on 6,600 rows
FEWEST_ROWS = 1_000
MAX_PAIRS = 1_000
C2ST_CELLS = 300_000  # rows × columns of both sides, one to two seconds a model
C2ST_ITERATIONS, C2ST_PER_REAL = 60, 3
QUERIES = 4_000
INDEX_CELLS = 5_000_000  # rows × columns of the training rows searched, about a second
SHARE_WORK = 800_000_000  # differences of two values, about a second

_WORDS = {
    "shape_error_percent": "the distributions of single columns",
    "column_error_percent": "the distribution of column {columns}",
    "pair_error_percent": "the distributions of pairs of columns",
    "dependence_error_percent": "the dependence of {columns}",
    "c2st_auc": "all columns at once (AUC of boosted trees)",
    "copy_excess_percent": "exact copies of training rows",
    "near_copy_excess_percent": "near copies of training rows",
    "dcr_share_percent": "nearness to training rows",
}


def compare_models(
    training: pa.Table,
    holdout: pa.Table,
    champion_rows: pa.Table,
    challenger_rows: pa.Table,
    settings: GateSettings,
    *,
    semantic_types: Mapping[str, SemanticType],
    seed: int,
) -> Trial:
    """Compares rows of two models with the same real rows.

    Fidelity is measured against rows that neither model saw; a holdout of less than 500 rows is topped up with training
    rows, as the gate does. Closeness to the training rows is compared as well, so that a model cannot win by repeating
    them. With 95 % confidence all intervals hold at once. Deterministic for given rows and seed.

    Args:
        training: Rows that the challenger was trained on, at least one.
        holdout: Rows of the same source that neither model was trained on.
        champion_rows: Rows drawn from the model in force.
        challenger_rows: Rows drawn from tonight's model; of more rows on one side a fixed-seed sample is compared.
        settings: Of each metric, a twentieth of what the gate allows is immaterial; a metric that is switched off there
            is not compared.
        semantic_types: What each column means.
        seed: Decides samples, parts and folds.

    Raises:
        SchemaError: A table lacks a column of the training rows, or a column does not fit.
    """
    given = [training, holdout, champion_rows, challenger_rows]
    tables = _same_size(_aligned(given, settings, semantic_types, seed), seed)
    encoded = encode_tables([pa.concat_tables(tables[:2]), *tables[2:]], semantic_types)
    sides = _Sides(encoded[0], tables[0].num_rows, encoded[1:], dict(semantic_types), seed)
    rows = row_count(sides.models[0])
    if min(rows, row_count(sides.unseen)) < FEWEST_GROUPS:
        return Trial(True, "There are too few rows to compare the two models, so the newer one takes over.", (), rows)
    metrics = tuple(_metrics(sides, settings))
    real = row_count(sides.unseen)
    return Trial(not any(m.is_worse for m in metrics), _sentence(metrics, real), metrics, rows, real)


@dataclass(frozen=True)
class _Sides:
    """All rows, encoded together: training rows and then held-out rows; champion and challenger."""

    pool: EncodedTable
    training_rows: int
    models: Sequence[EncodedTable]
    types: Mapping[str, SemanticType]
    seed: int

    @property
    def unseen(self) -> EncodedTable:
        return unseen_rows(self.pool, self.training_rows)


# --- rows ------------------------------------------------------------------------------------------------------------


def _aligned(
    tables: Sequence[pa.Table], settings: GateSettings, types: Mapping[str, SemanticType], seed: int
) -> list[pa.Table]:
    most = min(settings.sample_rows, max(FEWEST_ROWS, COMPARED_CELLS // max(len(types), 1)))
    roles = ("training", "held-out", "champion's", "challenger's")
    return [
        _sampled(align_table(table, tables[0].schema, role), most, [seed, place])
        for place, (table, role) in enumerate(zip(tables, roles, strict=True))
    ]


def _same_size(tables: Sequence[pa.Table], seed: int) -> list[pa.Table]:
    """The tables, the last two cut to the smaller of them."""
    rows = min(table.num_rows for table in tables[2:])
    return [*tables[:2], *(_sampled(table, rows, [seed, 4]) for table in tables[2:])]


def _sampled(table: pa.Table, most: int, seed: Sequence[int]) -> pa.Table:
    return table if table.num_rows <= most else table.take(_some(table.num_rows, most, seed))


def _some(rows: int, most: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """At most `most` of so many row numbers, in order."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


# --- metrics ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Compared:
    """One metric, measured on the whole table or on each of several columns or pairs.

    Attributes:
        metric: Its name.
        parts: A difference for each of the columns or pairs.
        names: These columns or pairs; one of no names where the metric speaks of all.
        unit: What one of the gate's units is to the measurement: 100 for percent.
        allowed: What the gate allows, in its units.
    """

    metric: str
    parts: Sequence[Difference]
    names: Sequence[tuple[str, ...]]
    unit: float
    allowed: float

    def judged(self, level: float) -> TrialMetric:
        """The part that is worse most surely, each of them at its share of the level."""
        margin = IMMATERIAL * self.allowed
        sureness = [part.sureness(margin / self.unit) for part in self.parts]
        place = int(np.argmax(sureness))
        part, interval = self.parts[place], self.parts[place].interval(level / len(self.parts))
        return TrialMetric(
            metric=self.metric,
            champion=self.unit * part.champion,
            challenger=self.unit * part.challenger,
            difference=Interval(self.unit * interval.low, self.unit * interval.high),
            margin=margin,
            columns=self.names[place],
        )


def _metrics(sides: _Sides, settings: GateSettings) -> list[TrialMetric]:
    compared = [*_fidelity(sides, settings), *_closeness(sides, settings)]
    return [one.judged(LEVEL / len(compared)) for one in compared]


def _fidelity(sides: _Sides, settings: GateSettings) -> Iterable[_Compared]:
    unseen, models, seed = sides.unseen, sides.models, sides.seed
    *columns, mean = compare_columns(unseen, models, seed=seed)
    yield from _whole("shape_error_percent", mean, settings.max_shape_error_percent)
    yield from _each("column_error_percent", columns, [(name,) for name in unseen], settings.max_column_error_percent)
    if pairs := choose_pairs(trending_columns(sides.types), MAX_PAIRS, seed):
        joint, dependence = compare_pairs(unseen, models, pairs, seed=seed)
        yield from _whole("pair_error_percent", joint[-1], settings.max_pair_error_percent)
        yield from _each("dependence_error_percent", dependence[:-1], pairs, settings.max_dependence_error_percent)
    if settings.max_c2st_auc is not None:
        scores = [_scores(unseen, model, seed) for model in models]
        if len(scores[0].real):
            yield _Compared("c2st_auc", [compare_aucs(*scores)], [()], 1.0, settings.max_c2st_auc - 0.5)


def _scores(unseen: EncodedTable, model: EncodedTable, seed: int) -> C2stScores:
    limits = {"max_cells": C2ST_CELLS, "max_iterations": C2ST_ITERATIONS, "most_per_real": C2ST_PER_REAL}
    return c2st_scores(unseen, model, seed=seed, with_losses=False, **limits)


def _whole(metric: str, difference: Difference, allowed: float | None) -> Iterable[_Compared]:
    return () if allowed is None else (_Compared(metric, [difference], [()], 100.0, allowed),)


def _each(
    metric: str, differences: Sequence[Difference], names: Sequence[tuple[str, ...]], allowed: float | None
) -> Iterable[_Compared]:
    return () if allowed is None else (_Compared(metric, differences, names, 100.0, allowed),)


def _closeness(sides: _Sides, settings: GateSettings) -> Iterable[_Compared]:
    limits = settings.max_copy_excess_percent, settings.max_near_copy_excess_percent, settings.max_dcr_share_percent
    if all(limit is None for limit in limits) or sides.training_rows < FEWEST_REAL:
        return
    total, width = row_count(sides.pool), max(len(sides.pool), 1)
    trained = _some(sides.training_rows, max(INDEX_CELLS // width, 1), [sides.seed, 5])
    kept = [
        take_rows(sides.pool, trained),
        take_rows(sides.pool, sides.training_rows + _some(total - sides.training_rows, QUERIES, [sides.seed, 6])),
        *(take_rows(model, _some(row_count(model), QUERIES, [sides.seed, 7])) for model in sides.models),
    ]
    places = place_rows(kept)
    units = measure_units(places[0])
    training, holdout, *models = (part.scaled(units.deviations) for part in places)
    members = _some(len(training), QUERIES, [sides.seed, 8])
    copies, near = compare_closeness(training, members, holdout, models, seed=sides.seed)
    yield from _whole("copy_excess_percent", copies, limits[0])
    yield from _whole("near_copy_excess_percent", near, limits[1])
    if limits[2] is not None and len(holdout) >= FEWEST_REAL:
        training, holdout, *models = (part.scaled(units.ranges) for part in places)
        share = compare_shares_of_training(training, *_affordable(holdout, models, sides.seed), seed=sides.seed)
        yield from _whole("dcr_share_percent", share, limits[2] - 50)


def _affordable(holdout: Places, models: Sequence[Places], seed: int) -> tuple[Places, list[Places]]:
    """As many of the rows, on both sides alike, as can be compared one by one."""
    rows, drawn = len(holdout), len(models[0])
    kept = min(1.0, math.sqrt(SHARE_WORK / (4 * rows * drawn * max(holdout.width, 1))))
    real = _some(rows, max(FEWEST_REAL, round(kept * rows)), [seed, 9])
    asked = _some(drawn, max(1, round(kept * drawn)), [seed, 10])
    return holdout.take(real), [model.take(asked) for model in models]


# --- words -----------------------------------------------------------------------------------------------------------


def _sentence(metrics: Sequence[TrialMetric], rows: int) -> str:
    if not metrics:
        return "All of the gate's metrics are switched off, so nothing was compared and the newer model takes over."
    worse = [metric for metric in metrics if metric.is_worse]
    if not worse:
        better = [_named(metric) for metric in metrics if metric.is_better]
        besides = f"; it is better in {better[0]}" if better else ""
        return f"The challenger is no worse in any of {len(metrics)} measures on {rows:,} real rows{besides}."
    first = max(worse, key=lambda metric: metric.difference.low / metric.margin if metric.margin else np.inf)
    more = f", and worse in {len(worse) - 1} more of {len(metrics)} measures" if len(worse) > 1 else ""
    amounts = (first.challenger, first.champion, first.difference.low, first.margin)
    theirs, champions, least, margin = (_amount(value, first.metric) for value in amounts)
    return (
        f"The challenger is worse in {_named(first)}: {theirs} where the champion has {champions}, "
        f"at least {least} more where up to {margin} would be immaterial{more}; the champion stays."
    )


def _amount(value: float, metric: str) -> str:
    return percent(value) if metric.endswith("_percent") else digits(value)


def _named(metric: TrialMetric) -> str:
    return _WORDS[metric.metric].format(columns=" with ".join(quoted(name) for name in metric.columns))
