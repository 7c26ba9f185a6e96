"""`make demo`: one nightly run under a real Airflow, from a Parquet table to a validated snapshot, and its worth.

    make demo                              a table that comes with scikit-learn
    make demo SOURCE=path/to/table.parquet any other; TARGET=column is what to predict (else the last column)
    make demo TIME_BUDGET=60               seconds of training (else 30)

The DAGs are those of `dags/`, run by Airflow's own `dag.test()` in this process: no server, no scheduler. The scores
at the end come from `dags/train_on_augmented.py`, whose docstring says how far to trust them.
"""

import os
import sys
import textwrap
import time
from typing import Any

from local_airflow import ROOT, configure, migrate, provide_source

_INDENT = " " * 10


def main() -> None:
    """Runs both DAGs and prints a summary; the exit code is 1 if one of them failed."""
    started = time.monotonic()
    configure(
        provide_source(),
        AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
        AIRFLOW__LOGGING__NAMESPACE_LEVELS="airflow.task.operators.vae_ops_provider=INFO, py.warnings=ERROR",
        AIRFLOW__LOGGING__LOG_FORMAT="  %(message)s",
    )
    print(f"source  {os.environ['VAE_OPS_SOURCE']}\nstarting an Airflow on SQLite …", flush=True)
    migrate()
    sys.path.insert(0, str(ROOT / "dags"))

    night = _run("nightly_augmentation", {"time_budget_seconds": float(os.environ.get("TIME_BUDGET") or 30)})
    training = _run("train_on_augmented", {"target": os.environ["TARGET"]} if os.environ.get("TARGET") else {})
    _print_summary(night, training)
    print(f"\n{time.monotonic() - started:.0f} s in all")


def _run(dag_id: str, conf: dict[str, Any]) -> Any:
    import importlib

    from airflow.sdk import DagRunState

    print(f"running the DAG {dag_id} …", flush=True)
    dag = importlib.import_module(dag_id).dag
    for task in dag.tasks:
        task.retries = 0  # a person is waiting; at night the five minutes between tries cost nothing
    run = dag.test(run_conf=conf)
    if run.state != DagRunState.SUCCESS:
        failed = ", ".join(t.task_id for t in run.get_task_instances() if t.state == "failed")
        sys.exit(f"The DAG {dag_id} failed in {failed}; the reason stands above.")
    return run


def _print_summary(night: Any, training: Any) -> None:
    train, verdict, published = (_record(night, f"augment.{step}") for step in ("train", "validate", "publish"))
    scores = _record(training, "compare")
    print(f"\nverdict   {verdict['verdict']}")
    for name, value in sorted(verdict["metrics"].items()):
        print(f"          {name:<28} {value:8.3f}{_floor(verdict['noise_floor'].get(name))}")
    for reason in verdict["reasons"]:
        print(textwrap.fill(reason, width=110, initial_indent=_INDENT, subsequent_indent=_INDENT))
    print(f"rows      {published['rows_source']} real + {published['rows_synthetic']} synthetic")
    print(f"snapshot  {published['snapshot_path']}")
    print(f"report    {published['report_path']}")
    print(f"model     {_model_path(published['model_version'])}")
    print(f"          {train['steps']} steps, stopped by {train['stopped_by']}")
    print(f"worth     {_worth(scores['real'], 'real rows')}, {_worth(scores['augmented'], 'real and synthetic rows')}")
    print(f"          predicting {scores['real']['target']!r} on {scores['real']['test_rows']} held-out real rows")
    print(f"seconds   {', '.join(f'{task} {seconds:.1f}' for task, seconds in _durations(night, training))}")


def _record(run: Any, task_id: str) -> dict[str, Any]:
    record: dict[str, Any] = run.get_task_instance(task_id).xcom_pull(task_ids=task_id)
    return record


def _floor(value: float | None) -> str:
    return "" if value is None else f"   (real against real {value:.3f})"


def _worth(score: dict[str, Any], rows: str) -> str:
    return f"{score['metric']} {score['score']:.4f} from {score['rows']} {rows}"


def _model_path(version: str) -> str:
    from vae_ops.storage import locate
    from vae_ops.store import Output, Store

    output = Output(locate(os.environ["VAE_OPS_OUTPUT"]))
    return str(Store(output.default_store).model(version).uri)


def _durations(*runs: Any) -> list[tuple[str, float]]:
    tasks = sorted((task for run in runs for task in run.get_task_instances()), key=lambda task: task.start_date)
    return [(f"{task.task_id.removeprefix('augment.')}{_shard(task)}", task.duration or 0.0) for task in tasks]


def _shard(task: Any) -> str:
    return "" if task.map_index < 0 else f"[{task.map_index}]"


if __name__ == "__main__":
    main()
