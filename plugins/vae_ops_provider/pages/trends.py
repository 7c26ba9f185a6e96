"""Scores over runs as small line charts, so that a decline that no single night shows is seen.

Pure functions from numbers to geometry; `templates/` draw it, `records.py` brings the numbers.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vae_ops_provider.pages.records import TableRun

__all__ = ["Mark", "Trend", "trend_of", "trends_of"]

WIDTH = 240
HEIGHT = 56
_MARGIN = 5
_METRICS: Final = ("shape_error_percent", "trend_error_percent", "c2st_auc")
_PERFECT: Final = {"c2st_auc": 0.5}
_FEWEST_RUNS = 6
_DECLINE = 0.25


@dataclass(frozen=True)
class Mark:
    """One judged run in a chart: where it stands, in units of the view box, and what it was."""

    x: float
    y: float
    value: float
    run: TableRun


@dataclass(frozen=True)
class Trend:
    """One metric over the runs that measured it, the oldest on the left.

    Attributes:
        metric: Its name.
        marks: A mark a run.
        noise_y: Height of the noise floor of the newest run; None where it is unknown.
        top: Value at the upper edge.
        before: Median of the oldest third; None of too few runs.
        now: Median of the newest third; None of too few runs.
        declines: Whether `now` is further from perfect than `before` by a quarter of what that was, or of the noise if
            it is more. All metrics here are better when lower.
    """

    metric: str
    marks: tuple[Mark, ...]
    noise_y: float | None
    top: float
    before: float | None
    now: float | None
    declines: bool

    @property
    def latest(self) -> Mark:
        """The newest run's mark."""
        return self.marks[-1]

    @property
    def line(self) -> str:
        """The `points` of a polyline."""
        return " ".join(f"{mark.x:.1f},{mark.y:.1f}" for mark in self.marks)


def trends_of(runs: Sequence[TableRun]) -> list[Trend]:
    """The trends of single columns, pairs of columns and all columns at once, as far as runs measured them.

    Args:
        runs: Of one table, the newest first.
    """
    found = (trend_of(metric, runs) for metric in _METRICS)
    return [trend for trend in found if trend is not None]


def trend_of(metric: str, runs: Sequence[TableRun]) -> Trend | None:
    """One metric's trend; None where no run measured it."""
    measured = [run for run in reversed(runs) if metric in run.metrics]
    if not measured:
        return None
    values = [run.metrics[metric] for run in measured]
    noise, perfect = measured[-1].noise_floor.get(metric), _PERFECT.get(metric, 0.0)
    bottom = min([perfect, *values])
    top = max([*values, *([] if noise is None else [noise])])
    marks = [
        Mark(_across(index, len(values)), _height(value, bottom, top), value, run)
        for index, (value, run) in enumerate(zip(values, measured, strict=True))
    ]
    noise_y = None if noise is None else _height(max(noise, bottom), bottom, top)
    before, now = _thirds(values)
    declines = before is not None and now is not None and now - before > _DECLINE * (max(before, noise or 0) - perfect)
    return Trend(metric, tuple(marks), noise_y, top, before, now, declines)


def _across(index: int, count: int) -> float:
    room = WIDTH - 2 * _MARGIN
    return _MARGIN + (room if count == 1 else room * index / (count - 1))


def _height(value: float, bottom: float, top: float) -> float:
    share = (value - bottom) / (top - bottom) if top > bottom else 0.0
    return HEIGHT - _MARGIN - share * (HEIGHT - 2 * _MARGIN)


def _thirds(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Medians of the oldest and of the newest third, which one odd night does not move."""
    if len(values) < _FEWEST_RUNS:
        return None, None
    third = len(values) // 3
    return statistics.median(values[:third]), statistics.median(values[-third:])
