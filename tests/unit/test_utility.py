"""Utility: which target means what, whether a real gain is found and an imagined one is not, and what is said of it."""

import dataclasses
import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vae_ops.errors import SchemaError, SettingsError
from vae_ops.holdout import halve_holdout
from vae_ops.schema import infer_semantic_types
from vae_ops.settings import RunSettings, UtilitySettings
from vae_ops.validation import utility as room
from vae_ops.validation.columns import align_table
from vae_ops.validation.evidence import Interval, UtilityEvidence
from vae_ops.validation.target import check_target, read_target, rows_with_target
from vae_ops.validation.utility import measure_utility, synthetic_rows_wanted, utility_findings


def some_rows(rows: int, seed: int) -> pa.Table:
    """Two numbers, a category, and targets of every task that depend on them."""
    rng = np.random.default_rng(seed)
    first, second, kind = rng.normal(size=rows), rng.normal(size=rows), rng.integers(0, 4, rows)
    signal = 1.5 * first * second + first + 0.7 * (kind == 2)
    noisy = signal + rng.normal(size=rows)
    return pa.table(
        {
            "first": pa.array(first, mask=rng.random(rows) < 0.05),
            "second": second,
            "kind": pa.array(np.array(["a", "b", "c", "d"])[kind]).dictionary_encode(),
            "amount": noisy,
            "yes": noisy > 0.5,
            "rare": np.where(signal + 0.5 * rng.normal(size=rows) > 3.0, "fraud", "fine"),
            "grade": np.digitize(noisy, [-1, 0, 1.5]),
        }
    )


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_ROUNDS", 40)


TASKS = {"amount": "regression", "yes": "binary", "rare": "binary", "grade": "multiclass"}


def only(table: pa.Table, target: str) -> pa.Table:
    return table.drop_columns([name for name in TASKS if name != target])


def measure(
    target: str, *, rows: int = 200, held: int = 800, synthetic: pa.Table | None = None, seed: int = 0, **settings: Any
) -> UtilityEvidence:
    training, holdout = only(some_rows(rows, 1), target), only(some_rows(held, 2), target)
    drawn = only(some_rows(4 * 3 * rows, 3) if synthetic is None else synthetic, target)
    chosen = UtilitySettings(**{"target": target, "repeats": 3, "doses": (1.0, 4.0), **settings})
    return measure_utility(training, holdout, drawn, infer_semantic_types(training), chosen, seed=seed)


def without_signal(rows: int, seed: int) -> pa.Table:
    """Synthetic rows whose targets have nothing to do with the rest."""
    table, order = some_rows(rows, seed), np.random.default_rng(seed).permutation(rows)
    for name in TASKS:
        table = table.set_column(table.schema.get_field_index(name), name, table.column(name).take(order))
    return table


# --- what is found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["amount", "yes", "grade"])
def test_rows_that_are_as_good_as_new_real_ones_are_found_to_help(target: str) -> None:
    found = measure(target)
    assert found.task == TASKS[target]
    assert found.dose_curve is not None
    assert found.dose_curve.picked > 0
    chosen = next(point for point in found.dose_curve.points if point.dose == found.dose_curve.picked)
    assert chosen.gain_interval.low > 0
    assert chosen.gain > 0.02
    assert f"{chosen.gain:+.4f}" in found.dose_curve.reason


@pytest.mark.parametrize("target", ["amount", "yes", "grade"])
def test_rows_that_say_nothing_are_not_added(target: str) -> None:
    found = measure(target, synthetic=without_signal(2400, 3))
    assert found.dose_curve is not None
    assert found.dose_curve.picked == 0.0
    assert "none is added" in found.dose_curve.reason
    assert found.gap is not None
    assert found.gap > 0.2


def test_copies_of_the_training_rows_rarely_seem_to_help() -> None:
    """Repeating what is known cannot help: at a confidence of 95 % (two-sided), a false pick in 40 tables."""
    training = some_rows(200, 1)
    picks = []
    for seed in range(8):
        copies = training.take(np.random.default_rng(seed).integers(0, 200, 800))
        curve = measure("yes", held=400, synthetic=copies, seed=seed, doses=(1.0,)).dose_curve
        assert curve is not None
        picks.append(curve.picked)
    assert sum(pick > 0 for pick in picks) <= 1


def test_the_curve_begins_at_dose_zero_and_is_paired_with_it() -> None:
    curve = measure("yes", doses=(4.0, 0.5)).dose_curve
    assert curve is not None
    assert [point.dose for point in curve.points] == [0.0, 0.5, 4.0]
    none = curve.points[0]
    assert (none.gain, none.gain_interval) == (0.0, Interval(0.0, 0.0))
    for point in curve.points[1:]:
        assert point.gain == pytest.approx(point.score - none.score)
        assert point.gain_interval.low < point.gain < point.gain_interval.high
        # Were they not scored on the same rows, the gain would be as uncertain as both scores together.
        assert _width(point.gain_interval) < np.hypot(_width(none.interval), _width(point.interval))


def _width(interval: Interval) -> float:
    return interval.high - interval.low


def test_the_same_rows_and_seed_give_the_same_evidence() -> None:
    first, again, other = (measure("yes", doses=(1.0,), held=200, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_evidence_survives_json() -> None:
    for found in (measure("rare", doses=(0.5,)), UtilityEvidence("x", None, not_measured="because")):
        assert UtilityEvidence.from_dict(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_an_imbalanced_target_reports_average_precision_too() -> None:
    found = measure("rare", rows=600, doses=(0.5,))
    assert found.secondary_metric == "average precision"
    assert found.secondary_real is not None
    assert found.secondary_synthetic is not None
    assert 0.1 < found.secondary_real < 1.0
    assert found.dose_curve is not None
    assert all(point.secondary is not None for point in found.dose_curve.points)
    assert measure("yes", doses=(0.5,)).secondary_metric == ""


def test_doses_go_as_far_as_the_synthetic_rows_reach() -> None:
    few = measure("yes", synthetic=some_rows(250, 3))
    assert few.dose_curve is not None
    assert [point.dose for point in few.dose_curve.points] == [0.0, 1.0]
    too_few = measure("yes", synthetic=some_rows(90, 3))
    assert too_few.dose_curve is None
    assert too_few.rows_train == 90
    assert too_few.score_synthetic is not None


def test_synthetic_rows_of_one_class_predict_nothing() -> None:
    found = measure("yes", synthetic=some_rows(800, 3).filter(some_rows(800, 3)["yes"]))
    assert found.score_synthetic == pytest.approx(0.5)


# --- a sample of the real rows --------------------------------------------------------------------------------------


def test_a_gain_on_a_sample_of_the_real_rows_must_hold_against_all_of_them() -> None:
    """A generator that saw all rows passes on what the sample lacks; that is no gain over all rows."""
    training = some_rows(3000, 1)
    copies = training.take(np.random.default_rng(0).integers(0, 3000, 1200))
    fooled = measure("yes", rows=3000, synthetic=copies, max_rows=100, doses=(4.0,)).dose_curve
    assert fooled is not None
    assert fooled.rows_real == 100
    assert max(point.gain_interval.low for point in fooled.points[1:]) > 0
    assert fooled.picked == 0.0
    assert "all real rows alone" in fooled.reason


def test_a_gain_beyond_all_real_rows_is_picked_although_it_was_measured_on_a_sample() -> None:
    curve = measure(
        "amount", rows=120, max_rows=100, held=1600, synthetic=some_rows(4_000, 3), doses=(20.0,), repeats=2
    ).dose_curve
    assert curve is not None
    assert curve.picked == 20.0
    assert "beyond what all real rows alone reach" in curve.reason


def test_a_gain_that_would_take_too_long_to_confirm_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ALL_ROWS", 110)
    curve = measure(
        "amount", rows=120, max_rows=100, held=1600, synthetic=some_rows(4_000, 3), doses=(20.0,), repeats=2
    ).dose_curve
    assert curve is not None
    assert curve.picked == 0.0
    assert "too long to confirm" in curve.reason


@pytest.mark.parametrize(("columns", "classes"), [(1, 2), (14, 2), (14, 20), (300, 0), (2000, 20)])
def test_the_work_is_bounded_whatever_the_shape(columns: int, classes: int) -> None:
    plan = room._Plan.of(5_000_000, columns, classes, UtilitySettings(target="t"))
    per_round = columns * max(classes if classes > 2 else 1, 1)
    assert plan.real_rows == room.FEWEST_ROWS or plan.real_rows * per_round * plan.rounds <= room.MAX_WORK
    assert plan.real_rows <= 30_000
    assert plan.all_rows == plan.real_rows
    assert 3 <= plan.repeats <= 5


def test_enough_rows_are_drawn_for_every_repeat_to_have_its_own() -> None:
    training = only(some_rows(300, 1), "yes")
    wanted = synthetic_rows_wanted(training, infer_semantic_types(training), UtilitySettings(target="yes"))
    assert wanted == 5 * 4 * 300


# --- what cannot be measured ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"held": 60}, r"[1-4]\d rows .* 50 are needed: raise read\.holdout_fraction"),
        ({"synthetic": some_rows(0, 3)}, "no synthetic rows"),
    ],
)
def test_too_few_rows_are_said_so(change: dict[str, Any], said: str) -> None:
    found = measure("yes", **change)
    assert (found.task, found.gap, found.dose_curve) == (None, None, None)
    assert re.search(said, found.not_measured)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (lambda rows: pa.array(["one"] * rows), "one value only"),
        (lambda rows: pa.array([f"name {row}" for row in range(rows)]), "a value of its own"),
        (lambda rows: pa.nulls(rows, pa.int64()), "0 rows"),
    ],
)
def test_a_target_that_cannot_be_learned_is_said_so(column: Callable[[int], Any], said: str) -> None:
    def table(rows: int, seed: int) -> pa.Table:
        return some_rows(rows, seed).select(["first", "second"]).append_column("odd", column(rows))

    training = table(200, 1)
    settings, types = UtilitySettings(target="odd"), infer_semantic_types(training)
    found = measure_utility(training, table(200, 2), table(400, 3), types, settings)
    assert said in found.not_measured
    assert utility_findings(found, settings) == []


def test_a_table_of_the_target_alone_has_nothing_to_learn_from() -> None:
    training = some_rows(200, 1).select(["yes"])
    found = measure_utility(training, training, training, infer_semantic_types(training), UtilitySettings(target="yes"))
    assert "No column is left" in found.not_measured


# --- the target -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "task", "read_as"),
    [
        (pa.array([0.5, 1.5, 2.5]), None, "regression"),
        (pa.array([0.0, 1.0, 1.0]), None, "regression"),
        (pa.array([0.0, 1.0, 1.0]), "classification", "binary"),
        (pa.array([0, 1, 1]), None, "binary"),
        (pa.array([7, 8, 9], pa.uint8()), None, "multiclass"),
        (pa.array([7, 8, 9]), "regression", "regression"),
        (pa.array(range(21)), None, "regression"),
        (pa.array([True, False, True]), None, "binary"),
        (pa.array([True, False, True]), "regression", "regression"),
        (pa.array(["a", "b", "c"]), None, "multiclass"),
        (pa.array(["a", "b", "b"]).dictionary_encode(), None, "binary"),
        (pa.array([1, 2, 3], pa.timestamp("s")), None, "regression"),
        (pa.array([1, 2, 3]).cast(pa.decimal128(25, 2)), None, "regression"),
    ],
)
def test_the_task_follows_from_the_column(values: pa.Array, task: Any, read_as: str) -> None:
    table = pa.table({"t": values, "x": range(len(values))})
    table = align_table(table, table.schema, "training")
    settings = UtilitySettings(target="t", task=task)
    target, _ = read_target([table], infer_semantic_types(table), settings)
    assert target.task == read_as
    if read_as == "regression":
        assert np.diff(target.values[0]).tolist() == [float(b) - float(a) for a, b in pairwise(map(_number, values))]


def _number(value: pa.Scalar) -> float:
    return float(value.value if pa.types.is_timestamp(value.type) else value.as_py())


def test_rows_without_a_known_target_are_left_out() -> None:
    table = pa.table({"t": pa.array([1.0, None, float("nan"), 2.0]), "x": [1, 2, 3, 4]})
    assert rows_with_target(table, "t")["x"].to_pylist() == [1, 4]


def test_of_many_classes_only_the_frequent_ones_are_learned() -> None:
    names = [f"class {number}" for number in range(25) for _ in range(number + 1)]
    table = pa.table({"t": names, "x": range(len(names))})
    other = pa.table({"t": ["class 24", "class 0", "unheard of"], "x": [1, 2, 3]})
    target, (kept, kept_other) = read_target([table, other], infer_semantic_types(table), UtilitySettings(target="t"))
    assert target.classes == 20
    assert set(kept["t"].to_pylist()) == {f"class {number}" for number in range(5, 25)}
    assert kept_other["x"].to_pylist() == [1]
    assert target.values[1].tolist() == [0.0]


def test_the_test_fold_is_the_half_that_training_does_not_look_at() -> None:
    holdout = pa.table({"x": range(101)})
    tuning, test = (set(half["x"].to_pylist()) for half in halve_holdout(holdout))
    assert tuning | test == set(range(101))
    assert not tuning & test
    # A source is often sorted by time or by class, and a row of an earlier night's test fold stays in it.
    assert 30 < len(test) < 71
    assert test - {100} == set(halve_holdout(holdout.slice(0, 100))[1]["x"].to_pylist())


def test_no_row_of_the_test_fold_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets of the test fold are turned round: whoever had learned from them would notice."""
    learned = []
    monkeypatch.setattr(
        room,
        "_fitted",
        lambda trial, arm, repeat, fit=room._fitted: learned.append(trial.real) or fit(trial, arm, repeat),
    )
    training, holdout = only(some_rows(200, 1), "yes"), only(some_rows(400, 2), "yes")
    measure_utility(
        training, holdout, only(some_rows(800, 3), "yes"), infer_semantic_types(training),
        UtilitySettings(target="yes", repeats=2, doses=(1.0,)),
    )  # fmt: skip
    seen = {tuple(row) for rows in learned for row in rows.features}
    unseen = {tuple(row) for row in zip(*(holdout[name].to_pylist() for name in ("first", "second")), strict=True)}
    assert len(seen) == 200
    assert not {row[:2] for row in seen} & unseen


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"target": "amuont"}, SchemaError, "'amuont' is not a column of the table; did you mean 'amount'?"),
        ({"target": "zzz"}, SchemaError, "'zzz' is not a column"),
        ({"target": "kind", "task": "regression"}, SettingsError, "'kind' holds dictionary"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(settings: dict[str, str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said.replace("?", r"\?")):
        check_target(some_rows(5, 0).schema, UtilitySettings.from_dict(settings))


# --- settings and findings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"utility": {"doses": []}}, "doses expects numbers above 0"),
        ({"utility": {"doses": [0.0, 1.0]}}, "doses expects numbers above 0"),
        ({"utility": {"repeats": 1}}, "repeats must be at least 2"),
        ({"utility": {"task": "ranking"}}, "expects one of 'classification', 'regression'"),
        ({"utility": {"max_gap": 0.2, "fail_gap": 0.1}}, "fail_gap must be at least 0.2"),
        ({"utility": {"target": "a"}, "read": {"exclude": ["a"]}}, "The target 'a' is excluded"),
        ({"generate": {"ratio": "some"}}, "ratio expects float, got 'some'"),
        (
            {"utility": {"target": "a"}, "generate": {"ratio": "auto"}, "publish": {"include_source": False}},
            "leaves the source out",
        ),
    ],
)
def test_settings_that_make_no_sense(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        RunSettings.from_dict(values)


def test_auto_is_one_for_one_without_a_target_and_the_dose_with_one() -> None:
    plain = RunSettings.from_dict({"generate": {"ratio": "auto"}})
    assert not plain.picks_dose
    assert plain.generate.synthetic_rows(100) == 100
    aimed = RunSettings.from_dict({"generate": {"ratio": "auto"}, "utility": {"target": "a"}})
    assert aimed.picks_dose
    assert [aimed.generate.synthetic_rows(100, dose=dose) for dose in (0.0, 0.25, 4.0)] == [0, 25, 400]
    assert RunSettings.from_dict(aimed.to_dict()) == aimed
    fixed = RunSettings.from_dict({"generate": {"ratio": 2}, "utility": {"target": "a"}})
    assert not fixed.picks_dose
    assert fixed.generate.synthetic_rows(100, dose=4.0) == 200


def evidence(gap: float, low: float) -> UtilityEvidence:
    interval = Interval(low, 2 * gap - low)
    return UtilityEvidence("t", "binary", "ROC AUC", 0.9, 0.9 - gap, gap, interval, rows_train=100, rows_test=100)


@pytest.mark.parametrize(
    ("gap", "low", "fail_gap", "verdict"),
    [
        (0.00, -0.01, None, "pass"),
        (0.05, 0.04, None, "pass"),
        (0.20, 0.01, 0.1, "pass"),
        (0.20, 0.19, None, "borderline"),
        (0.20, 0.19, 0.3, "borderline"),
        (0.50, 0.49, 0.3, "fail"),
        (-0.20, -0.21, 0.1, "pass"),
    ],
)
def test_a_gap_beyond_chance_is_borderline_and_fails_only_if_asked(
    gap: float, low: float, fail_gap: float | None, verdict: str
) -> None:
    (finding,) = utility_findings(evidence(gap, low), UtilitySettings(target="t", fail_gap=fail_gap))
    assert (finding.metric, finding.aspect, finding.verdict) == ("utility_gap", "utility", verdict)
    assert (finding.weight <= 1.0) == (verdict == "pass")
    assert (finding.value <= finding.limit) == (verdict == "pass")
    assert bool(finding.remedy) == (verdict != "pass")
    assert finding.sentence.endswith(".")
