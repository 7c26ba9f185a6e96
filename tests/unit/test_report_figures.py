"""Figures follow the page's theme, hold no ids and survive odd evidence."""

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest

from vae_ops.validation.evidence import Distances, Distribution, DoseCurve, DosePoint, Interval
from vae_ops.validation.report_figures import (
    draw_distances,
    draw_dose_curve,
    draw_heat_map,
    draw_histogram,
    draw_kl_by_dimension,
    draw_training_curves,
)

LABEL = 'A "label" with <tags> & \n$mathtext'


def histogram(real: list[float], synthetic: list[float], edges: list[float] | None = None) -> Distribution:
    edges = edges or list(np.linspace(0, 10, len(real) + 1))
    return Distribution("histogram", tuple(edges), (), tuple(real), tuple(synthetic))


def curve() -> DoseCurve:
    band = Interval(0.9, 0.92)
    return DoseCurve(tuple(DosePoint(dose, 0.91, band, 0.0, band) for dose in (0.0, 0.25, 1.0)), 0.25, "")


DRAWINGS: dict[str, Callable[[], str]] = {
    "histogram": lambda: draw_histogram(histogram([0.2, 0.8], [0.5, 0.5]), "numeric", LABEL),
    "heat map": lambda: draw_heat_map(np.random.default_rng(0).random((6, 6)), 3, LABEL),
    "signed heat map": lambda: draw_heat_map(np.random.default_rng(0).normal(size=(6, 6)), 3, LABEL, signed=True),
    "dose curve": lambda: draw_dose_curve(curve(), LABEL),
    "distances": lambda: draw_distances(Distances((0.0, 1.0, 2.0), (0.5, 0.5), (0.4, 0.6)), LABEL),
    "KL": lambda: draw_kl_by_dimension([0.1, 2.0, 0.5], LABEL),
    "training": lambda: draw_training_curves([{"step": 1, "loss": 3.0, "kl": 1.0}, {"step": 2, "loss": 2.0}], LABEL),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_take_their_colours_from_the_page(name: str) -> None:
    svg = DRAWINGS[name]()
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|font-family|url\(|<defs|<use|\bid=", svg)
    assert "var(--" in svg
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == LABEL
    assert {element.tag for element in root.iter()} <= {"svg", "path", "text"}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_are_the_same_every_time(name: str) -> None:
    assert DRAWINGS[name]() == DRAWINGS[name]()


def test_a_bin_that_would_flatten_all_others_is_cut_and_says_its_share() -> None:
    svg = draw_histogram(histogram([0.9, 0.04, 0.03, 0.03], [0.85, 0.05, 0.05, 0.05]), "numeric", "")
    assert "90.0 / 85.0 %" in svg
    assert "%" not in draw_histogram(histogram([0.3, 0.4, 0.3], [0.3, 0.4, 0.3]), "numeric", "")


@pytest.mark.parametrize(
    ("edges", "semantic_type", "labels"),
    [
        ([0.0, 43_200.0, 86_400.0], "date", ["1970-01-01", "1970-01-02"]),
        ([0.0, 5.0, 10.0], "numeric", ["0", "2.5", "5", "7.5", "10"]),
        ([0.0, 1e200, 2e200], "numeric", ["0", "2.0e+200"]),
        ([-1e308, 0.0, 1e308], "numeric", ["−1.0e+308", "1.0e+308"]),
        ([7.0, 7.0, 7.0], "numeric", ["7.00", "7.00"]),
        ([0.0, math.inf, math.nan], "numeric", ["0", "–"]),
    ],
)
def test_axes_are_written_in_the_columns_units(edges: list[float], semantic_type: str, labels: list[str]) -> None:
    svg = draw_histogram(histogram([0.5, 0.5], [0.4, 0.6], edges), semantic_type, "")
    assert re.findall(r"<text[^>]*>([^<]*)</text>", svg) == labels


def test_pairs_that_were_not_compared_stay_empty() -> None:
    strengths = np.full((3, 3), np.nan)
    strengths[1, 0] = 1.0
    assert draw_heat_map(strengths, 1, "").count("<path") == 1
    assert draw_heat_map(np.full((3, 3), np.nan), 1, "").count("<path") == 0


def test_the_pick_is_marked_by_shape_and_not_by_colour_alone() -> None:
    outlines = re.findall(r'<path d="([^"]*)" transform', draw_dose_curve(curve(), ""))
    assert len(outlines) == 3
    assert outlines[0] == outlines[2] != outlines[1]
