"""The report for people: one self-contained HTML file made of a `Validation`, verdict first.

It computes nothing of its own: `gate.py` decides, `evidence.py` holds, `report_figures.py` draws, `report_text.py`
writes names and numbers, `templates/` lay out. The page needs no network and runs no script; whatever stands in the
evidence is text, never markup.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Final

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vae_ops.drift import ColumnDrift, Drift, PairDrift
from vae_ops.validation import report_figures as figures
from vae_ops.validation import report_text as text
from vae_ops.validation.evidence import (
    AttackEvidence,
    ColumnEvidence,
    Distribution,
    Finding,
    PairEvidence,
    Validation,
)
from vae_ops.validation.succession import RefreshEvidence, TrialMetric

__all__ = ["render_report"]

OPEN_PANELS = 24  # distributions on view; those of the next columns are folded away
DRAWN_PANELS = 96  # beyond, a column is a row of the table: the file stays small
SHOWN_CATEGORIES = 6
MAPPED_COLUMNS = 20
FAINTEST_SCALE = 0.1  # of the map of differences: an error of a few percent stays pale
LISTED_PAIRS = 12
LISTED_LEAKS = 50
LISTED_MOVEMENTS = 20
LISTED_VERSIONS = 8
_PERFECT: Final = {"c2st_auc": 0.5, "membership_auc": 0.5, "membership_auc_outliers": 0.5, "dcr_share_percent": 50.0}
_DUEL_TITLES: Final = {
    "column_error_percent": "The column that lost most",
    "dependence_error_percent": "The pair that lost most",
}
_ASPECTS: Final = ("fidelity", "utility", "privacy")
_ORDER: Final = ("pass", "borderline", "fail")


def render_report(validation: Validation) -> str:
    """Renders the verdict and all its evidence as one HTML page.

    Args:
        validation: What was found. Sections whose evidence is None say so, and how to get it.

    Returns:
        The whole page. The same validation gives the same text.
    """
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            validation=validation,
            **_verdict(validation),
            **_decision(validation.refresh),
            **_columns(validation),
            **_model(validation),
            **_run(validation),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vae_ops.validation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("compact", "count", "metric_title", "number", "percent", "points", "quantity", "span", "visible")
    environment.filters.update({name: getattr(text, name) for name in names})
    return environment


# --- verdict -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Gauge:
    """Where a metric's marks stand on its bar, percent of the bar's length."""

    start: float
    end: float
    noise: float
    limit: float
    whisker: tuple[float, float] | None


def _verdict(validation: Validation) -> dict[str, Any]:
    findings = validation.findings
    return {
        "headline": _headline(validation),
        "subject": _subject(validation.sizes),
        "aspects": [(aspect, _worst_verdict(findings, aspect)) for aspect in _ASPECTS],
        "judged": [(finding, _gauge(finding)) for finding in findings],
    }


def _headline(validation: Validation) -> str:
    every, over = len(validation.findings), sum(finding.verdict != "pass" for finding in validation.findings)
    if not every:
        return "Nothing was judged: there was nothing to compare."
    counted = f"{over} of {every} findings {'is' if over == 1 else 'are'} over the limit"
    return {
        "pass": f"Fit to publish: all {every} findings are within their limits."
        if not over
        else f"Fit to publish, although {counted}.",
        "borderline": f"To be used with care: {counted}, none by far.",
        "fail": f"Not fit to publish: {counted}.",
    }[validation.verdict]


def _subject(sizes: Mapping[str, int]) -> str:
    """What was compared, in a line."""
    known = [name for name in ("rows_synthetic", "rows_training", "rows_holdout", "columns") if name in sizes]
    return " · ".join(f"{text.count(sizes[name])} {_thing(name)}" for name in known)


def _worst_verdict(findings: Sequence[Finding], aspect: str) -> str:
    """The verdict of one aspect; empty where nothing of it was judged."""
    verdicts = [finding.verdict for finding in findings if finding.aspect == aspect]
    return max(verdicts, key=_ORDER.index, default="")


def _gauge(finding: Finding) -> _Gauge:
    interval = (finding.interval.low, finding.interval.high) if finding.interval else ()
    marks = [_PERFECT.get(finding.metric, 0.0), finding.value, finding.noise, finding.limit]
    low, high = _bounds([*marks, *interval])
    start, end, noise, limit = (_place(mark, low, high) for mark in marks)
    whisker = (_place(interval[0], low, high), _place(interval[1], low, high)) if interval else None
    return _Gauge(min(start, end), max(start, end), noise, limit, whisker)


def _bounds(marks: Sequence[float]) -> tuple[float, float]:
    finite = [mark for mark in marks if math.isfinite(mark)] or [0.0]
    low, high = min(finite), max(finite)
    room = 0.06 * (high / 2 - low / 2) * 2
    return (low - room if low < 0 else low), high + room


def _place(value: float, low: float, high: float) -> float:
    """Percent of the way from `low` to `high`; values that are no number stand at the end."""
    if not math.isfinite(value) or not math.isfinite(high - low) or high <= low:
        return 0.0 if value == low or value == -math.inf else 100.0
    return 100 * min(max((value - low) / (high - low), 0.0), 1.0)


# --- decision ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Duel:
    """How one metric of a trial is shown: its outcome, and where its marks stand, percent of the bar's length."""

    metric: TrialMetric
    title: str
    tone: str
    outcome: str
    equal: float
    margin: float
    start: float
    end: float
    whisker: tuple[float, float]


def _decision(refresh: RefreshEvidence | None) -> dict[str, Any]:
    """Which model drew the rows; nothing where no run did."""
    if refresh is None:
        return {}
    lost = refresh.trial is not None and not refresh.trial.challenger_wins
    lineage = refresh.lineage or (refresh.model_version,)
    moved = _moved(refresh.drift) if refresh.drift else []
    return {
        "decided": _decided(refresh, lost),
        "decided_tone": "borderline" if lost else "pass",
        "lineage": [(version, _role(place, lineage, refresh)) for place, version in enumerate(lineage)][
            :LISTED_VERSIONS
        ],
        "lineage_left_out": max(0, len(lineage) - LISTED_VERSIONS),
        "duels": [_duel(metric) for metric in refresh.trial.metrics] if refresh.trial else [],
        "moved": moved[:LISTED_MOVEMENTS],
        "moved_left_out": max(0, len(moved) - LISTED_MOVEMENTS),
    }


def _decided(refresh: RefreshEvidence, lost: bool) -> str:
    if lost:
        tried = {"refresh": "refreshed", "retrain": "retrained"}.get(refresh.decision, "new")
        return f"The champion stays: the {tried} model lost the trial."
    took_over = ", and it won the trial" if refresh.trial else ""
    return {
        "reuse": "The champion was reused, without any training.",
        "refresh": f"The champion was refreshed{took_over}.",
        "retrain": f"A model was trained from nothing{took_over}.",
    }[refresh.decision]


def _role(place: int, lineage: Sequence[str], refresh: RefreshEvidence) -> str:
    roles = [
        "drew these rows" if place == 0 else "",
        "the champion before" if lineage[place] == refresh.champion and place else "",
        "trained from nothing" if place == len(lineage) - 1 else "refreshed",
    ]
    return ", ".join(filter(None, roles))


def _duel(metric: TrialMetric) -> _Duel:
    difference, ends = metric.challenger - metric.champion, (metric.difference.low, metric.difference.high)
    reach = max((abs(mark) for mark in (*ends, difference, metric.margin) if math.isfinite(mark)), default=0.0)
    equal, margin, value, low, high = (
        _place(mark, -1.06 * reach, 1.06 * reach) if reach else 50.0 for mark in (0.0, metric.margin, difference, *ends)
    )
    tone, outcome = (
        ("fail", "worse") if metric.is_worse else ("pass", "better") if metric.is_better else ("", "not worse")
    )
    title = _DUEL_TITLES.get(metric.metric) or text.metric_title(metric.metric)
    return _Duel(metric, title, tone, outcome, equal, margin, min(equal, value), max(equal, value), (low, high))


def _moved(drift: Drift) -> list[tuple[tuple[str, ...], str, ColumnDrift | PairDrift]]:
    """Columns and pairs that moved, by name, in the order of their movements' weight."""
    columns = [((part.column,), part.aspect, part) for part in drift.columns if part.movement != "quiet"]
    pairs = [((part.first, part.second), "dependence", part) for part in drift.pairs if part.movement != "quiet"]
    return [*columns, *pairs]


# --- columns and pairs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Panel:
    """One column drawn: a figure of numbers, or the shares of its categories; `left_out` counts those not shown."""

    evidence: ColumnEvidence
    figure: Markup | None
    categories: Sequence[tuple[str, float, float]]
    scale: float
    left_out: int


@dataclass(frozen=True)
class _HeatMaps:
    """Three triangles over the same columns.

    Attributes:
        names: Of the columns, in the order of rows and columns.
        room: Space for names beside a triangle, in cells.
        scale: Error at the end of the ramp of differences, percent.
        left_out: Compared columns that are not drawn.
        drawn: Title, kind and figure.
    """

    names: Sequence[str]
    room: int
    scale: float
    left_out: int
    drawn: Sequence[tuple[str, str, Markup]]


def _columns(validation: Validation) -> dict[str, Any]:
    panels = [_panel(evidence) for evidence in validation.columns[:DRAWN_PANELS]]
    return {
        "panels": panels[:OPEN_PANELS],
        "folded_panels": panels[OPEN_PANELS:],
        "tabled": validation.columns[:OPEN_PANELS],
        "folded_rows": validation.columns[OPEN_PANELS:],
        "reconstructed": any(column.reconstruction_error_percent is not None for column in validation.columns),
        "widest_error": max((_finite(column.error_percent) for column in validation.columns), default=0.0) or 1.0,
        "maps": _heat_maps(validation.pairs),
        "worst_pairs": [pair for pair in validation.pairs if pair.counts][:LISTED_PAIRS],
    }


def _panel(evidence: ColumnEvidence) -> _Panel:
    distribution = evidence.distribution
    if distribution.kind == "histogram" and len(distribution.edges) > 1:
        label = f"Distribution of {text.visible(evidence.column)}: real rows filled, synthetic rows as a line"
        figure = figures.draw_histogram(distribution, evidence.semantic_type, label)
        return _Panel(evidence, figure, (), 1.0, 0)
    chosen = _telling_categories(distribution)
    shares = [(distribution.labels[i], distribution.real[i], distribution.synthetic[i]) for i in chosen]
    scale = max((_finite(share) for _, *pair in shares for share in pair), default=0.0) or 1.0
    return _Panel(evidence, None, shares, scale, len(distribution.labels) - len(chosen))


def _telling_categories(distribution: Distribution) -> list[int]:
    """The most frequent categories and those that are furthest off, in the given order."""
    real, synthetic = (np.clip(np.nan_to_num(side), 0, 1) for side in (distribution.real, distribution.synthetic))
    furthest = np.argsort(-np.abs(real - synthetic), kind="stable")
    frequent = np.argsort(-np.maximum(real, synthetic), kind="stable")
    ranked = dict.fromkeys(chain(frequent[: SHOWN_CATEGORIES - 2], furthest[:2], frequent))
    return sorted(int(index) for index in list(ranked)[:SHOWN_CATEGORIES])


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _heat_maps(pairs: Sequence[PairEvidence]) -> _HeatMaps | None:
    names = _mapped_names(pairs)
    if len(names) < 2:
        return None
    every = {name for pair in pairs for name in (pair.first, pair.second)}
    place = {name: index for index, name in enumerate(names)}
    real, synthetic, error = (np.full((len(names), len(names)), np.nan) for _ in range(3))
    for pair in pairs:
        if pair.first in place and pair.second in place:
            column, row = sorted((place[pair.first], place[pair.second]))
            real[row, column], synthetic[row, column] = _ratio(pair.strength_real), _ratio(pair.strength_synthetic)
            error[row, column] = _ratio(pair.error_percent / 100)
    scale = max(FAINTEST_SCALE, float(np.nanmax(error, initial=0.0)))
    difference = np.copysign(error / scale, synthetic - real)
    room = max(5, math.ceil(len(names) / 3))
    drawn = _triangles(real, synthetic, difference, room)
    return _HeatMaps(names, room, 100 * scale, len(every) - len(names), drawn)


def _ratio(value: float) -> float:
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else math.nan


def _mapped_names(pairs: Sequence[PairEvidence]) -> list[str]:
    """The columns of the worst pairs, the most dependent ones first, so that they stand together."""
    chosen = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))[:MAPPED_COLUMNS]
    strength = dict.fromkeys(chosen, 0.0)
    for pair in pairs:
        for name in {pair.first, pair.second} & strength.keys():
            strength[name] += _finite(pair.strength_real)
    return sorted(chosen, key=lambda name: -strength[name])


def _triangles(real: Any, synthetic: Any, difference: Any, room: int) -> list[tuple[str, str, Markup]]:
    described = "Heat map of how strongly columns depend on each other in the {} rows"
    return [
        ("Real", "real", figures.draw_heat_map(real, room, described.format("real"))),
        ("Synthetic", "synthetic", figures.draw_heat_map(synthetic, room, described.format("synthetic"))),
        (
            "Difference",
            "difference",
            figures.draw_heat_map(difference, room, "Heat map of the error of each pair", signed=True),
        ),
    ]


# --- joint test, model, utility, privacy -------------------------------------------------------------------------


def _model(validation: Validation) -> dict[str, Any]:
    two_sided, utility, privacy = validation.two_sided, validation.utility, validation.privacy
    curve = utility.dose_curve if utility else None
    kl = two_sided.kl_by_dimension if two_sided else ()
    return {
        "telling": _telling(validation),
        "two_sided_metrics": list(two_sided.prior) if two_sided else [],
        "kl_figure": figures.draw_kl_by_dimension(kl, "KL per latent dimension, the busiest first") if kl else None,
        "dose_figure": figures.draw_dose_curve(curve, "Score against parts of synthetic rows, with intervals")
        if curve and curve.points
        else None,
        "distances_figure": figures.draw_distances(
            privacy.distances, "Distances to the closest training row: held-out rows filled, synthetic rows as a line"
        )
        if privacy and len(privacy.distances.edges) > 1
        else None,
        "attacks": [(attack, _attack_gauge(attack)) for attack in (privacy.attacks if privacy else ())],
        "leaks": privacy.leaks[:LISTED_LEAKS] if privacy else (),
    }


def _telling(validation: Validation) -> list[tuple[str, float, float]]:
    """Column, what it tells, and that in percent of what the most telling column tells."""
    telling = [(name, _finite(value)) for name, value in (validation.c2st.telling if validation.c2st else ())]
    most = max((value for _, value in telling), default=0.0)
    return [(name, value, _place(value, 0.0, most)) for name, value in telling if value > 0]


def _attack_gauge(attack: AttackEvidence) -> _Gauge:
    low, high = 0.4, max(0.7, _finite(attack.auc), _finite(attack.interval.high))
    start, end = sorted((_place(0.5, low, high), _place(attack.auc, low, high)))
    whisker = (_place(attack.interval.low, low, high), _place(attack.interval.high, low, high))
    chance = _place(0.5, low, high)
    return _Gauge(start, end, chance, chance, whisker)


# --- training, provenance, sizes ---------------------------------------------------------------------------------


def _run(validation: Validation) -> dict[str, Any]:
    told = [(name, _nested(value)) for name, value in validation.provenance.items()]
    drawable = [record for record in validation.history if len(record) > 1]
    return {
        "training_figure": figures.draw_training_curves(drawable, "Loss and KL against the training step")
        if drawable
        else None,
        "evaluations": _evaluations(drawable),
        "provenance": [(name, value) for name, value in told if not isinstance(value, list)],
        "settings": [(name, value) for name, value in told if isinstance(value, list)],
        "sizes": _sizes(validation.sizes),
    }


def _evaluations(history: Sequence[Mapping[str, float]]) -> list[tuple[str, Mapping[str, float]]]:
    """The evaluations worth a row: the first, the best on held-out rows, the last."""
    if not history:
        return []
    best = min(history, key=lambda record: record.get("holdout_loss", math.inf))
    return [("first", history[0]), ("best on held-out rows", best), ("last", history[-1])]


def _nested(value: str) -> str | list[tuple[str, str]]:
    """A JSON object as dotted names and texts; any other text as it is."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return list(_flattened(parsed)) if isinstance(parsed, dict) else value


def _flattened(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flattened(value, f"{above}{name}.")
        else:
            yield above + name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sizes(sizes: Mapping[str, int]) -> list[tuple[str, int, int | None]]:
    """What was there, how many, and how many of them were judged where that is on record."""
    judged = {name.removesuffix("_judged"): size for name, size in sizes.items() if name.endswith("_judged")}
    there = [(_thing(name), size, judged.get(name)) for name, size in sizes.items() if not name.endswith("_judged")]
    return there + [(_thing(name), size, size) for name, size in judged.items() if name not in sizes]


def _thing(name: str) -> str:
    """`rows_training` as `training rows`."""
    rows, _, kind = name.partition("_")
    return f"{kind.replace('holdout', 'held-out')} rows" if rows == "rows" and kind else name
