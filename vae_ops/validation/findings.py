"""What fidelity found, in sentences: each judged metric with its limit, its weight and what to do about it.

The numbers come from `comparison.py`, their weight from `weighing.py`. Findings about privacy and utility are written
beside their measurements; `gate.py` puts all of them in order.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from vae_ops.settings import GateSettings
from vae_ops.validation.columns import quoted
from vae_ops.validation.comparison import Comparison, Figure
from vae_ops.validation.evidence import MILDEST_FIRST, Finding, Interval, Verdict
from vae_ops.validation.weighing import Weighed, digits, percent, weigh, widened

__all__ = ["column_verdicts", "fidelity_findings"]

NAMED = 3
FEWEST_ROWS = 30  # on fewer, chance may do anything to a single column or pair, and no floor is to be trusted
TEACHING_ROWS = 2_000  # below this the limit of the worst pair widens with one over the root of the rows

Name = TypeVar("Name", bound=Hashable)

_REMEDIES = {
    "shape_error_percent": "Look at the worst columns first: a wrong semantic type (read.semantic_types) or too short "
    "a training (train.time_budget_seconds) are the usual causes.",
    "column_error_percent": "Compare the two distributions of {columns} in the report; set its semantic type, train "
    "longer, or leave it out (read.exclude).",
    "mean_shift_sd": "Compare the two distributions of {columns} in the report; a unit, a rounding or a date that "
    "changed between the two tables moves a mean as well.",
    "trend_error_percent": "Train longer (train.time_budget_seconds) with the autoregressive decoder, and check that "
    "rows were not shuffled column by column on their way.",
    "pair_error_percent": "Train longer (train.time_budget_seconds) with the autoregressive decoder, and check that "
    "rows were not shuffled column by column on their way.",
    "dependence_error_percent": "Look at how {columns} go together in both tables; train longer, and check that the "
    "rows of both tables were joined by the same rule.",
    "c2st_auc": "Start with {columns}: what tells synthetic rows from real ones is there; train longer or with more "
    "rows, or exclude what no model can learn.",
}


def fidelity_findings(found: Comparison, settings: GateSettings) -> list[Finding]:
    """Weighs the comparison against the limits; a limit of None leaves its finding out."""
    judged = (
        _shape(found, settings),
        _column(found, settings),
        _mean_shift(found, settings),
        _trend(found, settings, counting=True),
        _trend(found, settings, counting=False),
        _dependence(found, settings),
        _c2st(found, settings),
    )
    return [finding for finding in judged if finding is not None]


def column_verdicts(found: Comparison, settings: GateSettings) -> list[Verdict]:
    """What each column alone would decide, by its distribution and by its mean."""
    columns = zip(_weigh_columns(found, settings), _weigh_shifts(found, settings), strict=True)
    return [
        max((weighed.verdict for weighed in both if weighed), key=MILDEST_FIRST.index, default="pass")
        for both in columns
    ]


# --- single columns ------------------------------------------------------------------------------------------------


def _shape(found: Comparison, settings: GateSettings) -> Finding | None:
    if settings.max_shape_error_percent is None:
        return None
    weighed = _weigh_percent(found.mean_shape(), settings.max_shape_error_percent, settings)
    errors = {name: 100 * float(error) for name, error in zip(found.names, found.errors.shapes, strict=True)}
    worst = _heaviest(errors)
    sentence = (
        f"The distributions of single columns are off by {percent(weighed.value)} on average, {_against(weighed)}"
        f"{_worst(f'{quoted(name)} ({percent(errors[name])})' for name in worst)}."
    )
    return _finding("shape_error_percent", weighed, sentence, worst)


def _column(found: Comparison, settings: GateSettings) -> Finding | None:
    weighed = dict(zip(found.names, _weigh_columns(found, settings), strict=True))
    judged = {name: item for name, item in weighed.items() if item is not None}
    if not judged:
        return None
    columns = _over(judged)
    worst = judged[columns[0]]
    sentence = (
        f"The distribution of column {quoted(columns[0])} is off by {percent(worst.value)}, {_against(worst)}"
        f"{_besides(columns)}."
    )
    return _finding("column_error_percent", worst, sentence, columns)


def _weigh_columns(found: Comparison, settings: GateSettings) -> list[Weighed | None]:
    most = settings.max_column_error_percent
    if most is None or found.rows < FEWEST_ROWS:
        return [None] * len(found.names)
    return [_weigh_percent(figure, most, settings) for figure in found.shapes()]


def _mean_shift(found: Comparison, settings: GateSettings) -> Finding | None:
    weighed = dict(zip(found.names, _weigh_shifts(found, settings), strict=True))
    judged = {name: item for name, item in weighed.items() if item is not None}
    if not judged:
        return None
    columns = _over(judged)
    name, worst = columns[0], judged[columns[0]]
    side = "higher" if found.shifts[name] > 0 else "lower"
    sentence = (
        f"The mean of column {quoted(name)} lies {worst.value:.2g} standard deviations {side} than among the real "
        f"rows, {_against(worst, unit='')}{_besides(columns)}."
    )
    return _finding("mean_shift_sd", worst, sentence, columns)


def _weigh_shifts(found: Comparison, settings: GateSettings) -> list[Weighed | None]:
    most = settings.max_mean_shift_sd
    return [
        None
        if most is None or name not in found.shifts or found.rows < FEWEST_ROWS
        else weigh(figure.value, figure.interval, figure.noise, most, settings, highest=math.inf)
        for name, figure in zip(found.names, found.mean_shifts(), strict=True)
    ]


# --- pairs and all columns -----------------------------------------------------------------------------------------


def _trend(found: Comparison, settings: GateSettings, *, counting: bool) -> Finding | None:
    most = settings.max_trend_error_percent if counting else settings.max_pair_error_percent
    if most is None:
        return None
    errors = {(p.first, p.second): 100 * p.error for p in found.pairs if p.counts or not counting}
    weighed = _weigh_percent(found.mean_trend(counting=counting), most, settings)
    worst = _heaviest(errors)
    which = "pairs of columns that depend on each other" if counting else "pairs of columns"
    named = (f"{quoted(a)} with {quoted(b)} ({percent(errors[a, b])})" for a, b in worst)
    sentence = (
        f"The dependence between {which} is off by {percent(weighed.value)} on average over {len(errors):,} of them, "
        f"{_against(weighed)}{_worst(named)}."
    )
    return _finding("trend_error_percent" if counting else "pair_error_percent", weighed, sentence, _joined(worst))


def _dependence(found: Comparison, settings: GateSettings) -> Finding | None:
    most = settings.max_dependence_error_percent
    if most is None or not found.pairs or found.rows < FEWEST_ROWS:
        return None
    # A column that is a function of another stays one only if there are rows enough to learn it from.
    most = min(100.0, widened(most, found.rows, TEACHING_ROWS))
    names = [(pair.first, pair.second) for pair in found.pairs]
    judged = {
        name: _weigh_percent(figure, most, settings) for name, figure in zip(names, found.dependences(), strict=True)
    }
    over = _over(judged)
    (first, second), worst = over[0], judged[over[0]]
    more = f", as are {len(over) - 1:,} other pairs" if len(over) > 1 and worst.verdict != "pass" else ""
    sentence = (
        f"The dependence between {quoted(first)} and {quoted(second)} is off by {percent(worst.value)} beyond what "
        f"either column shows by itself, {_against(worst)}{more}."
    )
    return _finding("dependence_error_percent", worst, sentence, _joined(over[:NAMED]))


def _c2st(found: Comparison, settings: GateSettings) -> Finding | None:
    outcome, most = found.c2st, settings.max_c2st_auc
    if outcome is None or most is None:
        return None
    weighed = weigh(
        outcome.auc,
        outcome.interval,
        found.c2st_noise,
        most,
        settings,
        perfect=0.5,
        highest=1.0,
    )
    columns = tuple(name for name, loss in outcome.telling if loss > 0)
    sentence = (
        f"Boosted trees tell synthetic rows from held-out ones with an AUC of {outcome.auc:.2f} where 0.5 is chance, "
        f"{weighed.side} the limit of {weighed.limit:.2f}{_given_away(found, columns)}."
    )
    return _finding("c2st_auc", weighed, sentence, columns)


def _given_away(found: Comparison, columns: Sequence[str]) -> str:
    """Which columns betray synthetic rows, and whether by themselves or only together."""
    if not columns:
        return ""
    figures = dict(zip(found.names, found.shapes(), strict=True))
    alike = all(figures[name].value <= figures[name].noise for name in columns)
    how = "how columns depend on each other, most" if alike else "the columns"
    return f"; what gives them away is {how} {_listed([quoted(name) for name in columns])}"


# --- words ---------------------------------------------------------------------------------------------------------


def _weigh_percent(figure: Figure, most: float, settings: GateSettings) -> Weighed:
    interval = Interval(100 * figure.interval.low, 100 * figure.interval.high)
    return weigh(100 * figure.value, interval, 100 * figure.noise, most, settings)


def _finding(metric: str, weighed: Weighed, sentence: str, columns: Sequence[str]) -> Finding:
    named = _listed([quoted(name) for name in columns[:NAMED]]) if columns else "the worst columns"
    return weighed.finding(metric, "fidelity", sentence, _REMEDIES[metric].format(columns=named), tuple(columns))


def _over(judged: Mapping[Name, Weighed]) -> list[Name]:
    """Names beyond their limits, the heaviest first; the heaviest of all where none is."""
    order = sorted(judged, key=lambda name: -judged[name].weight)
    return [name for name in order if judged[name].verdict != "pass"] or order[:1]


def _heaviest(errors: Mapping[Name, float]) -> list[Name]:
    return [name for name in sorted(errors, key=lambda name: -errors[name]) if errors[name] > 0][:NAMED]


def _joined(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for pair in pairs for name in pair))


def _against(weighed: Weighed, *, unit: str = " %") -> str:
    limit, noise = (f"{digits(number)}{unit}" for number in (weighed.limit, weighed.noise))
    return f"{weighed.side} the limit of {limit} (chance alone: up to {noise})"


def _worst(named: Iterable[str]) -> str:
    names = list(named)
    return f"; worst {_listed(names)}" if names else ""


def _besides(columns: Sequence[str]) -> str:
    others = [quoted(name) for name in columns[1 : NAMED + 1]]
    more = len(columns) - 1 - len(others)
    return f"; so are {_listed(others)}{f' and {more:,} more' if more else ''}" if others else ""


def _listed(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))
