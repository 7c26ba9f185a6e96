"""The example DAGs run whole, with a real engine and very few training steps, by Airflow's own `dag.test()`.

One process for all of them: the first `dag.test()` takes half a minute, the next ones a second.
"""

import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup

from vae_ops import load_latest
from vae_ops.settings import GateSettings
from vae_ops_provider.operators import VaeValidateOperator

StandIn = Callable[[str], str]

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAGS = Path(__file__).parents[2] / "dags"
ANY_GATE = {field.name: "off" for field in dataclasses.fields(GateSettings) if field.name.startswith("max_")}
NO_GATE = {"max_dependence_error_percent": 0, "max_column_error_percent": 0, "max_mean_shift_sd": 0, "borderline": 1}


@pytest.fixture(scope="module", autouse=True)
def airflow() -> Iterator[None]:
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
    sys.path.insert(0, str(DAGS))
    yield
    sys.path.remove(str(DAGS))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    amount = rng.lognormal(3, 1, 400)
    table = pa.table(
        {
            "id": pa.array(range(400)),
            "amount": pa.array(amount, mask=rng.random(400) < 0.05),
            "kind": pa.array(rng.choice(["a", "b"], 400)).dictionary_encode(),
            "large": pa.array(amount + rng.normal(0, 5, 400) > 25),
        },
        metadata={"owner": "tests"},
    )
    path = tmp_path_factory.mktemp("source") / "table.parquet"
    pq.write_table(table, path)
    return path


def run(dag_id: str, **conf: Any) -> Any:
    # Parsed anew for each run, as a worker does: a DAG object keeps the params of its last `dag.test()`.
    dag = importlib.reload(importlib.import_module(dag_id)).dag
    return dag.test(run_conf={name: str(value) if isinstance(value, Path) else value for name, value in conf.items()})


def states(dag_run: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for task in dag_run.get_task_instances():
        found.setdefault(task.task_id.removeprefix("augment."), []).append(str(task.state))
    return found


def record(dag_run: Any, task_id: str) -> Any:
    return dag_run.get_task_instance(task_id).xcom_pull(task_ids=task_id)


def settings(gate: dict[str, Any]) -> dict[str, Any]:
    return {"train": {"steps": 30, "hidden_units": 16}, "gate": gate}


@pytest.fixture(scope="module")
def night(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    output = tmp_path_factory.mktemp("output") / "augmented"
    return run(
        "nightly_augmentation", source=source, output=output, rows=300, exclude=["id"], seed=7,
        settings=settings(ANY_GATE),
    ), output  # fmt: skip


def test_the_nightly_dag_publishes_a_snapshot(night: tuple[Any, Path], source: Path) -> None:
    dag_run, output = night
    assert states(dag_run) == {
        "profile": ["success"], "train": ["success"], "generate": ["success", "success"], "validate": ["success"],
        "publish": ["success"],
    }  # fmt: skip
    latest, published = load_latest(output), record(dag_run, "augment.publish")
    assert (latest.snapshot_path, latest.rows_source, latest.rows_synthetic) == (published["snapshot_path"], 400, 300)
    rows, real = pq.read_table(latest.snapshot_path), pq.read_table(source).drop_columns(["id"])
    assert rows.schema.field("_is_synthetic").type == pa.bool_()
    assert rows.drop_columns(["_is_synthetic"]).schema.equals(real.schema, check_metadata=True)
    assert rows.slice(0, 400).drop_columns(["_is_synthetic"]).equals(real)


def test_the_manifest_names_the_dag_run(night: tuple[Any, Path]) -> None:
    dag_run, output = night
    manifest = json.loads((Path(load_latest(output).snapshot_path) / "_manifest.json").read_text())
    assert manifest["labels"] == {"airflow_dag_id": "nightly_augmentation", "airflow_run_id": dag_run.run_id}
    assert manifest["settings"]["train"]["seed"] == 7


def test_the_event_carries_what_a_consumer_needs(night: tuple[Any, Path]) -> None:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    dag_run, _ = night
    with create_session() as session:
        event = session.query(AssetEvent).filter_by(source_run_id=dag_run.run_id).one()
        assert (event.source_task_id, event.extra) == ("augment.publish", record(dag_run, "augment.publish"))


def test_progress_stays_in_the_task_state_store(night: tuple[Any, Path]) -> None:
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    dag_run, _ = night
    with create_session() as session:
        rows = session.query(TaskStateStoreModel).filter_by(run_id=dag_run.run_id, key="progress").all()
        assert {row.task_id.removeprefix("augment.") for row in rows} == set(states(dag_run))


def test_training_on_the_newest_snapshot_compares_both_scores(night: tuple[Any, Path]) -> None:
    dag_run = run("train_on_augmented", output=night[1])
    assert {state for found in states(dag_run).values() for state in found} == {"success"}
    scores = record(dag_run, "compare")
    assert (scores["real"]["target"], scores["real"]["metric"]) == ("large", "AUC")
    # A tenth of 400 rows is held out, within three standard deviations.
    assert scores["real"]["test_rows"] == pytest.approx(40, abs=18)
    assert scores["real"]["rows"] == 400 - scores["real"]["test_rows"]
    assert scores["augmented"]["rows"] == scores["real"]["rows"] + 300
    # The label is the amount and a little noise, so learning from real rows has to show.
    assert scores["real"]["score"] > 0.8


def test_a_gate_that_says_no_fails_the_task_and_publishes_nothing(source: Path, tmp_path: Path) -> None:
    output, store = tmp_path / "out", tmp_path / "out" / "_store"
    dag_run = run("nightly_augmentation", source=source, output=output, rows=100, settings=settings(NO_GATE))
    found = states(dag_run)
    assert (found["validate"], found["publish"]) == (["failed"], ["upstream_failed"])
    assert not (output / "_latest.json").exists()
    assert list(store.glob("runs/*/candidate"))

    # The training DAG finds the generator's holdout again by its rows; here the run still has it.
    holdout = importlib.import_module("train_on_augmented")._holdout(pq.read_table(source), {"seed": 0})
    with pa.ipc.open_file(next(store.glob("runs/*/holdout.arrow"))) as kept:
        assert kept.read_all().column("id").to_pylist() == holdout.tolist()


def _make_known(dag: DAG) -> None:
    """Does what parsing a file in the DAGs folder would: `dag.test()` runs no DAG that the database does not know."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    bag = DagBag(collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


@pytest.mark.parametrize(
    ("on_fail", "verdict", "reached"),
    [
        ("skip", "fail", set()),
        ("branch", "fail", {"judge", "alarm.call", "alarm.note"}),
        ("branch", "borderline", {"judge", "publish"}),
    ],
)
def test_a_gate_that_says_no_skips_or_branches_where_that_was_asked_for(
    stand_in: StandIn, on_fail: str, verdict: str, reached: set[str]
) -> None:
    python = stand_in(f"emit('result', value={{'verdict': {verdict!r}, 'reasons': ['Shapes are off.']}})")
    with DAG(f"{on_fail}_when_{verdict}") as dag:
        judge = VaeValidateOperator(
            task_id="judge", source="in", output_dir="out", python=python, on_fail=on_fail,
            fail_branch=["alarm"] if on_fail == "branch" else [],
        )  # fmt: skip
        with TaskGroup("alarm") as alarm:
            EmptyOperator(task_id="call") >> EmptyOperator(task_id="note")
        judge >> [EmptyOperator(task_id="publish"), alarm]
    _make_known(dag)
    dag_run = dag.test()
    found = states(dag_run)
    assert {name for name, state in found.items() if state == ["success"]} == reached
    assert {name for name, state in found.items() if state == ["skipped"]} == set(found) - reached
    assert record(dag_run, "judge")["verdict"] == verdict


def test_where_no_dose_is_proven_to_help_the_shards_are_empty_and_the_source_is_published(
    source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    dag_run = run(
        "nightly_augmentation", source=source, output=output, ratio="auto", target="large", settings=settings(ANY_GATE)
    )
    assert {state for found in states(dag_run).values() for state in found} == {"success"}
    latest = load_latest(output)
    assert (latest.rows_source, latest.rows_synthetic) == (400, 0)
    assert pq.read_table(latest.snapshot_path).drop_columns(["_is_synthetic"]).equals(pq.read_table(source))
    (evidence,) = output.glob("_store/runs/*/utility.json")
    assert "raise read.holdout_fraction" in json.loads(evidence.read_text())["not_measured"]


def test_bad_input_fails_at_once_and_for_good(tmp_path: Path) -> None:
    output = tmp_path / "out"
    dag_run = run("nightly_augmentation", source=tmp_path / "missing.parquet", output=output)
    profile = dag_run.get_task_instance("augment.profile")
    assert (str(profile.state), profile.try_number, profile.max_tries) == ("failed", 1, 2)
    assert not output.exists()
