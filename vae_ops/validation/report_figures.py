"""The report's figures: evidence drawn by Matplotlib, returned as inline SVG that follows the page's theme.

Every colour is a stand-in that becomes a CSS variable of `templates/report.css`, so that one drawing serves light and
dark. No name and no category is ever drawn here, only numbers: `report.py` and its templates write names as HTML.
Nothing of Matplotlib's global state is used or left changed, and the same evidence gives the same bytes.
"""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vae_ops.validation.evidence import Distances, Distribution, DoseCurve, DosePoint
from vae_ops.validation.report_text import compact, moment, number

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

__all__ = [
    "draw_distances",
    "draw_dose_curve",
    "draw_heat_map",
    "draw_histogram",
    "draw_kl_by_dimension",
    "draw_training_curves",
]

REAL, SYNTHETIC, INK, SOFT, GRID, CARD = "#a00001", "#a00002", "#a00003", "#a00004", "#a00005", "#a00006"
_VARIABLES: Final = dict(
    zip((REAL, SYNTHETIC, INK, SOFT, GRID, CARD), ("real", "synthetic", "ink", "soft", "grid", "card"), strict=True)
)
_STYLE: "Final[dict[RcKeyType, Any]]" = {
    "svg.fonttype": "none",  # numbers stay text in the page's own font
    "svg.hashsalt": "vae-ops",
    "font.size": 10,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "axes.facecolor": "none",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.solid_capstyle": "butt",
    "text.color": SOFT,
    "xtick.bottom": False,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "ytick.left": False,
}
_KEPT_STYLES: Final = frozenset(
    ["fill", "fill-opacity", "opacity", "stroke", "stroke-dasharray", "stroke-opacity", "stroke-width", "text-anchor"]
)
_LARGEST: Final = 1e100  # beyond, Matplotlib's own arithmetic overflows
SHADES: Final = 24  # of a heat map: one compound path each instead of one path a cell
PEAK: Final = 4.0  # a bin this many times as high as the next one is cut, so that the others can be seen

_Floats = NDArray[np.float64]


# --- columns -----------------------------------------------------------------------------------------------------


def draw_histogram(distribution: Distribution, semantic_type: str, label: str) -> Markup:
    """One column's two distributions: real rows filled, synthetic rows as a line over them.

    Args:
        distribution: Of kind `histogram`.
        semantic_type: Decides how the axis is written: numbers, dates, times of day, durations.
        label: What a screen reader says.
    """
    edges = np.asarray(distribution.edges, np.float64)
    real, synthetic = _shares(distribution.real), _shares(distribution.synthetic)

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.02, 0.15, 0.96, 0.8))
        top = _top(np.maximum(real, synthetic))
        _overlay(axes, _unit(edges), (real, synthetic), top)
        _mark_peaks(axes, _unit(edges), real, synthetic, top)
        positions, labels = _ticks(edges, semantic_type)
        axes.set_xticks(positions, labels)
        for text, position in zip(axes.get_xticklabels(), positions, strict=True):
            text.set_horizontalalignment("left" if position < 0.08 else "right" if position > 0.92 else "center")
        axes.set(xlim=(0, 1), ylim=(0, top), yticks=[])

    return _drawn((3.3, 1.75), label, paint)


def _shares(values: Sequence[float]) -> _Floats:
    """Shares as an array; what is no share counts as none or all."""
    return np.clip(np.nan_to_num(np.asarray(values, np.float64)), 0.0, 1.0)


def _overlay(axes: Axes, edges: _Floats, pair: tuple[_Floats, _Floats], top: float) -> None:
    """`pair` is what is filled, and the line over it."""
    filled, line = (np.minimum(shares, top) for shares in pair)
    axes.stairs(filled, edges, fill=True, color=REAL, alpha=0.4, linewidth=0, clip_on=False)
    axes.stairs(line, edges, color=SYNTHETIC, linewidth=1.6, clip_on=False, baseline=None)


def _unit(edges: _Floats) -> _Floats:
    """Edges on [0, 1]; equal steps where they are no increasing finite numbers."""
    with np.errstate(all="ignore"):
        scaled: _Floats = (edges / 2 - edges[0] / 2) / (edges[-1] / 2 - edges[0] / 2)
    if np.isfinite(scaled).all() and (np.diff(scaled) >= 0).all() and scaled[-1] > scaled[0]:
        return scaled
    return np.linspace(0.0, 1.0, len(edges))


def _top(heights: _Floats) -> float:
    """Where the vertical axis ends: above every bin, but for a few that would flatten all others."""
    heights = np.sort(heights)[::-1]
    highest = float(heights[0]) if len(heights) else 0.0
    for peaks in range(1, min(3, len(heights))):
        rest = float(heights[peaks])
        if rest > 0 and heights[peaks - 1] > PEAK * rest:
            return 2 * rest
    return 1.06 * highest or 1.0


def _mark_peaks(axes: Axes, edges: _Floats, real: _Floats, synthetic: _Floats, top: float) -> None:
    """Writes the shares of bins that are cut, real before synthetic, beside them."""
    for bin_ in np.flatnonzero(np.maximum(real, synthetic) > top):
        left, right = edges[bin_], edges[bin_ + 1]
        axes.plot([left, right], [0.86 * top, 0.93 * top], color=CARD, linewidth=2.5, clip_on=False)
        at_left = left + right < 1
        position, side = (right + 0.015, "left") if at_left else (left - 0.015, "right")
        shares = f"{100 * real[bin_]:.1f} / {100 * synthetic[bin_]:.1f} %"
        axes.text(position, 0.9 * top, shares, ha=side, va="center", fontsize=9)


def _ticks(edges: _Floats, semantic_type: str) -> tuple[list[float], list[str]]:
    """Positions on [0, 1] and labels: round numbers, or both ends of dates and times."""
    low, high = float(edges[0]), float(edges[-1])
    if semantic_type in ("date", "datetime", "time", "duration"):
        return [0.0, 1.0], [moment(low, semantic_type), moment(high, semantic_type)]
    if not (max(abs(low), abs(high)) < _LARGEST and high - low > 1e-9 * max(abs(low), abs(high))):
        return [0.0, 1.0], [number(low), number(high)]
    values = [float(value) for value in MaxNLocator(4).tick_values(low, high) if low <= value <= high]
    return [(value - low) / (high - low) for value in values], [compact(value) for value in values]


# --- pairs -------------------------------------------------------------------------------------------------------


def draw_heat_map(strengths: _Floats, room: float, label: str, *, signed: bool = False) -> Markup:
    """The lower triangle of a matrix of dependences, deeper where stronger; the diagonal is left to names.

    Args:
        strengths: n × n, in [0, 1]; [-1, 1] where `signed`. NaN below the diagonal is a pair that was not compared.
        room: Cells of empty room at the right, for the names on the diagonal.
        label: What a screen reader says.
        signed: Whether below zero is another hue.
    """
    size = len(strengths)

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, size + room), ylim=(size, 0))
        for shade in range(SHADES + 1):
            _paint_shade(axes, strengths, shade, SYNTHETIC if signed else INK)
            if signed and shade:
                _paint_shade(axes, -strengths, shade, REAL)

    return _drawn((3.6, 3.6 * size / (size + room)), label, paint)


def _paint_shade(axes: Axes, strengths: _Floats, shade: int, colour: str) -> None:
    with np.errstate(invalid="ignore"):
        chosen = np.round(np.clip(strengths, -1, 1) * SHADES) == shade
    cells = [_cell(row, column) for row, column in zip(*np.nonzero(np.tril(chosen, -1)), strict=True)]
    if cells:
        path, alpha = Path.make_compound_path(*cells), 0.05 + 0.9 * shade / SHADES
        axes.add_patch(PathPatch(path, facecolor=colour, alpha=alpha, linewidth=0, clip_on=False))


def _cell(row: int, column: int) -> Path:
    gap = 0.04
    left, right, top, bottom = column + gap, column + 1 - gap, row + gap, row + 1 - gap
    return Path([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], closed=True)


# --- utility and privacy -----------------------------------------------------------------------------------------


def draw_dose_curve(curve: DoseCurve, label: str) -> Markup:
    """Score against parts of synthetic rows, with intervals; the dashed line is the score without any."""
    points = curve.points

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.12, 0.11, 0.86, 0.86))
        axes.axhline(_drawable(points[0].score), color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(range(len(points)), [_drawable(point.score) for point in points], color=SYNTHETIC, linewidth=1.4)
        for place, point in enumerate(points):
            _paint_dose(axes, place, point, picked=point.dose == curve.picked)
        axes.set_xticks(range(len(points)), [_parts(point.dose) for point in points])
        axes.set_xlim(-0.4, len(points) - 0.6)
        _measure_height(axes)

    return _drawn((5.2, 2.6), label, paint)


def _paint_dose(axes: Axes, place: int, point: DosePoint, *, picked: bool) -> None:
    colour = INK if picked else SYNTHETIC
    interval = [_drawable(point.interval.low), _drawable(point.interval.high)]
    axes.plot([place, place], interval, color=colour, linewidth=2.6 if picked else 1.6, alpha=0.8)
    axes.plot(
        [place], [_drawable(point.score)], marker="D" if picked else "o", markersize=9 if picked else 6, color=colour
    )


def _parts(dose: float) -> str:
    return {0.25: "¼", 0.5: "½", 0.75: "¾"}.get(dose, f"{dose:g}")


def draw_distances(found: Distances, label: str) -> Markup:
    """Distance to the closest training row: held-out rows filled, synthetic rows as a line over them."""
    edges = np.asarray(found.edges, np.float64)
    pair = _shares(found.holdout), _shares(found.synthetic)

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.02, 0.14, 0.96, 0.82))
        top = _top(np.maximum(*pair))
        _overlay(axes, _unit(edges), pair, top)
        _mark_peaks(axes, _unit(edges), *pair, top)
        axes.set_xticks(*_ticks(edges, "numeric"))
        axes.set(xlim=(0, 1), ylim=(0, top), yticks=[])

    return _drawn((5.2, 2.2), label, paint)


# --- model -------------------------------------------------------------------------------------------------------


def draw_kl_by_dimension(values: Sequence[float], label: str) -> Markup:
    """KL per latent dimension, the busiest first."""
    heights = np.sort(np.clip(np.nan_to_num(np.asarray(values, np.float64)), 0.0, _LARGEST))[::-1]

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.1, 0.14, 0.88, 0.8))
        for place, height in enumerate(heights, start=1):
            axes.fill_between([place - 0.42, place + 0.42], height, color=SYNTHETIC, linewidth=0)
        axes.set(xlim=(0.5, len(heights) + 0.5), ylim=(0, 1.06 * float(heights.max()) or 1.0))
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        _measure_height(axes)

    return _drawn((5.2, 2.2), label, paint)


def draw_training_curves(history: Sequence[Mapping[str, float]], label: str) -> Markup:
    """Loss on training rows (dashed) and held-out rows above, KL below, against the training step; nats a row."""

    def paint(figure: Figure) -> None:
        losses, kl = figure.add_axes((0.1, 0.42, 0.88, 0.55)), figure.add_axes((0.1, 0.1, 0.88, 0.24))
        _curve(losses, history, "loss", color=REAL, linestyle=(0, (4, 2)))
        _curve(losses, history, "holdout_loss", color=SYNTHETIC)
        _curve(kl, history, "kl", color=INK)
        kl.set_ylim(bottom=0)
        for axes in (losses, kl):
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.xaxis.set_major_formatter(lambda value, _: compact(value))
            _measure_height(axes, 3)
        losses.set_xticklabels([])

    return _drawn((5.2, 3.2), label, paint)


def _curve(axes: Axes, history: Sequence[Mapping[str, float]], key: str, **style: object) -> None:
    points = [(record.get("step", place), record.get(key, math.nan)) for place, record in enumerate(history)]
    finite = [point for point in points if not any(math.isnan(_drawable(value)) for value in point)]
    if finite:
        axes.plot(*zip(*finite, strict=True), linewidth=1.6, **style)  # type: ignore[arg-type]


def _drawable(value: float) -> float:
    """NaN, which is left out, for what would overflow."""
    return value if math.isfinite(value) and abs(value) < _LARGEST else math.nan


# --- SVG ---------------------------------------------------------------------------------------------------------


def _measure_height(axes: Axes, steps: int = 4) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(steps))
    axes.yaxis.set_major_formatter(lambda value, _: compact(value))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _drawn(size: tuple[float, float], label: str, paint: Callable[[Figure], None]) -> Markup:
    buffer = io.StringIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever style the caller's machine has
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=size)
        paint(figure)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(buffer.getvalue(), label)


def _inline(svg: str, label: str) -> Markup:
    """The drawing without what an HTML page does not need: prolog, sizes, fonts, names of groups, long floats."""
    root = ElementTree.fromstring(svg)
    view = root.attrib["viewBox"]
    root.attrib.clear()
    _inline_uses(root)
    for element in root.iter():
        _simplify(element)
    _drop(root, lambda element: element.tag in ("defs", "metadata") or _is_invisible(element))
    root.attrib.update({"viewBox": view, "role": "img", "aria-label": label})
    text = ElementTree.tostring(root, encoding="unicode")
    return Markup(re.sub(r"</?g(?: /)?>", "", text))  # groups carry nothing any more


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _inline_uses(root: ElementTree.Element) -> None:
    """Puts each marker where it is used, so that no figure has an id that another one might have too."""
    named = {element.attrib["id"]: element for element in root.iter() if "id" in element.attrib}
    for use in [element for element in root.iter() if _tag(element) == "use"]:
        target = named[next(value for key, value in use.attrib.items() if key.endswith("href")).removeprefix("#")]
        place = f"translate({use.attrib.get('x', 0)} {use.attrib.get('y', 0)})"
        style = use.attrib.get("style", "")
        use.tag, use.attrib = "path", {"d": target.attrib["d"], "style": style, "transform": place}


def _drop(root: ElementTree.Element, unwanted: Callable[[ElementTree.Element], bool]) -> None:
    for parent in list(root.iter()):
        for child in filter(unwanted, list(parent)):
            parent.remove(child)


def _is_invisible(element: ElementTree.Element) -> bool:
    """Backgrounds, and lines of a single point."""
    outline = element.attrib.get("d")
    return outline is not None and (element.attrib.get("style") == "fill:none" or not re.search("[LC]", outline))


def _simplify(element: ElementTree.Element) -> None:
    element.tag = _tag(element)
    element.tail = None
    for name in ("id", "clip-path"):
        element.attrib.pop(name, None)
    if element.tag != "text":
        element.text = None
    if "d" in element.attrib:
        element.attrib["d"] = _shortened(re.sub(r"\s*([A-Za-z])\s*", r"\1", element.attrib["d"]))
    if element.attrib.get("transform", "").startswith("rotate(-0"):
        del element.attrib["transform"]
    for name in ("transform", "x", "y"):
        if name in element.attrib:
            element.attrib[name] = _shortened(element.attrib[name])
    if style := element.attrib.pop("style", ""):
        element.attrib["style"] = _themed(style)


def _shortened(text: str) -> str:
    return re.sub(r"(\.\d)\d+", r"\1", text)


def _themed(style: str) -> str:
    """The declarations that matter, with the page's variables for stand-in colours."""
    pairs = (declaration.partition(":") for declaration in style.split(";"))
    kept = {name.strip(): value.strip() for name, _, value in pairs if name.strip() in _KEPT_STYLES}
    return ";".join(f"{name}:{_coloured(value)}" for name, value in kept.items())


def _coloured(value: str) -> str:
    return f"var(--{_VARIABLES[value]})" if value in _VARIABLES else value
