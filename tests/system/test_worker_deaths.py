"""What is left of a step when its task, its worker or itself is ended: nothing, and one clear sentence.

Airflow's real supervisor and task process run without server (`lone_worker.py`). The step and a process that it
started, both deaf to SIGTERM, hold a named pipe open; its end is the moment when the last of them is gone.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system.lone_worker import MARK

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

StandIn = Callable[[str], str]
Ask = Callable[..., Any]

# Airflow gives a task five seconds between SIGTERM and SIGKILL, and each must be gone by then.
_PATIENCE_SECONDS = 5.0

DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG
from vae_ops_provider.operators import VaeTrainOperator
with DAG("{dag_id}"):
    VaeTrainOperator(task_id="step", source="{pipe}", output_dir="out", python="{python}", **{arguments})
"""

STEP = """
from vae_ops.lifeline import hold_lifeline
hold_lifeline()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pipe = os.open(SPEC["source"], os.O_WRONLY)
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"], pass_fds=[pipe])
os.write(pipe, f"{os.getppid()} {os.getpid()}\\n".encode())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dags")


@pytest.fixture(scope="module")
def ask(folder: Path) -> Iterator[Ask]:
    environment = {
        **os.environ,
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }
    command = [sys.executable, "-m", "tests.system.lone_worker"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None

        def talk(**request: Any) -> Any:
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
            return json.loads(worker.stdout.readline())

        yield talk
        worker.stdin.close()


class Scene:
    """One task under way: supervisor, task process, step and the step's own child."""

    def __init__(self, ask: Ask, folder: Path, dag_id: str, python: str, **arguments: str) -> None:
        self._ask = ask
        self._is_over = False
        self.folder = folder / dag_id
        self.folder.mkdir()
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        self._pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        shown = "{" + ", ".join(f"{name!r}: {value}" for name, value in arguments.items()) + "}"
        text = DAG_FILE.format(dag_id=dag_id, pipe=pipe, python=python, arguments=shown)
        (folder / f"{dag_id}.py").write_text(text)
        self.supervisor = ask(folder=str(self.folder), dag_id=dag_id)
        self.task, self.step = map(int, self._read(120).split())
        assert psutil.Process(self.task).ppid() == self.supervisor

    def _read(self, seconds: float) -> bytes:
        assert select.select([self._pipe], [], [], seconds)[0], self.log()
        return os.read(self._pipe, 4096)

    def ends(self) -> float:
        """Waits until the step and its child are gone; gives the seconds that took."""
        begin = time.monotonic()
        assert self._read(_PATIENCE_SECONDS + 10) == b""
        return time.monotonic() - begin

    def outcome(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(child=self.supervisor, folder=str(self.folder))
        self._is_over = True
        return found

    def close(self) -> None:
        """Leaves nothing of a scene that a failed assertion broke off."""
        os.close(self._pipe)
        if not self._is_over:
            for process in (self.supervisor, self.task, self.step):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def task_lives(self) -> bool:
        """Whether the task's process is still there a moment later; a killed orphan may stay a zombie for long."""
        try:
            process = psutil.Process(self.task)
            process.wait(timeout=_PATIENCE_SECONDS)
        except psutil.NoSuchProcess:
            return False
        except psutil.TimeoutExpired:
            return process.status() != psutil.STATUS_ZOMBIE
        return False

    def log(self) -> str:
        path = self.folder / "task.log"
        return path.read_text() if path.exists() else "no log"

    def litter(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"pipe", "task.log", "states.jsonl", MARK}


@pytest.fixture
def scene(ask: Ask, folder: Path, stand_in: StandIn, request: pytest.FixtureRequest) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(after: str = "time.sleep(600)", **arguments: str) -> Scene:
        dag_id = "".join(c if c.isalnum() else "_" for c in request.node.name)
        made.append(Scene(ask, folder, dag_id, stand_in(STEP + after), **arguments))
        return made[0]

    yield make
    for under_way in made:
        under_way.close()


@pytest.mark.parametrize("killed", [("task",), ("supervisor",), ("supervisor", "task")], ids="+".join)
def test_a_killed_worker_leaves_no_step(scene: Callable[..., Scene], killed: tuple[str, ...]) -> None:
    under_way = scene()
    for name in killed:
        os.kill(getattr(under_way, name), signal.SIGKILL)
    assert under_way.ends() < _PATIENCE_SECONDS
    under_way.outcome()
    assert not under_way.task_lives()
    assert under_way.litter() == set()


def test_a_worker_told_to_stop_ends_the_step_and_leaves_the_task_to_a_retry(scene: Callable[..., Scene]) -> None:
    under_way = scene()
    os.kill(under_way.supervisor, signal.SIGTERM)
    assert under_way.ends() < _PATIENCE_SECONDS
    assert [state["state"] for state in under_way.outcome()["states"]] == ["up_for_retry"]
    assert "was stopped from outside" in under_way.log()


def test_a_task_marked_failed_ends_its_step(scene: Callable[..., Scene]) -> None:
    under_way = scene()
    (under_way.folder / MARK).touch()
    assert under_way.ends() < _PATIENCE_SECONDS + 2
    assert under_way.outcome()["status"] == 0
    assert "Server indicated the task shouldn't be running anymore" in under_way.log()


def test_an_execution_timeout_ends_the_step(scene: Callable[..., Scene]) -> None:
    under_way = scene(execution_timeout="timedelta(seconds=2)")
    assert under_way.ends() < _PATIENCE_SECONDS + 2
    assert [state["state"] for state in under_way.outcome()["states"]] == ["up_for_retry"]
    assert "AirflowTaskTimeout" in under_way.log()


def test_a_step_beyond_its_memory_limit_is_ended_and_named(scene: Callable[..., Scene]) -> None:
    under_way = scene("held = b'x' * (300 << 20); time.sleep(600)", memory_limit="'200MiB'")
    assert under_way.ends() < _PATIENCE_SECONDS
    assert [state["state"] for state in under_way.outcome()["states"]] == ["up_for_retry"]
    assert "OutOfMemoryError" in under_way.log()
    assert "more than its memory_limit of 200 MiB" in under_way.log()


def test_a_killed_step_takes_its_own_children_along(scene: Callable[..., Scene]) -> None:
    under_way = scene()
    os.kill(under_way.step, signal.SIGKILL)
    assert under_way.ends() < _PATIENCE_SECONDS
    assert [state["state"] for state in under_way.outcome()["states"]] == ["up_for_retry"]
    assert "most often for lack of memory" in under_way.log()
