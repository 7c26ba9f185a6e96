"""Names that cannot deceive and numbers that fit a column."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae_ops.validation.evidence import Interval
from vae_ops.validation.report_text import (
    compact,
    metric_title,
    moment,
    number,
    percent,
    points,
    quantity,
    span,
    visible,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"), (0.9114, "0.911"), (0.008, "0.008"), (12.345, "12.3"), (1234567.0, "1,234,567"), (-0.5, "−0.500"),
        (1e20, "1.0e+20"), (1e-9, "1.0e-09"), (math.nan, "–"), (math.inf, "∞"), (-math.inf, "−∞"), (None, "–"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_units_follow_the_name() -> None:
    assert quantity(0.345678, "shape_error_percent") == percent(0.345678) == "0.35\N{NO-BREAK SPACE}%"
    assert quantity(0.345678, "c2st_auc") == "0.346"
    assert span(Interval(0.345678, 1.0), "shape_error_percent") == "0.35 to 1.00"
    assert span(None) == ""


@pytest.mark.parametrize(("value", "expected"), [(0.26, "+0.3"), (-0.26, "−0.3"), (0.01, "0"), (-0.01, "0")])
def test_differences_have_a_sign(value: float, expected: str) -> None:
    assert points(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.25, "0.25"), (20_000, "20k"), (1_200_000, "1.2M"), (-3e9, "−3G"), (1e15, "1e+15")]
)
def test_axes_have_few_characters(value: float, expected: str) -> None:
    assert compact(value) == expected


@pytest.mark.parametrize(
    ("seconds", "semantic_type", "expected"),
    [
        (0.0, "date", "1970-01-01"), (-86_400.0, "datetime", "1969-12-31"), (3_661.0, "time", "01:01:01"),
        (172_800.0, "duration", "2 d"), (90.0, "duration", "1.5 min"), (2.0, "duration", "2 s"),
        (math.inf, "date", "∞"),
        (1e300, "date", "1.0e+300"), (3e11, "date", "11476-08-15"),
    ],
)  # fmt: skip
def test_seconds_are_written_as_what_they_stand_for(seconds: float, semantic_type: str, expected: str) -> None:
    assert moment(seconds, semantic_type) == expected


def test_metrics_have_titles_and_unknown_ones_keep_their_names() -> None:
    assert metric_title("c2st_auc") == "All columns at once"
    assert metric_title("some_new_metric") == "Some new metric"


@given(st.text(), st.integers(2, 100))
def test_visible_text_is_short_and_printable(text: str, limit: int) -> None:
    shown = visible(text, limit)
    assert 0 < len(shown) <= limit
    assert shown.isprintable()


def test_what_is_visible_stays_as_it_is() -> None:
    assert visible("naïve 漢字 <b>&amp;") == "naïve 漢字 <b>&amp;"
    assert visible("") == '""'
    assert visible("a\nb\u202e") == "a\\nb\\u202e"
    assert visible("x" * 81) == "x" * 79 + "…"
