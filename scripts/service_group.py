"""Long-running commands of one set-up as one process group: started together, watched together, stopped together.

`local_airflow.py` says which commands make an Airflow; the system tests run those of `docker-compose.yaml` like that.
A guard, this file run as a program, stands between the owner and the services: it ends them all when one of them ends,
and when the owner lets go of the guard's stdin, which even a killed owner does.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Service", "ServiceGroup"]

_TICK_SECONDS = 0.5
_LAST_WORDS_CHARACTERS = 4_000


@dataclass(frozen=True)
class Service:
    """One long-running command.

    Attributes:
        name: Its log is `NAME.log`.
        command: Program and arguments.
        environment: All of its environment; nothing is inherited.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


class ServiceGroup:
    """Runs services for the length of a `with` block.

    Args:
        services: What to run; all are started at once.
        logs: Directory for what they print.
        stop_seconds: Time between SIGTERM and SIGKILL at the end.
    """

    def __init__(self, services: Sequence[Service], logs: Path, *, stop_seconds: float = 15) -> None:
        self._services = services
        self._logs = logs
        self._stop_seconds = stop_seconds
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        order = {
            "logs": str(self._logs),
            "stop_seconds": self._stop_seconds,
            "services": [asdict(service) for service in self._services],
        }
        command = [sys.executable, os.path.abspath(__file__)]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        assert self._guard.stdin is not None
        self._guard.stdin.write(json.dumps(order).encode() + b"\n")
        self._guard.stdin.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def wait(self, seconds: float) -> bool:
        """Waits that long at most, and says whether the services have ended."""
        assert self._guard is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(seconds)
        return self._guard.returncode is not None

    def wait_until(self, is_true: Callable[[], Any], seconds: float, what: str) -> Any:
        """Asks again and again until the answer is true, and returns it.

        Args:
            is_true: The question.
            seconds: Time that it may take.
            what: What is waited for, for the messages.

        Raises:
            ChildProcessError: A service ended meanwhile.
            TimeoutError: The time is up.
        """
        deadline = time.monotonic() + seconds
        while not (answer := is_true()):
            if self.wait(_TICK_SECONDS):
                raise ChildProcessError(f"A service ended before {what}; see {self._logs}.")
            if time.monotonic() > deadline:
                raise TimeoutError(f"After {seconds:.0f} s still no {what}; see {self._logs}.")
        return answer


def _run_guard() -> None:
    """Starts what the first line of stdin orders and ends it all with the first service, at EOF, or on a signal."""
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    order = json.loads(sys.stdin.buffer.readline())
    logs, children = Path(order["logs"]), list[subprocess.Popen[bytes]]()
    try:
        for service in order["services"]:
            children.append(_start(service, _log(logs, service), children[0].pid if children else 0))
        for ends in (_wait_for_eof, *(child.wait for child in children)):
            threading.Thread(target=_tell, args=(ends, over), daemon=True).start()
        over.wait()
        for service, child in zip(order["services"], children, strict=True):
            if child.poll() is not None:
                _report(service["name"], child.returncode, _log(logs, service))
    finally:
        _stop(children, order["stop_seconds"])


def _log(logs: Path, service: dict[str, Any]) -> Path:
    return logs / f"{service['name']}.log"


def _start(service: dict[str, Any], log: Path, group: int) -> "subprocess.Popen[bytes]":
    with log.open("ab") as sink:
        return subprocess.Popen(
            service["command"],
            env=service["environment"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            process_group=group,
        )


def _wait_for_eof() -> None:
    # Unbuffered: the interpreter could not end while a thread sits in its buffered stdin.
    while os.read(0, 1):
        pass


def _tell(ends: Callable[[], object], over: threading.Event) -> None:
    ends()
    over.set()


def _report(name: str, returncode: int, log: Path) -> None:
    last_words = log.read_text("utf-8", "replace")[-_LAST_WORDS_CHARACTERS:]
    print(f"{name} ended with exit code {returncode}. The end of its log:\n{last_words}", file=sys.stderr, flush=True)


def _stop(children: Sequence["subprocess.Popen[bytes]"], seconds: float) -> None:
    """SIGTERM to the group, and SIGKILL to whoever is left of it after all have gone or the time is up."""
    if not children:
        return
    deadline = time.monotonic() + seconds
    _signal(children[0].pid, signal.SIGTERM)
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
    _signal(children[0].pid, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    _run_guard()
