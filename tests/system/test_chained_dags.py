"""DAGs that start each other under a real scheduler: through an alias, through partitions, past a person."""

import urllib.parse
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.stand_in_interpreter import write_interpreter
from tests.stand_in_model import some_rows
from tests.system.airflow_server import ANY_GATE, TINY, AirflowServer
from vae_ops import load_latest

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

KEY = "2026-11-23"
# The stand-in copies training rows: far more than the limit, and the factor makes that borderline.
BORDERLINE = {"gate": {**ANY_GATE["gate"], "max_copy_excess_percent": 60, "borderline": 100}}


def run_started_by(server: AirflowServer, dag_id: str, since: set[str]) -> dict[str, Any]:
    """Waits for a DAG to have been started by an asset event, and for the end of that run."""

    def started() -> dict[str, Any] | None:
        runs = [run for run in server.api.runs(dag_id) if run["dag_run_id"] not in since]
        return next((run for run in runs if run["run_type"] == "asset_triggered"), None)

    run: dict[str, Any] = server.services.wait_until(started, 120, f"a run of {dag_id}")
    assert server.wait_for_run(dag_id, run["dag_run_id"]) == "success"
    return run


def wait_for_scheduler_to_see_the_wait(server: AirflowServer, run_id: str) -> None:
    """Waits until an answer is safe: one that overtakes the executor's own event fails the task in Airflow 3.3.2."""
    seen = f"TaskInstance Finished: dag_id=partitioned_tables, task_id=augment.approve, run_id={run_id},"
    log = server.logs / "scheduler.log"
    server.services.wait_until(lambda: seen in log.read_text("utf-8", "replace"), 60, "the scheduler at rest")


def test_a_partition_waits_for_a_person_and_starts_its_reader(airflow_server: AirflowServer, tmp_path: Path) -> None:
    api, output = airflow_server.api, tmp_path / "out"
    source = tmp_path / "table.parquet"
    pq.write_table(some_rows(400), source)
    conf = {
        "source": str(source), "output": str(output), "python": write_interpreter(tmp_path), "settings": BORDERLINE,
    }  # fmt: skip
    body = {"logical_date": None, "partition_key": KEY, "conf": conf}
    run_id = str(api.send("POST", "/dags/partitioned_tables/dagRuns", body)["dag_run_id"])
    airflow_server.wait_for_task("partitioned_tables", run_id, "augment.approve", {"awaiting_input", "deferred"})
    wait_for_scheduler_to_see_the_wait(airflow_server, run_id)
    assert not (output / f"partition={KEY}" / "_latest.json").exists()

    instance = (
        f"/dags/partitioned_tables/dagRuns/{urllib.parse.quote(run_id, safe='')}/taskInstances/augment.approve/-1"
    )
    assert "equal a training row" in api.send("GET", f"{instance}/hitlDetails")["body"]
    api.send("PATCH", f"{instance}/hitlDetails", {"chosen_options": ["Approve"]})
    assert airflow_server.wait_for_run("partitioned_tables", run_id) == "success"
    latest = load_latest(output / f"partition={KEY}")
    assert latest.verdict == "borderline"

    reader = run_started_by(airflow_server, "read_partitions", set())
    assert reader["partition_key"] == KEY
    read = api.record("read_partitions", reader["dag_run_id"], "read_event")
    assert read == {"key": KEY, "snapshot_path": latest.snapshot_path}


def test_training_starts_by_itself_on_whatever_output_was_published_to(
    airflow_server: AirflowServer, tmp_path: Path
) -> None:
    api = airflow_server.api
    before = {run["dag_run_id"] for run in api.runs("train_on_augmented")}
    run_id = api.trigger("nightly_augmentation", rows=50, output=tmp_path / "typed", settings=TINY | ANY_GATE)
    assert airflow_server.wait_for_run("nightly_augmentation", run_id) == "success"
    training = run_started_by(airflow_server, "train_on_augmented", before)
    read = api.record("train_on_augmented", training["dag_run_id"], "find_snapshot")
    assert read == load_latest(tmp_path / "typed").snapshot_path
