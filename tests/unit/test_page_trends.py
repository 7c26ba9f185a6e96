"""Scores over runs: what is drawn where, and when a decline is named."""

from datetime import UTC, datetime, timedelta

import pytest

from vae_ops_provider.pages.records import TableRun, TaskKey, TaskRecord
from vae_ops_provider.pages.trends import HEIGHT, WIDTH, Trend, trend_of, trends_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def run(night: int, value: float | None, *, metric: str = "shape_error_percent", noise: float = 0.4) -> TableRun:
    values = {"verdict": "pass", "metrics": {metric: value}, "noise_floor": {metric: noise}}
    task = TaskRecord(TaskKey("d", f"r{night}", "validate"), "validate", "success", START, values)
    return TableRun(f"r{night}", START + timedelta(days=night), tasks={"validate": task})


def trend(values: list[float | None], *, metric: str = "shape_error_percent", noise: float = 0.4) -> Trend:
    newest_first = [run(night, value, metric=metric, noise=noise) for night, value in enumerate(values)][::-1]
    found = trend_of(metric, newest_first)
    assert found is not None
    return found


def test_the_oldest_run_stands_on_the_left_and_the_worst_on_top() -> None:
    marks = trend([1.0, 4.0, 2.0]).marks
    assert [mark.run.run_id for mark in marks] == ["r0", "r1", "r2"]
    assert 0 < marks[0].x < marks[1].x < marks[2].x < WIDTH
    assert 0 < marks[1].y < marks[2].y < marks[0].y < HEIGHT


def test_runs_that_measured_nothing_are_left_out() -> None:
    assert [mark.value for mark in trend([1.0, None, 2.0]).marks] == [1.0, 2.0]
    assert trend_of("c2st_auc", [run(0, 1.0)]) is None
    assert [found.metric for found in trends_of([run(0, 0.52, metric="c2st_auc")])] == ["c2st_auc"]


def test_a_single_run_is_drawn_without_a_verdict_on_the_trend() -> None:
    found = trend([0.5])
    assert (len(found.marks), found.before, found.now, found.declines) == (1, None, None, False)
    assert 0 < found.latest.x < WIDTH


@pytest.mark.parametrize(
    ("values", "declines"),
    [
        ([0.5 + 0.01 * night for night in range(30)], True),
        ([0.8 - 0.01 * night for night in range(30)], False),
        ([0.5, 0.52] * 15, False),
        ([0.5] * 29 + [3.0], False),  # one odd night is for the gate
        ([0.5] * 10 + [0.7] * 20, True),
        ([0.5, 0.6, 0.7, 0.8, 0.9], False),  # too few runs to tell
    ],
)
def test_a_slow_decline_is_named_and_noise_is_not(values: list[float | None], declines: bool) -> None:
    assert trend(values).declines is declines


def test_what_moves_by_less_than_a_quarter_of_the_noise_does_not_decline() -> None:
    tiny = [0.5 + 0.0001 * night for night in range(12)]
    assert not trend(tiny, metric="c2st_auc", noise=0.51).declines
    assert trend([0.5 + 0.002 * night for night in range(12)], metric="c2st_auc", noise=0.51).declines


def test_the_noise_floor_lies_within_the_chart() -> None:
    for values in ([0.1, 0.2], [5.0, 6.0]):
        noise_y = trend(values, noise=0.4).noise_y
        assert noise_y is not None
        assert 0 < noise_y < HEIGHT


@pytest.mark.parametrize("value", [0.0, -1.0, 1e308, 1e-300])
def test_extreme_scores_stay_in_the_chart(value: float) -> None:
    for mark in trend([value, value / 2, 0.3]).marks:
        assert 0 <= mark.y <= HEIGHT


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan"), True, "1"])
def test_what_is_no_finite_number_is_no_score(value: object) -> None:
    task = TaskRecord(TaskKey("d", "r", "validate"), "validate", "success", START, {"metrics": {"c2st_auc": value}})
    assert task.numbers("metrics") == {}
