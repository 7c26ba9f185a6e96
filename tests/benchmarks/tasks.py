"""What running a step as an Airflow task costs, and what a retry saves: one JSON object on stdout.

`overhead`: median seconds of a task by `dag.test()`: an operator that does nothing; ours with a shell script in the
place of Python, which answers at once; ours with the real engine profiling ten rows. `retry`: seconds of a training
from nothing, and of the try after one that was killed; their models must be the same.

python tests/benchmarks/tasks.py [overhead] [retry] [--repeats 5] [--steps 2000] [--kill-at 0.8]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
ROWS = 20_000
KINDS = ("empty", "shell", "engine")


def main() -> None:
    """Measures what was asked for and prints it."""
    options = _parse_arguments()
    with tempfile.TemporaryDirectory(prefix="vae-ops-tasks-") as scratch:
        folder = Path(scratch)
        measures = {"overhead": _overhead, "retry": _retry}
        chosen = options.what or list(measures)
        print(json.dumps({name: measures[name](folder, options) for name in chosen}, indent=1))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="overhead, retry (default: both)")
    parser.add_argument("--repeats", type=int, default=5, help="tasks of each kind")
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps of the training")
    parser.add_argument("--kill-at", type=float, default=0.8, help="share of the training that the killed try does")
    return parser.parse_args()


# --- retry -------------------------------------------------------------------------------------------------------


def _retry(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    source = _write_rows(folder / "rows.parquet", ROWS)
    runs = {name: _spec(source, folder / name, options.steps) for name in ("whole", "killed")}
    for spec in runs.values():
        _run("profile", spec)
    whole, seconds_whole = _run("train", runs["whole"])
    _, seconds_killed = _run("train", runs["killed"], kill_at=options.kill_at)
    retried, seconds_retried = _run("train", runs["killed"])
    return {
        "seconds_from_nothing": seconds_whole,
        "seconds_until_killed": seconds_killed,
        "seconds_of_the_retry": seconds_retried,
        "steps": [whole["steps"], retried["steps"]],
        "stopped_by": [whole["stopped_by"], retried["stopped_by"]],
        "same_model": whole["model_version"] == retried["model_version"],
    }


def _spec(source: Path, output: Path, steps: int) -> dict[str, Any]:
    # Not a time budget: on a busy machine its safety stop would end the two trainings at different steps.
    settings = {"train": {"steps": steps}}
    return {"source": str(source), "output": str(output), "run_id": "measured", "settings": settings}


def _run(step: str, spec: dict[str, Any], *, kill_at: float = 1.0) -> tuple[dict[str, Any], float]:
    """Record and seconds of a step; the record of a killed one is empty."""
    from vae_ops.errors import StepFailedError
    from vae_ops.progress import Progress
    from vae_ops_provider.process import StepProcess

    def hear(progress: Progress) -> None:
        if kill_at <= progress.fraction < 1.0:
            for child in psutil.Process().children():
                child.kill()

    begin = time.perf_counter()
    record: dict[str, Any] = {}
    try:
        record = StepProcess(step, spec).run(on_progress=hear, on_chatter=lambda line: None)
    except StepFailedError:
        if kill_at == 1.0:
            raise
    return record, round(time.perf_counter() - begin, 1)


def _write_rows(path: Path, rows: int) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    city = np.array(["Graz", "Linz", "Wien"])[np.digitize(x, [-0.5, 0.5])]
    pq.write_table(pa.table({"x": np.round(x, 3), "city": city, "n": rng.poisson(np.exp(x))}), path)
    return path


# --- overhead ----------------------------------------------------------------------------------------------------


def _overhead(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    os.environ.update(
        AIRFLOW_HOME=str(folder / "airflow"),
        AIRFLOW__CORE__DAGS_FOLDER=str(folder),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
    )
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = _task_seconds(folder, options.repeats)
    medians = {kind: statistics.median(seconds[kind]) for kind in KINDS}
    return {
        **{f"seconds_{kind}": round(median, 3) for kind, median in medians.items()},
        "seconds_of_the_operator": round(medians["shell"] - medians["empty"], 3),
        "seconds_of_operator_and_engine": round(medians["engine"] - medians["empty"], 3),
    }


def _task_seconds(folder: Path, repeats: int) -> dict[str, list[float]]:
    """How long each task ran, as Airflow records it; the first of each kind warms up and does not count."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.sdk import DAG, BaseOperator, Context

    from vae_ops_provider.operators import VaeProfileOperator

    class Empty(BaseOperator):
        def execute(self, context: Context) -> None:
            pass

    shell = folder / "answers-at-once"
    shell.write_text('#!/bin/sh\necho \'{"event": "result", "value": {"rows": 10}}\'\n')
    shell.chmod(0o755)
    source = str(_write_rows(folder / "ten.parquet", 10))
    with DAG("overhead") as dag:
        for number in range(repeats + 1):
            Empty(task_id=f"empty_{number}")
            common: dict[str, Any] = {"source": source, "output_dir": str(folder / f"out_{number}")}
            VaeProfileOperator(task_id=f"shell_{number}", python=str(shell), **common)
            VaeProfileOperator(task_id=f"engine_{number}", **common)
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)
    tasks = {task.task_id: task for task in dag.test().get_task_instances()}
    assert {str(task.state) for task in tasks.values()} == {"success"}
    took = {name: (task.end_date - task.start_date).total_seconds() for name, task in tasks.items()}
    return {kind: [took[f"{kind}_{number}"] for number in range(1, repeats + 1)] for kind in KINDS}


if __name__ == "__main__":
    main()
