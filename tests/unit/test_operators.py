import itertools
import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DownstreamTasksSkipped, ParamValidationError
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, TaskGroup
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from vae_ops.errors import BusyError, StepFailedError
from vae_ops.progress import Progress
from vae_ops_provider.assets import PublishedSnapshot
from vae_ops_provider.compatibility import AirflowFailException, AirflowSkipException
from vae_ops_provider.mirror import ProgressMirror
from vae_ops_provider.operators import (
    VaeGenerateOperator,
    VaeProfileOperator,
    VaePublishOperator,
    VaeTrainOperator,
    VaeValidateOperator,
)
from vae_ops_provider.params import augmentation_params, augmentation_templates
from vae_ops_provider.rendering import parse_settings
from vae_ops_provider.task_group import VaeAugmentation

StandIn = Callable[[str], str]

PUBLISHED = {
    "snapshot_path": "/out/snapshots/ab",
    "model_version": "ab12",
    "verdict": "pass",
    "rows_source": 10,
    "rows_synthetic": 20,
    "report_path": "/out/snapshots/ab/_report.json",
}


class FakeStateStore:
    def __init__(self, *, broken: bool = False) -> None:
        self.values: list[Any] = []
        self.broken = broken

    def set(self, key: str, value: Any) -> None:
        if self.broken:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.GENERIC_ERROR))
        self.values.append((key, value))


def context(dag_id: str = "nightly", run_id: str = "manual__2026-01-01T00:00:00+00:00", **more: Any) -> Any:
    return {"dag": SimpleNamespace(dag_id=dag_id), "run_id": run_id, **more}


def operator(kind: type[Any], python: str | None = None, task_id: str = "t", **kwargs: Any) -> Any:
    return kind(task_id=task_id, source="in.parquet", output_dir="out", python=python, **kwargs)


def test_the_record_is_what_the_step_returned(stand_in: StandIn) -> None:
    task = operator(VaeTrainOperator, stand_in("emit('result', value={'step': STEP, 'spec': SPEC})"), store="None")
    record = task.execute(context())
    assert record["step"] == "train"
    assert {k: record["spec"][k] for k in ("source", "output", "store")} == {
        "source": "in.parquet", "output": "out", "store": None,
    }  # fmt: skip
    assert record["spec"]["labels"] == {
        "airflow_dag_id": "nightly",
        "airflow_run_id": "manual__2026-01-01T00:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("kind", "exit_code", "raised"),
    [
        ("ContentError", 2, AirflowFailException),
        ("GateRefusedError", 3, AirflowFailException),
        ("BusyError", 1, BusyError),
        ("OSError", 1, StepFailedError),
    ],
)
def test_only_errors_that_stay_are_final(stand_in: StandIn, kind: str, exit_code: int, raised: type[Exception]) -> None:
    python = stand_in(
        f"emit('error', kind={kind!r}, message='Column a.', exit_code={exit_code}); sys.exit({exit_code})"
    )
    with pytest.raises(raised, match=r"Column a\.") as caught:
        operator(VaeProfileOperator, python).execute(context())
    assert type(caught.value) is raised


def test_bad_settings_fail_for_good_and_start_nothing(tmp_path: Path) -> None:
    task = operator(VaeTrainOperator, str(tmp_path / "missing"), settings={"train": {"stepz": "1"}})
    with pytest.raises(AirflowFailException, match="did you mean 'steps'"):
        task.execute(context())


def test_a_shard_knows_its_number(stand_in: StandIn) -> None:
    task = operator(VaeGenerateOperator, stand_in("emit('result', value=SPEC)"), shard="1", shards="3")
    record = task.execute(context())
    assert (record["shard"], record["shards"]) == (1, 3)


class FakeTaskInstance:
    """What branching asks of a running task."""

    map_index = -1

    def __init__(self, task: Any) -> None:
        self.task = task
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def judged(verdict: str) -> str:
    return f"emit('result', value={{'verdict': {verdict!r}, 'reasons': ['shape error 9 above 4.']}})"


@pytest.mark.parametrize("verdict", ["pass", "borderline", "fail"])
def test_validate_fails_the_task_only_when_the_gate_says_no(
    stand_in: StandIn, verdict: str, caplog: pytest.LogCaptureFixture
) -> None:
    task = operator(VaeValidateOperator, stand_in(judged(verdict)))
    if verdict == "fail":
        instance = FakeTaskInstance(task)
        with pytest.raises(AirflowFailException, match="shape error 9 above 4"):
            task.execute(context(ti=instance))
        assert instance.xcoms["return_value"]["verdict"] == "fail"
        return
    assert task.execute(context())["verdict"] == verdict


def test_validate_skips_where_that_was_asked_for(stand_in: StandIn) -> None:
    task = operator(VaeValidateOperator, stand_in(judged("fail")), on_fail="skip")
    instance = FakeTaskInstance(task)
    with pytest.raises(AirflowSkipException, match="shape error 9 above 4"):
        task.execute(context(ti=instance))
    assert instance.xcoms["return_value"]["verdict"] == "fail"
    passing = operator(VaeValidateOperator, stand_in(judged("pass")), on_fail="skip")
    assert passing.execute(context())["verdict"] == "pass"


@pytest.mark.parametrize(
    ("verdict", "skipped"),
    [("pass", {"alarm.call", "mail"}), ("borderline", {"alarm.call", "mail"}), ("fail", {"publish", "archive"})],
)
def test_validate_branches_where_that_was_asked_for(stand_in: StandIn, verdict: str, skipped: set[str]) -> None:
    with DAG("nightly"):
        python = stand_in(judged(verdict))
        task = operator(VaeValidateOperator, python, "judge", on_fail="branch", fail_branch="['alarm', 'mail']")
        publish, archive, mail = (EmptyOperator(task_id=name) for name in ("publish", "archive", "mail"))
        with TaskGroup("alarm") as alarm:
            EmptyOperator(task_id="call") >> EmptyOperator(task_id="note")
        task >> [publish, archive, mail, alarm]
    instance = FakeTaskInstance(task)
    with pytest.raises(DownstreamTasksSkipped) as skipping:
        task.execute(context(ti=instance))
    assert {name for name, _ in skipping.value.tasks} == skipped
    assert instance.xcoms["return_value"]["verdict"] == verdict


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_fail": "explode"}, "on_fail expects one of 'fail', 'skip', 'branch', got 'explode'"),
        ({"on_fail": "branch"}, "needs fail_branch"),
        ({"fail_branch": ["mail"]}, "needs fail_branch"),
    ],
)
def test_a_refusal_that_makes_no_sense_is_refused_before_anything_runs(
    stand_in: StandIn, arguments: dict[str, Any], message: str
) -> None:
    task = operator(VaeValidateOperator, stand_in("raise SystemExit('ran')"), **arguments)
    with pytest.raises(AirflowFailException, match=message):
        task.execute(context())


def test_a_branch_that_is_not_behind_the_task_is_named(stand_in: StandIn) -> None:
    with DAG("nightly"):
        task = operator(VaeValidateOperator, stand_in(judged("fail")), on_fail="branch", fail_branch=["elsewhere"])
        EmptyOperator(task_id="elsewhere")
    with pytest.raises(AirflowFailException, match="'elsewhere' is none of them"):
        task.execute(context(ti=FakeTaskInstance(task)))


class FakeOutletEvents(defaultdict[str, Any]):
    """The events that a task will send, by asset."""

    def __init__(self) -> None:
        super().__init__(lambda: SimpleNamespace(extra={}))

    def __getitem__(self, asset: Asset) -> Any:
        return super().__getitem__(asset.name)


def test_publish_tells_its_outlets(stand_in: StandIn) -> None:
    asset = Asset("augmented")
    task = operator(VaePublishOperator, stand_in(f"emit('result', value={PUBLISHED | {'more': 1}!r})"), outlets=[asset])
    events = FakeOutletEvents()
    assert task.execute(context(outlet_events=events))["more"] == 1
    assert events[asset].extra == PUBLISHED


def test_a_snapshot_comes_back_out_of_the_newest_event() -> None:
    events = {
        "asset": [SimpleNamespace(extra={**PUBLISHED, "verdict": "borderline"}), SimpleNamespace(extra=PUBLISHED)]
    }
    assert PublishedSnapshot.from_events(events) == PublishedSnapshot.from_record(PUBLISHED)
    assert PublishedSnapshot.from_events({}) is None


def run_id_of(task_id: str = "augment.train", **where: str) -> str:
    name: str = operator(VaeTrainOperator, task_id=task_id).spec(context(**where))["run_id"]
    return name


def test_tasks_of_one_group_and_run_share_a_run_id_and_no_others_do() -> None:
    assert run_id_of("augment.train") == run_id_of("augment.publish")
    others = {run_id_of(), run_id_of("other.train"), run_id_of(run_id="manual__2"), run_id_of(dag_id="weekly")}
    assert len(others) == 4
    # Both are written "a-b", so only the digest tells them apart.
    assert run_id_of(run_id="a+b") != run_id_of(run_id="a:b")


@pytest.mark.parametrize("run_id", ["scheduled__2026-01-01T02:00:00+00:00", "../../etc", "ünï/ço dé", "x" * 250, "."])
def test_run_ids_are_names_the_store_takes(run_id: str) -> None:
    from vae_ops.storage import locate
    from vae_ops.store import Store

    assert Store(locate("store")).run(run_id_of(run_id=run_id, dag_id="-d"))


def test_a_given_run_id_stays() -> None:
    assert operator(VaeTrainOperator, run_id="mine").spec(context())["run_id"] == "mine"


def mirror(store: Any, interval_seconds: float) -> ProgressMirror:
    return ProgressMirror(logging.getLogger("test"), store, interval_seconds=interval_seconds)


def test_progress_is_thinned_but_begins_and_ends_in_full(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "test")
    store = FakeStateStore()
    shown = mirror(store, 3600)
    for fraction in (0.1, 0.2, 0.3, 1.0):
        shown(Progress("train", fraction, "loss 1.0", {"loss": 1.0}))
    assert [value["fraction"] for _, value in store.values] == [0.1, 1.0]
    assert store.values[0] == (
        "progress",
        {"step": "train", "fraction": 0.1, "message": "loss 1.0", "values": {"loss": 1.0}},
    )
    assert [r.getMessage() for r in caplog.records] == ["train  10 %  loss 1.0", "train 100 %  loss 1.0"]


def test_progress_needs_no_state_store_and_survives_a_broken_one(caplog: pytest.LogCaptureFixture) -> None:
    mirror(None, 0)(Progress("train", 0.0, "reading"))
    shown = mirror(FakeStateStore(broken=True), 0)
    shown(Progress("train", 0.1, "a"))
    shown(Progress("train", 0.2, "b"))
    assert sum("takes no progress" in r.getMessage() for r in caplog.records) == 1


def test_the_group_is_five_tasks_in_a_row() -> None:
    with DAG("nightly") as dag:
        group = VaeAugmentation("augment", source="in", output="out", shards=3, asset="table")
    names = [f"augment.{step}" for step in ("profile", "train", "generate", "validate", "publish")]
    assert list(dag.task_dict) == names
    for before, after in itertools.pairwise(names):
        assert dag.task_dict[before].downstream_task_ids == {after}
    assert dag.task_dict["augment.publish"].outlets == [group.asset] == [Asset("table")]
    assert dag.task_dict["augment.generate"].is_mapped


def test_the_groups_asset_has_a_name_of_its_own_unless_given() -> None:
    with DAG("nightly"):
        assert VaeAugmentation("a", source="in", output="out").asset == Asset("nightly.a")
        given = Asset(uri="s3://lake/table")
        assert VaeAugmentation("b", source="in", output="out", asset=given).asset is given


def test_the_group_hands_everything_to_every_task() -> None:
    defaults = {"retries": 4, "execution_timeout": timedelta(minutes=1)}
    with DAG("nightly") as dag:
        VaeAugmentation(
            source="in", output="out", store="st", rows=5, target="b", exclude=["a"], seed=1, time_budget_seconds=9,
            refresh="retrain", settings={"train": {"seed": 2}}, python="/py", default_args=defaults,
        )  # fmt: skip
    for task in dag.tasks:
        if task.is_mapped:
            continue
        assert task.retries == 4
        spec = task.spec(context())
        assert (spec["source"], spec["output"], spec["store"], task.python) == ("in", "out", "st", "/py")
        assert (spec["settings"]["read"]["exclude"], spec["settings"]["read"]["seed"]) == (["a"], 1)
        assert spec["settings"]["refresh"]["mode"] == "retrain"
        assert (spec["settings"]["train"]["seed"], spec["settings"]["generate"]["rows"]) == (2, 5)
        assert spec["settings"]["utility"]["target"] == "b"


def test_the_form_has_a_template_for_each_field_and_help_for_all() -> None:
    params = augmentation_params(source="in", output="out")
    assert augmentation_templates().keys() == params.keys()
    assert all(param.description and param.schema["title"] for param in params.values())
    assert {name: param.resolve() for name, param in params.items()}["rows"] is None


@pytest.mark.parametrize("ratio", [None, "auto", "2", "0.5", " 1. ", 0, 2.5])
def test_the_form_takes_auto_and_numbers_as_a_ratio(ratio: Any) -> None:
    param = augmentation_params(source="in", output="out")["ratio"]
    settings = parse_settings({"generate": {"ratio": str(param.resolve(ratio))}})
    assert settings.generate.ratio == (ratio if ratio in {None, "auto"} else float(ratio))


@pytest.mark.parametrize(
    ("name", "value"),
    [("rows", -1), ("rows", 1.5), ("rows", "5"), ("ratio", -0.1), ("ratio", "some"), ("ratio", "-1"), ("target", ""),
     ("source", ""), ("exclude", "a"), ("seed", -1),
     ("exclude", ["a", "a"]), ("time_budget_seconds", 0), ("settings", [])],
)  # fmt: skip
def test_the_form_refuses_nonsense(name: str, value: Any) -> None:
    with pytest.raises(ParamValidationError):
        augmentation_params(source="in", output="out")[name].resolve(value)
