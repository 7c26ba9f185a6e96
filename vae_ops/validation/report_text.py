"""How the report writes names and numbers: pure functions from values to short text that no browser misreads.

Names and categories are data from anywhere: they are shortened, and what has no shape of its own (newlines, overriding
directions, zero-width characters) is spelt out. Markup is escaped by the template engine, not here.
"""

import math
from typing import Final

import numpy as np

from vae_ops.validation.evidence import Interval

__all__ = ["compact", "count", "metric_title", "moment", "number", "percent", "points", "quantity", "span", "visible"]

SHOWN_CHARACTERS = 80
NOT_A_NUMBER = "–"
ROUNDING = 1e-9  # of metrics, which have no unit or are percent

_TITLES: Final = {
    "shape_error_percent": "Single columns",
    "column_error_percent": "The worst column",
    "mean_shift_sd": "The mean that moved most",
    "trend_error_percent": "Pairs of columns",
    "pair_error_percent": "Pairs of columns, all of them",
    "dependence_error_percent": "The worst pair of columns",
    "c2st_auc": "All columns at once",
    "copy_excess_percent": "Exact copies beyond chance",
    "near_copy_excess_percent": "Near copies beyond chance",
    "dcr_share_percent": "Nearer to training than to held-out rows",
    "membership_auc": "Membership inference",
    "membership_auc_outliers": "Membership inference on outliers",
    "rare_leak_percent": "Rare categories that came through",
    "extreme_leak_percent": "Extremes that came through",
    "utility_gap": "Lost by training on synthetic rows",
}


def metric_title(metric: str) -> str:
    """A metric's name for a person; of an unknown metric, its name with spaces."""
    return _TITLES.get(metric) or visible(metric.replace("_", " ").strip().capitalize())


def visible(text: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Text with every invisible or direction-changing character spelt out, cut to `limit` characters."""
    shown = str(text)
    spelt = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in shown[: limit + 1]
    )
    if len(spelt) <= limit and len(shown) <= limit:
        return spelt or '""'
    return spelt[: limit - 1] + "…"


def number(value: float | None) -> str:
    """Three significant digits, two of them below 0.1, thousands apart; a dash for what is no number."""
    return _written(value, 3)


def quantity(value: float | None, metric: str) -> str:
    """A metric's value in the unit that its name tells; what rounding leaves of nothing is nothing."""
    return percent(value) if metric.endswith("_percent") else number(_settled(value))


def percent(value: float | None) -> str:
    """A value that is in percent already, two decimals at most; the space keeps unit and number on one line."""
    text = _written(_settled(value), 2)
    return text if value is None or not math.isfinite(value) else f"{text}\N{NO-BREAK SPACE}%"


def _settled(value: float | None) -> float | None:
    return 0.0 if value is not None and abs(value) < ROUNDING else value


def _written(value: float | None, decimals: int) -> str:
    if value is None or math.isnan(value):
        return NOT_A_NUMBER
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1e15 or size < 1e-4:
        return _signed(f"{value:.1e}")
    if size < 0.1:
        return _signed(f"{value:.2g}")
    return _signed(f"{value:,.{min(decimals, max(0, 2 - math.floor(math.log10(size))))}f}")


def points(value: float) -> str:
    """A difference of percentages with its sign, to a tenth."""
    if not math.isfinite(value):
        return number(value)
    return "0" if abs(value) < 0.05 else _signed(f"{value:+.1f}")


def count(value: int) -> str:
    """Thousands apart."""
    return f"{value:,}"


def span(interval: Interval | None, metric: str = "") -> str:
    """An interval's ends, without a unit; nothing where there is none."""
    if interval is None:
        return ""
    low, high = (quantity(end, metric).removesuffix("\N{NO-BREAK SPACE}%") for end in (interval.low, interval.high))
    return f"{low} to {high}"


def compact(value: float) -> str:
    """At most about five characters for an axis: 0.25, 12, 3.4k, 120M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size <= abs(value) < 1e15:
            scale = 1e3 if unit == "k" else size
            return _signed(f"{value / scale:.4g}{unit}")
    return _signed(f"{value:.4g}")


def moment(seconds: float, semantic_type: str) -> str:
    """Seconds as the date, time of day or duration that they stand for."""
    if not math.isfinite(seconds) or abs(seconds) > 1e15:
        return number(seconds)
    if semantic_type in ("date", "datetime"):
        return str(np.datetime_as_string(np.datetime64(round(seconds), "s"), unit="D"))
    if semantic_type == "time":
        return str(np.datetime_as_string(np.datetime64(round(seconds), "s"), unit="s"))[11:]
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{compact(seconds / size)} {unit}"
    return f"{compact(seconds)} s"


def _signed(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
