"""A worker without a scheduler: Airflow's own supervisor and task process, for tests that kill them.

Reads one JSON object a line. `{"dag_id", "folder"}` supervises the task `step` of DAG_ID.py in a forked child, and is
answered with the child's process id; `{"child", "folder"}` is answered with how that child ended and the states that
it told the API. The API is a stand-in; once `folder` holds a file `marked-failed`, it refuses heartbeats as the real
one does for a task that somebody marked.
"""

import json
import os
import signal
import sys
import traceback
import uuid
from pathlib import Path

import httpx
from airflow.sdk.api.client import Client
from airflow.sdk.api.datamodels._generated import BundleInfo, TaskInstance
from airflow.sdk.execution_time.supervisor import supervise_task

from vae_ops.progress import only_results_on_stdout

STATES = "states.jsonl"
MARK = "marked-failed"


def supervise(folder: Path, dag_id: str) -> int:
    """Runs the task to its end, as an executor does."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/run"):
            now = "2026-01-01T00:00:00Z"
            dag_run = {
                "dag_id": dag_id, "run_id": "r", "run_type": "manual", "state": "running", "consumed_asset_events": [],
                "logical_date": now, "start_date": now, "run_after": now, "end_date": None, "partition_key": None,
                "data_interval_start": None, "data_interval_end": None,
            }  # fmt: skip
            return httpx.Response(200, json={"dag_run": dag_run, "max_tries": 1, "should_retry": True})
        if path.endswith("/heartbeat") and (folder / MARK).exists():
            return httpx.Response(409, json={"detail": {"reason": "not_running", "current_state": "failed"}})
        if path.endswith("/state") and request.method == "PATCH":
            with (folder / STATES).open("ab") as states:
                states.write(request.content + b"\n")
        return httpx.Response(200, json={"ok": True})

    task = TaskInstance(
        id=uuid.uuid4(), task_id="step", dag_id=dag_id, run_id="r", try_number=1, dag_version_id=uuid.uuid4()
    )
    client = Client(base_url=None, dry_run=True, token="", transport=httpx.MockTransport(answer))
    return supervise_task(
        ti=task,
        bundle_info=BundleInfo(name="dags-folder"),
        dag_rel_path=f"{dag_id}.py",
        token="",
        client=client,
        log_path=str(folder / "task.log"),
    )


def start(folder: str, dag_id: str) -> int:
    """Supervises in a forked child, whose process id is returned."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    code = 70
    try:
        code = supervise(Path(folder), dag_id)
    except Exception:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)  # a fork must never come back to reading requests


def wait(child: int, folder: str) -> dict[str, object]:
    """How a child ended, and what it said about its task."""
    _, status = os.waitpid(child, 0)
    states = Path(folder, STATES)
    lines = states.read_text().splitlines() if states.exists() else []
    return {"status": os.waitstatus_to_exitcode(status), "states": [json.loads(line) for line in lines]}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with only_results_on_stdout() as answers:
        for line in sys.stdin:
            request = json.loads(line)
            said = wait(**request) if "child" in request else start(**request)
            answers.write(json.dumps(said) + "\n")
            answers.flush()
