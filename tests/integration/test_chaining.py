"""Partitions, aliases and approval, by Airflow's own `dag.test()`, with a model that needs no network.

The steps run in this process, which spares each of them its imports; that they do not elsewhere is tested elsewhere.
Consumers that start by themselves need a scheduler: `tests/system/test_chained_dags.py`.
"""

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG, Asset, AssetAlias, Param

from tests.stand_in_model import StandInModel, some_rows
from vae_ops import load_latest, steps, walk
from vae_ops.records import StepSpec
from vae_ops.settings import GateSettings
from vae_ops_provider import operators
from vae_ops_provider.task_group import VaeAugmentation

pytestmark = [pytest.mark.airflow]

DAGS = Path(__file__).parents[2] / "dags"
OFF = {field.name: "off" for field in dataclasses.fields(GateSettings) if field.name.startswith("max_")}
ANY_GATE = {"gate": OFF}
# The stand-in copies training rows: half a percent of copies is far exceeded, and the factor makes that borderline.
BORDERLINE = {"gate": {**OFF, "max_copy_excess_percent": 60, "borderline": 100}}
NO_GATE = {"gate": {**OFF, "max_copy_excess_percent": 1, "borderline": 1}}
KEY = "2026-11-23T02:00:00/Zürich"
BELOW = "partition=2026-11-23T02%3A00%3A00%2FZ%C3%BCrich"


@pytest.fixture(scope="module", autouse=True)
def airflow() -> None:
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    DagBundlesManager().sync_bundles_to_db()


class StepHere:
    """A `StepProcess` without the process."""

    peak_bytes = 0

    def __init__(self, step: str, spec: Mapping[str, Any], **_: Any) -> None:
        self._verb = getattr(steps, step)
        self._spec = StepSpec.from_dict({name: value for name, value in spec.items() if name != "storage_options"})

    def run(self, **_: Any) -> dict[str, Any]:
        record: dict[str, Any] = self._verb(self._spec).to_dict()
        return record


@pytest.fixture(scope="module", autouse=True)
def steps_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "StepProcess", StepHere)
        patch.setattr(walk, "default_engine", lambda: StandInModel)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("source") / "table.parquet"
    pq.write_table(some_rows(400), path)
    return str(path)


def known(dag: DAG) -> DAG:
    """Does what parsing a file in the DAGs folder would: `dag.test()` runs no DAG that the database does not know."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    bag = DagBag(collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    return dag


def run(dag: DAG, key: str | None = None, *, started_by: int | None = None, **conf: Any) -> Any:
    """Runs a DAG as the scheduler would have, which `dag.test()` itself cannot.

    Args:
        dag: The DAG.
        key: Of the partition.
        started_by: Id of the asset event that starts the run.
        conf: What the trigger form says.
    """
    from airflow.models import dagrun
    from airflow.models.asset import AssetEvent

    create = dagrun.get_or_create_dagrun

    def scheduled(**arguments: Any) -> Any:
        created = create(**arguments)
        created.partition_key = key
        if started_by is not None:
            created.consumed_asset_events.append(arguments["session"].get(AssetEvent, started_by))
        arguments["session"].commit()
        return created

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dagrun, "get_or_create_dagrun", scheduled)
        return known(dag).test(run_conf=conf)


def states(dag_run: Any) -> dict[str, str]:
    return {task.task_id.removeprefix("augment."): str(task.state) for task in dag_run.get_task_instances()}


def events(dag_run: Any) -> list[Any]:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(AssetEvent).filter_by(source_run_id=dag_run.run_id, source_dag_id=dag_run.dag_id).all()
        return [(event.id, event.asset.uri, event.partition_key, event.extra) for event in found]


def files(directory: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in directory.glob("*.parquet")}
    assert found
    return found


def example_dag(name: str) -> DAG:
    """An example as a worker parses it, anew for each run: a DAG object keeps the params of its last one."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(DAGS / f"{name}.py"))
    assert not bag.import_errors
    return bag.dags[name]


def augmented(name: str, source: str, output: Path, **arguments: Any) -> DAG:
    with DAG(name) as dag:
        VaeAugmentation(source=source, output=str(output), rows=100, **{"settings": ANY_GATE, **arguments})
    return dag


def test_a_partition_has_a_place_and_a_mark_of_its_own_and_a_backfill_gives_its_bytes(
    source: str, tmp_path: Path
) -> None:
    dag = augmented("partitioned", source, tmp_path / "out", asset="partitioned_table")
    first = run(dag, KEY)
    assert set(states(first).values()) == {"success"}
    latest = load_latest(tmp_path / "out" / BELOW)
    snapshot = Path(latest.snapshot_path)
    assert snapshot.is_relative_to(tmp_path / "out" / BELOW)
    assert json.loads((snapshot / "_manifest.json").read_text())["partition"] == KEY
    assert not (tmp_path / "out" / "_latest.json").exists()
    for path in snapshot.glob("*.parquet"):
        assert pq.read_metadata(path).metadata[b"vae_ops.partition"].decode() == KEY
    # A directory named like a partition above the files adds no column to them.
    assert pq.read_table(snapshot).column_names == [*some_rows(1).column_names, "_is_synthetic"]
    ((_, _, key, extra),) = events(first)
    assert (key, extra["snapshot_path"]) == (KEY, str(snapshot))

    written = files(snapshot)
    other = run(augmented("partitioned_elsewhere", source, tmp_path / "again"), KEY)
    assert set(states(other).values()) == {"success"}
    backfill = run(dag, KEY)
    assert set(states(backfill).values()) == {"success"}
    assert files(Path(load_latest(tmp_path / "out" / BELOW).snapshot_path)) == written
    assert files(Path(load_latest(tmp_path / "again" / BELOW).snapshot_path)) == written


def test_partitions_lie_side_by_side_and_differ_by_their_key_alone(source: str, tmp_path: Path) -> None:
    dag = augmented("two_partitions", source, tmp_path / "out", store=str(tmp_path / "store"))
    for key in ("a", "b"):
        assert set(states(run(dag, key)).values()) == {"success"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["partition=a", "partition=b"]
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["partition=a", "partition=b"]
    found = [load_latest(tmp_path / "out" / f"partition={key}") for key in ("a", "b")]
    assert found[0].model_version == found[1].model_version
    assert found[0].snapshot_id != found[1].snapshot_id


def test_an_alias_becomes_the_output_that_the_run_was_started_with(source: str, tmp_path: Path) -> None:
    with DAG("alias", params={"output": Param(str(tmp_path / "typed into the form"), type="string")}) as dag:
        augmentation = VaeAugmentation(
            source=source, output="{{ params.output }}", rows=50, settings=ANY_GATE,
            asset=AssetAlias("whatever_was_published"),
        )  # fmt: skip
    assert augmentation.asset == AssetAlias("whatever_was_published")
    ((_, uri, _, extra),) = events(run(dag))
    assert uri == (tmp_path / "typed into the form").as_uri()
    assert extra["snapshot_path"] == load_latest(tmp_path / "typed into the form").snapshot_path


def test_training_reads_its_snapshot_from_the_event_and_not_the_newest_one(source: str, tmp_path: Path) -> None:
    example = example_dag("nightly_augmentation")
    arguments = {"source": source, "rows": 40, "settings": ANY_GATE}
    first = run(example, output=str(tmp_path / "first"), **arguments)
    ((event_id, *_, extra),) = events(first)
    second = run(example, output=str(tmp_path / "second"), **arguments)
    assert set(states(second).values()) == {"success"}
    trained = run(
        example_dag("train_on_augmented"), started_by=event_id, output=str(tmp_path / "second"), target="count"
    )
    assert set(states(trained).values()) == {"success"}
    read = trained.get_task_instance("find_snapshot").xcom_pull(task_ids="find_snapshot")
    assert read == extra["snapshot_path"] != load_latest(tmp_path / "second").snapshot_path


Answer = Callable[[DAG, str], Future[tuple[Any, int]]]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Airflow's own API, in this process, as seen by an administrator."""
    from airflow.api_fastapi.app import create_app, get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    app = create_app()
    token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="approver", role="admin"))
    with TestClient(app, headers={"Authorization": f"Bearer {token}"}) as found:
        yield found


@pytest.fixture
def answering(client: Any) -> Iterator[Answer]:
    """Answers the next question that a DAG asks, as a person would over REST; gives the question and the status."""
    over = threading.Event()

    def answer(dag: DAG, option: str) -> tuple[Any, int]:
        while not over.wait(0.2):
            waiting = client.get(f"/api/v2/dags/{dag.dag_id}/dagRuns/~/hitlDetails?state=awaiting_input").json()
            for detail in waiting["hitl_details"]:
                task = detail["task_instance"]
                where = f"dagRuns/{task['dag_run_id']}/taskInstances/{task['task_id']}/-1/hitlDetails"
                done = client.patch(f"/api/v2/dags/{dag.dag_id}/{where}", json={"chosen_options": [option]})
                return detail, done.status_code
        raise AssertionError("Nobody was asked.")

    with ThreadPoolExecutor(1) as people:
        yield lambda dag, option: people.submit(answer, dag, option)
        over.set()


def asking(name: str, source: str, output: Path, settings: Any, **arguments: Any) -> DAG:
    return augmented(name, source, output, settings=settings, approval="borderline", **arguments)


def test_a_borderline_snapshot_waits_for_approval(answering: Answer, source: str, tmp_path: Path) -> None:
    dag = known(asking("approved", source, tmp_path / "out", BORDERLINE))
    answer = answering(dag, "Approve")
    dag_run = run(dag)
    assert set(states(dag_run).values()) == {"success"}
    question, status = answer.result(timeout=60)
    assert status == 200
    assert question["subject"] == "Publish the snapshot of approved?"
    assert "**borderline**" in question["body"]
    assert "equal a training row" in question["body"]
    assert (
        f"/dags/approved/runs/{dag_run.run_id.replace(':', '%3A').replace('+', '%2B')}/tasks/augment.validate"
        in (question["body"])
    )
    assert load_latest(tmp_path / "out").verdict == "borderline"


def test_who_rejects_keeps_the_previous_snapshot(answering: Answer, source: str, tmp_path: Path) -> None:
    assert set(states(run(augmented("before", source, tmp_path / "out"))).values()) == {"success"}
    before = load_latest(tmp_path / "out")
    dag = known(asking("rejected", source, tmp_path / "out", BORDERLINE, seed=5, on_fail="skip"))
    answer = answering(dag, "Reject")
    dag_run = run(dag)
    assert answer.result(timeout=60)[1] == 200
    found = states(dag_run)
    assert (found["approve"], found["publish"], str(dag_run.state)) == ("success", "skipped", "success")
    assert load_latest(tmp_path / "out") == before
    assert events(dag_run) == []


def test_nobody_is_asked_about_a_pass_and_nobody_about_a_fail(source: str, tmp_path: Path) -> None:
    passing = states(run(asking("passing", source, tmp_path / "a", ANY_GATE)))
    assert (passing["approve"], passing["publish"]) == ("success", "success")
    failing = states(run(asking("failing", source, tmp_path / "b", NO_GATE, on_fail="skip")))
    assert (failing["validate"], failing["approve"], failing["publish"]) == ("skipped", "skipped", "skipped")


def test_rest_refuses_bad_values_of_the_form_with_the_schemas_message(client: Any) -> None:
    from vae_ops_provider.params import augmentation_params

    with DAG(
        "form", params=augmentation_params(source="in", output="out"), schedule=None, is_paused_upon_creation=False
    ) as dag:
        VaeAugmentation(source="in", output="out", asset=Asset("form"))
    known(dag)
    for name, value, said in [
        ("rows", -1, "-1 is less than the minimum of 0"),
        ("strictness", "severe", "'severe' is not one of ['standard', 'strict', 'lenient']"),
        ("refresh", "redo", "is not one of"),
        ("exclude", ["a", "a"], "non-unique"),
        ("time_budget_seconds", 0, "0 is less than or equal to the minimum of 0"),
        ("source", "", "'' should be non-empty"),
    ]:
        body = {"logical_date": None, "conf": {name: value}}
        refused = client.post("/api/v2/dags/form/dagRuns", json=body)
        assert refused.status_code == 400, (name, refused.text)
        assert said in refused.json()["detail"]
