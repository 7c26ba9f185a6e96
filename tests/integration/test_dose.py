"""The dose curve decides how many rows a run draws, from the train step to the snapshot; none is a number too."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.stand_in_model import StandInModel
from vae_ops import augment, load_latest, steps, validate
from vae_ops.cli import commands
from vae_ops.errors import SchemaError, UsageError
from vae_ops.records import AugmentResult, StepSpec
from vae_ops.settings import GateSettings, RunSettings
from vae_ops.validation import utility as room

ROWS = 1200
ANY_GATE = {field.name: None for field in dataclasses.fields(GateSettings) if field.name.startswith("max_")}
UTILITY = {"target": "yes", "repeats": 3, "doses": [0.5, 2.0], "max_rows": 2000}


def some_rows(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """A chessboard of two numbers beside two that say nothing: hard to learn from few rows, easy from many."""
    rng = np.random.default_rng(seed)
    a, b, c, d = rng.normal(size=(4, rows))
    board = np.sin(3 * a) * np.sin(3 * b)
    return pa.table({"a": a, "b": b, "c": c, "d": d, "yes": board > 0.1 * rng.normal(size=rows)})


class Oracle(StandInModel):
    """Draws new rows of the true distribution, which a model of few rows can only gain from."""

    def sample_shard(self, rows: int, *, seed: int, shard: int = 0, shards: int = 1) -> Iterator[pa.Table]:
        drawn = some_rows(rows, seed % 2**32)
        start, stop = rows * shard // shards, rows * (shard + 1) // shards
        yield drawn.slice(start, stop - start)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST_ROUNDS", 40)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pq.write_table(some_rows(), tmp_path / "source.parquet")
    return tmp_path / "source.parquet"


def settings_of(**sections: Any) -> RunSettings:
    values = {
        "read": {"holdout_fraction": 0.5}, "generate": {"ratio": "auto"}, "utility": UTILITY, "gate": ANY_GATE,
    }  # fmt: skip
    return RunSettings.from_dict({**values, **sections})


def run(source: Path, output: Path, engine: Any = StandInModel, **sections: Any) -> AugmentResult:
    return augment(source, output, engine=engine, settings=settings_of(**sections))


def report_of(result: AugmentResult) -> Any:
    return json.loads(Path(result.snapshot_path, "_report.json").read_text())


# --- one process ----------------------------------------------------------------------------------------------------


def test_rows_that_help_are_drawn_in_the_dose_that_helps(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", Oracle)
    assert result.utility is not None
    curve = result.utility["dose_curve"]
    assert curve["picked"] in {0.5, 2.0}
    assert result.rows_synthetic == curve["picked"] * ROWS
    assert report_of(result)["utility"]["dose_curve"] == json.loads(json.dumps(curve))


def test_where_nothing_helps_the_snapshot_is_the_source_alone(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out")
    assert result.utility is not None
    assert result.utility["dose_curve"]["picked"] == 0.0
    assert "none is added" in result.utility["dose_curve"]["reason"]
    assert (result.rows_source, result.rows_synthetic, result.verdict) == (ROWS, 0, "pass")
    latest = load_latest(tmp_path / "out")
    rows = pq.read_table(latest.snapshot_path)
    assert rows.drop_columns(["_is_synthetic"]).equals(some_rows())
    assert rows["_is_synthetic"].unique().to_pylist() == [False]
    assert latest.rows_synthetic == 0


def test_a_curve_that_cannot_be_measured_adds_nothing_and_says_why(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", Oracle, read={"holdout_fraction": 0.05})
    assert result.rows_synthetic == 0
    assert result.utility is not None
    # A half of a twentieth of 1,200 rows, within three standard deviations.
    test_rows = re.search(r"(\d+) rows .* 50 are needed", result.utility["not_measured"])
    assert int(test_rows[1]) == pytest.approx(30, abs=16)


def test_auto_without_a_target_is_one_for_one_and_the_log_says_so(source: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = augment(
        source, tmp_path / "out", engine=StandInModel, settings=settings_of(utility={}),
        report=lambda progress: said.append(progress.message),
    )  # fmt: skip
    assert (result.rows_synthetic, result.utility) == (ROWS, None)
    assert any("without a target" in message for message in said)


def test_a_fixed_ratio_is_kept_and_the_curve_measured_all_the_same(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", generate={"ratio": 0.25})
    assert result.rows_synthetic == ROWS // 4
    assert result.utility is not None
    assert [point["dose"] for point in result.utility["dose_curve"]["points"]] == [0.0, 0.5, 2.0]
    assert "utility_gap" in report_of(result)["metrics"]


def test_the_rows_of_the_curve_are_not_those_that_are_published(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []
    draw = Oracle.sample_shard
    monkeypatch.setattr(
        Oracle, "sample_shard", lambda model, rows, **how: seeds.append(how["seed"]) or draw(model, rows, **how)
    )
    run(source, tmp_path / "out", Oracle, generate={"ratio": "auto", "seed": 5})
    assert len(seeds) == 2
    assert seeds[0] != seeds[1] == 5


# --- step by step ---------------------------------------------------------------------------------------------------


@pytest.fixture
def spec(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepSpec:
    monkeypatch.setattr("vae_ops.walk.default_engine", lambda: StandInModel)
    return StepSpec(str(source), None, str(tmp_path / "out"), "nightly-1", settings_of(), shards=3)


def walk(spec: StepSpec) -> Any:
    steps.profile(spec)
    steps.train(spec)
    drawn = [steps.generate(StepSpec.from_dict({**spec.to_dict(), "shard": shard})).rows for shard in range(3)]
    judged = steps.validate(spec)
    return drawn, judged, steps.publish(spec)


def test_mapped_shards_agree_on_the_dose(spec: StepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_ops.walk.default_engine", lambda: Oracle)
    drawn, _, published = walk(spec)
    alone = run(Path(spec.source), tmp_path / "alone", Oracle)
    assert sum(drawn) == published.rows_synthetic == alone.rows_synthetic > 0


def test_shards_of_no_rows_are_published_as_none(spec: StepSpec) -> None:
    drawn, judged, published = walk(spec)
    assert drawn == [0, 0, 0]
    assert judged.verdict == "pass"
    assert (published.rows_source, published.rows_synthetic) == (ROWS, 0)
    assert steps.publish(spec) == published


def test_training_anew_forgets_the_older_curve(spec: StepSpec, tmp_path: Path) -> None:
    steps.profile(spec)
    steps.train(spec)
    kept = tmp_path / "out/_store/runs/nightly-1/utility.json"
    assert json.loads(kept.read_text())["target"] == "yes"
    steps.train(StepSpec.from_dict({**spec.to_dict(), "settings": settings_of(utility={}).to_dict()}))
    assert not kept.exists()
    with pytest.raises(UsageError, match=r"no utility.json: run its train step first"):
        steps.generate(spec)


# --- any two tables, and the command line ---------------------------------------------------------------------------


def test_any_two_tables_are_judged_by_what_can_be_learned_from_them(source: Path, tmp_path: Path) -> None:
    given = settings_of(read={}, generate={})
    judged = validate(source, some_rows(3000, 1), report=tmp_path / "report", holdout=some_rows(400, 2), settings=given)
    assert judged.metrics["utility_gap"] < 0.05
    found = json.loads((tmp_path / "report" / "report.json").read_text())["utility"]
    assert [point["dose"] for point in found["dose_curve"]["points"]] == [0.0, 0.5, 2.0]
    assert found["caveat"] == ""
    validate(source, some_rows(3000, 1), report=tmp_path / "report", settings=given)
    assert "--holdout" in json.loads((tmp_path / "report" / "report.json").read_text())["utility"]["caveat"]


def test_an_unknown_target_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_ops.walk.default_engine", lambda: StandInModel)
    for arguments in (
        ("augment", str(source), str(tmp_path / "out")),
        ("validate", str(source), str(source), "--report", str(tmp_path / "out")),
    ):
        result = CliRunner().invoke(commands, [*arguments, "--target", "yess", "--json"])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "did you mean 'yes'?" in result.stderr.splitlines()[-1]
        assert not (tmp_path / "out").exists()
    with pytest.raises(SchemaError):
        augment(source, tmp_path / "out", settings=settings_of(utility={"target": "no"}))


def test_the_command_line_picks_the_dose_and_tells(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_ops.walk.default_engine", lambda: StandInModel)
    sections = {"read": {"holdout_fraction": 0.5}, "gate": ANY_GATE, "utility": UTILITY}
    values = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    overrides = [word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    arguments = ["augment", str(source), str(tmp_path / "out"), "--ratio", "auto", "--target", "yes", *overrides]
    result = CliRunner().invoke(commands, arguments)
    assert result.exit_code == 0, result.stderr
    assert "none is added" in result.stderr.splitlines()[-1]
    again = CliRunner().invoke(commands, [*arguments, "--json"])
    assert json.loads(again.stdout)["utility"]["dose_curve"]["picked"] == 0.0
    assert json.loads(again.stdout)["rows_synthetic"] == 0
