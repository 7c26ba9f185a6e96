"""The walk end to end, with a model that needs no network: what is published, kept, refused, resumed, cleared away."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.stand_in_model import LENIENT, StandInModel, some_rows
from vae_ops import RunSettings, augment, load_latest, steps, validate
from vae_ops.errors import BundleError, BusyError, GateRefusedError, SettingsError, SourceError, UsageError
from vae_ops.progress import Progress
from vae_ops.records import AugmentResult, StepSpec
from vae_ops.standalone import generate_rows, train_model
from vae_ops.storage import locate
from vae_ops.store import Store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.parquet"
    pq.write_table(some_rows(), path)
    return path


def run(source: Any, output: Path, **settings: Any) -> AugmentResult:
    chosen = RunSettings.from_dict({**LENIENT, **settings})
    return augment(source, output, settings=chosen, engine=StandInModel)


def files_below(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# --- what is published ----------------------------------------------------------------------------------------------


def test_a_snapshot_holds_source_and_synthetic_rows(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", generate={"ratio": 0.5, "seed": 3})
    rows = pq.read_table(result.snapshot_path)
    assert (result.rows_source, result.rows_synthetic, result.verdict) == (400, 200, "pass")
    assert rows.schema.remove_metadata() == pq.read_schema(source).append(
        pa.field("_is_synthetic", pa.bool_(), nullable=False)
    )
    assert rows.filter(~np.asarray(rows["_is_synthetic"])).drop_columns(["_is_synthetic"]).equals(pq.read_table(source))
    snapshot = Path(result.snapshot_path)
    assert json.loads((snapshot / "_report.json").read_text())["verdict"] == "pass"
    assert Path(result.report_path) == snapshot / "_report.html"
    assert Path(result.report_path).read_text().lstrip().lower().startswith("<!doctype html>")
    latest = load_latest(tmp_path / "out")
    assert (latest.snapshot_path, latest.report_path) == (result.snapshot_path, result.report_path)
    assert set(result.seconds) == {"profile", "train", "generate", "validate", "publish", "total"}
    assert StandInModel.load(result.model_path).version == result.model_version


def test_without_source_rows_the_schema_is_exactly_the_source(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", publish={"include_source": False})
    rows = pq.read_table(result.snapshot_path)
    assert rows.schema.remove_metadata() == pq.read_schema(source).remove_metadata()
    assert (result.rows_source, rows.num_rows) == (0, 400)


def test_no_synthetic_rows_are_fine(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", generate={"rows": 0})
    assert pq.read_table(result.snapshot_path).num_rows == 400


def test_excluded_columns_are_left_out(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", read={"exclude": ["kind"]})
    assert pq.read_table(result.snapshot_path).schema.names == ["amount", "count", "_is_synthetic"]


def test_hive_partitions_become_ordinary_columns(tmp_path: Path) -> None:
    table = some_rows().append_column("day", pa.array([1, 2] * 200, pa.int32()))
    ds.write_dataset(table, tmp_path / "in", format="parquet", partitioning=["day"], partitioning_flavor="hive")
    rows = pq.read_table(run(tmp_path / "in", tmp_path / "out").snapshot_path)
    assert rows.schema.names == ["amount", "count", "kind", "day", "_is_synthetic"]
    assert rows.schema.field("day").type == pa.int32()


@pytest.mark.parametrize("kind", ["arrow", "dataset", "pandas"])
def test_tables_in_memory_are_sources_too(tmp_path: Path, kind: str) -> None:
    table = some_rows()
    sources = {"arrow": table, "dataset": ds.dataset(table), "pandas": table.to_pandas()}
    result = run(sources[kind], tmp_path / "out")
    assert result.rows_source == 400


def test_second_resolution_times_are_kept_as_parquet_can(tmp_path: Path) -> None:
    table = some_rows().append_column("at", pa.array(range(400), pa.timestamp("s", "UTC")))
    rows = pq.read_table(run(table, tmp_path / "out").snapshot_path)
    assert rows.schema.field("at").type == pa.timestamp("ms", "UTC")
    assert rows["at"][:400].cast(pa.int64()).to_pylist() == [1000 * second for second in range(400)]


def test_the_same_run_again_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first, second = run(source, tmp_path / "one"), run(source, tmp_path / "two")
    contents = [files_below(Path(result.snapshot_path)) for result in (first, second)]
    for files in contents:
        assert json.loads(files.pop("_manifest.json"))["run_id"] == first.run_id
    assert contents[0].keys() == contents[1].keys()
    parquet = [{name: data for name, data in files.items() if name.endswith(".parquet")} for files in contents]
    assert parquet[0] == parquet[1]


def test_another_seed_gives_other_rows(source: Path, tmp_path: Path) -> None:
    results = [run(source, tmp_path / "out", generate={"seed": seed}) for seed in (1, 2)]
    assert results[0].snapshot_path != results[1].snapshot_path


# --- what stays behind ----------------------------------------------------------------------------------------------


def test_nights_leave_a_bounded_number_of_files(tmp_path: Path) -> None:
    counts = []
    for night in range(5):
        run(some_rows(seed=night), tmp_path / "out", publish={"keep_snapshots": 2})
        counts.append(len(files_below(tmp_path / "out")))
    assert counts[1] == counts[2] == counts[4]
    assert not list((tmp_path / "out/_store/runs").iterdir())


def test_a_run_that_died_is_taken_up_where_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*args: Any, **kwargs: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(StandInModel, "sample_shard", dies)
        with pytest.raises(SystemExit):
            run(source, tmp_path / "out")
    monkeypatch.setattr(StandInModel, "fit_tables", dies)
    assert run(source, tmp_path / "out").verdict == "pass"
    assert not list((tmp_path / "out/_store/runs").iterdir())


def test_what_another_dead_run_left_is_cleared_away(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*args: Any, **kwargs: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(StandInModel, "sample_shard", dies)
        with pytest.raises(SystemExit):
            run(source, tmp_path / "out", generate={"seed": 1})
    run(source, tmp_path / "out", generate={"seed": 2})
    assert not list((tmp_path / "out/_store/runs").iterdir())


def test_a_refused_candidate_is_kept_and_nothing_published(source: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(GateRefusedError, match=r"kept in .*rejected/cli-") as refusal:
            run(source, tmp_path / "out", gate={})
    assert refusal.value.exit_code == 3
    (kept,) = (tmp_path / "out/_store/rejected").iterdir()
    assert StandInModel.load(str(kept / "candidate")).version
    assert json.loads((kept / "verdict.json").read_text())["verdict"] == "fail"
    assert not (tmp_path / "out/_latest.json").exists()
    assert not (tmp_path / "out/snapshots").exists()
    assert not list((tmp_path / "out/_store/runs").iterdir())


def test_a_refusal_leaves_the_last_snapshot_as_it_was(source: Path, tmp_path: Path) -> None:
    before = run(source, tmp_path / "out")
    with pytest.raises(GateRefusedError):
        run(source, tmp_path / "out", gate={})
    assert load_latest(tmp_path / "out").snapshot_id in before.snapshot_path


def test_two_of_the_very_same_run_at_once_do_not_mix(source: Path, tmp_path: Path) -> None:
    run_id = run(source, tmp_path / "out").run_id
    with Store(locate(tmp_path / "out/_store")).working_on(run_id, alone=True), pytest.raises(BusyError):
        run(source, tmp_path / "out")


def test_a_source_that_changes_meanwhile_is_noticed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = StandInModel.sample_shard

    def draw_while_somebody_writes(model: StandInModel, rows: int, **how: Any) -> Iterator[pa.Table]:
        pq.write_table(some_rows(seed=1), source)
        return draw(model, rows, **how)

    monkeypatch.setattr(StandInModel, "sample_shard", draw_while_somebody_writes)
    with pytest.raises(SourceError, match="changed, replaced or removed meanwhile"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- step by step, as a scheduler walks -----------------------------------------------------------------------------


@pytest.fixture
def spec(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepSpec:
    monkeypatch.setattr("vae_ops.walk.default_engine", lambda: StandInModel)
    settings = RunSettings.from_dict(LENIENT)
    labels = {"airflow_dag_id": "nightly"}
    return StepSpec(str(source), None, str(tmp_path / "out"), "nightly-1", settings, shards=3, labels=labels)


def of_shard(spec: StepSpec, shard: int, shards: int = 3) -> StepSpec:
    return StepSpec.from_dict({**spec.to_dict(), "shard": shard, "shards": shards})


def walk_until_validated(spec: StepSpec, shards: int = 3) -> None:
    steps.profile(spec)
    steps.train(spec)
    for shard in reversed(range(shards)):
        steps.generate(of_shard(spec, shard, shards))
    steps.validate(spec)


def test_steps_make_the_same_snapshot_as_one_process(spec: StepSpec, tmp_path: Path) -> None:
    walk_until_validated(spec)
    published = steps.publish(spec)
    alone = run(spec.source, tmp_path / "alone")
    assert Path(published.snapshot_path).name == Path(alone.snapshot_path).name
    manifest = json.loads(Path(published.snapshot_path, "_manifest.json").read_text())
    assert manifest["labels"] == {"airflow_dag_id": "nightly"}
    assert manifest["run_id"] == "nightly-1"


def test_every_step_can_be_repeated(spec: StepSpec) -> None:
    walk_until_validated(spec)
    first = steps.publish(spec)
    assert steps.publish(spec) == first
    walk_until_validated(spec)
    assert steps.publish(spec) == first


def test_a_published_run_can_draw_again_from_its_promoted_model(spec: StepSpec) -> None:
    walk_until_validated(spec)
    steps.publish(spec)
    assert steps.generate(of_shard(spec, 0)).rows == 133


def test_publishing_an_old_run_again_makes_it_the_latest(spec: StepSpec, tmp_path: Path) -> None:
    walk_until_validated(spec)
    first = steps.publish(spec)
    run(some_rows(seed=5), tmp_path / "out")
    assert steps.publish(spec) == first
    assert load_latest(tmp_path / "out").snapshot_path == first.snapshot_path


def test_shards_that_are_drawn_side_by_side_leave_each_other_alone(spec: StepSpec) -> None:
    steps.profile(spec)
    steps.train(spec)
    others = iter([1])

    def draw_another(progress: Progress) -> None:
        # Half-way, the part is a file in the making.
        if 0 < progress.fraction < 1 and (shard := next(others, None)):
            steps.generate(of_shard(spec, shard))

    steps.generate(of_shard(spec, 0), report=draw_another)
    steps.generate(of_shard(spec, 2))
    steps.validate(spec)
    assert steps.publish(spec).rows_synthetic == 400


def test_parts_of_another_number_of_shards_are_not_mixed_in(spec: StepSpec) -> None:
    walk_until_validated(spec, shards=2)
    for shard in range(3):
        steps.generate(of_shard(spec, shard, 3))
    steps.validate(spec)
    assert steps.publish(spec).rows_synthetic == 400


def test_a_missing_shard_is_named(spec: StepSpec) -> None:
    steps.profile(spec)
    steps.train(spec)
    steps.generate(of_shard(spec, 0))
    with pytest.raises(UsageError, match=r"part-00001-of-00003"):
        steps.validate(spec)


@pytest.mark.parametrize(("keep_provenance", "words"), [(True, "drawn anew"), (False, "another model or seed")])
def test_parts_that_were_not_judged_are_not_published(
    spec: StepSpec, tmp_path: Path, keep_provenance: bool, words: str
) -> None:
    walk_until_validated(spec)
    part = tmp_path / "out/_store/runs/nightly-1/parts/part-00000-of-00003.parquet"
    table, metadata = pq.read_table(part), pq.read_metadata(part).metadata if keep_provenance else None
    pq.write_table(table.take(list(reversed(range(len(table))))).replace_schema_metadata(metadata), part)
    with pytest.raises(UsageError, match=words):
        steps.publish(spec)
    assert not (tmp_path / "out/_latest.json").exists()


def test_parts_of_an_older_model_are_not_judged(spec: StepSpec, source: Path) -> None:
    walk_until_validated(spec)
    pq.write_table(some_rows(seed=9), source)
    steps.profile(spec)
    steps.train(spec)
    with pytest.raises(UsageError, match="another model or seed"):
        steps.validate(spec)


def test_a_failing_verdict_is_a_result_of_validate_and_an_error_of_publish(spec: StepSpec, tmp_path: Path) -> None:
    strict = StepSpec.from_dict({**spec.to_dict(), "settings": {}})
    steps.profile(strict)
    steps.train(strict)
    steps.generate(of_shard(strict, 0, 1))
    judged = steps.validate(strict)
    assert judged.verdict == "fail"
    assert judged.reasons
    with pytest.raises(GateRefusedError, match="nothing was published"):
        steps.publish(strict)
    assert not (tmp_path / "out/_latest.json").exists()


def test_steps_out_of_order_say_what_is_missing(spec: StepSpec) -> None:
    for step, wanted in ((steps.train, "profile"), (steps.generate, "train"), (steps.publish, "validate")):
        with pytest.raises(UsageError, match=f"run its {wanted} step first"):
            step(spec)


def test_a_source_that_changed_since_its_profile_is_not_trained_on(spec: StepSpec, source: Path) -> None:
    steps.profile(spec)
    pq.write_table(some_rows(seed=1), source)
    with pytest.raises(SourceError, match="has changed since"):
        steps.train(spec)


def test_a_tampered_candidate_is_not_drawn_from(spec: StepSpec, tmp_path: Path) -> None:
    steps.profile(spec)
    steps.train(spec)
    (tmp_path / "out/_store/runs/nightly-1/candidate/rows.arrow").write_bytes(b"x")
    with pytest.raises(BundleError):
        steps.generate(of_shard(spec, 0))


def test_progress_reaches_its_end_in_every_step(source: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    augment(source, tmp_path / "out", settings=RunSettings.from_dict(LENIENT), engine=StandInModel, report=seen.append)
    for step in ("profile", "train", "generate", "validate", "publish"):
        fractions = [progress.fraction for progress in seen if progress.step == step]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0


# --- the protocol ---------------------------------------------------------------------------------------------------


def speak(*arguments: str, spec: Any = None) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "vae_ops.steps", *arguments],
        input="" if spec is None else json.dumps(spec),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_step_in_its_own_process_speaks_json_lines(spec: StepSpec) -> None:
    code, events, _ = speak("profile", "-", spec=spec.to_dict())
    assert code == 0
    assert {event["event"] for event in events[:-1]} == {"progress"}
    assert events[-1]["event"] == "result"
    assert events[-1]["value"]["rows"] == 400


def test_errors_cross_the_process_border_with_their_class(spec: StepSpec) -> None:
    code, events, _ = speak("train", "-", spec=spec.to_dict())
    assert code == 2
    assert events[-1]["kind"] == "UsageError"
    assert events[-1]["exit_code"] == 2


def test_a_defect_keeps_its_traceback(spec: StepSpec, tmp_path: Path) -> None:
    steps.profile(spec)
    (tmp_path / "out/_store/runs/nightly-1/profile.json").write_text("not JSON")
    code, events, stderr = speak("train", "-", spec=spec.to_dict())
    assert code == 1
    assert events[-1] == {"event": "error", "kind": "JSONDecodeError", "message": events[-1]["message"], "exit_code": 1}
    assert "Traceback" in stderr


@pytest.mark.parametrize(
    ("arguments", "spec", "word"),
    [
        (("fly", "-"), {}, "STEP"),
        (("profile",), {}, "STEP"),
        (("profile", "missing.json"), {}, "missing.json"),
        (("profile", "-"), [], "object"),
        (("profile", "-"), {"source": "x", "run_id": "r", "output": "o", "sourec": 1}, "sourec"),
        (("profile", "-"), {"source": "x", "run_id": "r"}, "store or the output"),
        (("profile", "-"), {"source": "x", "run_id": "r", "output": "o", "shard": 1}, "shard"),
        (("profile", "-"), {"source": "x", "run_id": "../r", "output": "o"}, "run id"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(
    arguments: tuple[str, ...], spec: Any, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, events, stderr = speak(*arguments, spec=spec)
    assert code == 2
    assert word in events[-1]["message"]
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


# --- without a run --------------------------------------------------------------------------------------------------


def test_train_and_generate_without_a_run(source: Path, tmp_path: Path) -> None:
    record = train_model(source, tmp_path / "model", engine=StandInModel)
    again = train_model(source, tmp_path / "model", engine=StandInModel)
    assert again.model_version == record.model_version
    settings = RunSettings.from_dict({"generate": {"rows": 50, "seed": 1}}).generate
    drawn = [generate_rows(tmp_path / "model", tmp_path / "rows", settings=settings, engine=StandInModel) for _ in "ab"]
    assert drawn[0].files == drawn[1].files
    assert pq.read_table(tmp_path / "rows").num_rows == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "rows", "source.parquet"]


def test_a_directory_that_is_no_model_is_not_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("…")
    with pytest.raises(UsageError, match="not a model"):
        train_model(source, tmp_path / "thesis", engine=StandInModel)
    assert (tmp_path / "thesis/chapter.tex").exists()


def test_any_two_tables_can_be_judged(source: Path, tmp_path: Path) -> None:
    judged = validate(source, some_rows(300, seed=1), report=tmp_path / "report", holdout=some_rows(100, seed=2))
    assert judged.verdict == "pass"
    assert Path(judged.report_path) == tmp_path / "report/report.html"
    found = json.loads((tmp_path / "report/report.json").read_text())
    assert found["metrics"] == dict(judged.metrics)
    assert found["two_sided"] is None
    assert found["sizes"]["rows_source"] == 400


def test_of_a_snapshot_only_the_synthetic_rows_are_judged(source: Path, tmp_path: Path) -> None:
    snapshot = run(source, tmp_path / "out", generate={"rows": 300}).snapshot_path
    judged = validate(source, snapshot, report=tmp_path / "report")
    assert json.loads(Path(judged.report_path).with_suffix(".json").read_text())["sizes"]["rows_synthetic"] == 300


def test_an_override_of_a_semantic_type_holds_for_any_two_tables(source: Path, tmp_path: Path) -> None:
    settings = RunSettings.from_dict({"read": {"semantic_types": {"count": "categorical"}}})
    validate(source, some_rows(300, seed=1), report=tmp_path, settings=settings)
    columns = json.loads((tmp_path / "report.json").read_text())["columns"]
    assert {column["column"]: column["metric"] for column in columns} == {"amount": "KS", "count": "TV", "kind": "TV"}


def test_a_run_judges_reconstructions_beside_prior_samples(source: Path, tmp_path: Path) -> None:
    snapshot = Path(run(source, tmp_path / "out", generate={"rows": 300}).snapshot_path)
    found = json.loads((snapshot / "_report.json").read_text())
    # The stand-in gives every row back as it was.
    assert found["two_sided"]["reconstruction"]["shape_error_percent"] == 0.0
    assert found["two_sided"]["faulty"] == "none"
    assert found["provenance"]["source"] == str(source)
    assert json.loads(found["provenance"]["settings"])["generate"]["rows"] == 300


def test_a_spec_goes_through_json(spec: StepSpec) -> None:
    assert StepSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(SettingsError):
        StepSpec.from_dict({**spec.to_dict(), "settings": {"trian": {}}})
