"""A step in a process of its own: start it, follow its events, leave nothing of it behind.

The child is `PYTHON -m vae_ops.steps STEP -` in a new session: the spec goes in through stdin, JSON lines come out of
stdout (`vae_ops/progress.py` writes them), library chatter out of stderr. It inherits a pipe whose other end we hold:
should we be killed, the child notices (`vae_ops/lifeline.py`) and ends its group. `limits.py` measures what it takes.
This file knows processes and nothing of Airflow; `operators.py` decides what an error means for the task.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from vae_ops import errors
from vae_ops.errors import (
    GateRefusedError,
    InputError,
    OutOfMemoryError,
    StepFailedError,
    UsageError,
    VaeOpsError,
)
from vae_ops.lifeline import LIFELINE_VARIABLE
from vae_ops.progress import Progress
from vae_ops_provider.limits import Limits, MemoryWatch, format_bytes

__all__ = ["StepProcess"]

# Airflow's supervisor follows its own SIGTERM with SIGKILL after five seconds, and a SIGKILL ends us before we can end
# the child. So the child's group gets less than that between the two signals.
_GRACE_SECONDS = 2.0
_TICK_SECONDS = 0.2
_LAST_WORDS_LINES = 15
_LESS_MEMORY = "give the worker more memory, or lower read.max_training_rows"
# A shell that stands in for Python reports a signal as 128 plus its number.
_KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)


class StepProcess:
    """Runs one step once.

    Args:
        step: Verb of `vae_ops.steps`, such as `train`.
        spec: The step's specification as JSON values.
        python: Interpreter that has vae-ops (and, for training, TensorFlow); None is the running one.
        limits: What the process and its descendants may take of the machine.
        is_orphan: Asked a few times a second whether nobody waits for the result any more; then the process goes.
        grace_seconds: Time between SIGTERM and SIGKILL when the process has to go.
    """

    def __init__(
        self,
        step: str,
        spec: Mapping[str, Any],
        *,
        python: str | None = None,
        limits: Limits | None = None,
        is_orphan: Callable[[], bool] = lambda: False,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        self._step = step
        self._spec = spec
        self._command = [python or sys.executable, "-m", "vae_ops.steps", step, "-"]
        self._limits = limits or Limits()
        self._is_orphan = is_orphan
        self._grace_seconds = grace_seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._memory: MemoryWatch | None = None
        self._killed_at: float | None = None
        self._killed_for: VaeOpsError | None = None
        self._result: dict[str, Any] | None = None
        self._error: VaeOpsError | None = None
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS_LINES)

    def run(self, *, on_progress: Callable[[Progress], None], on_chatter: Callable[[str], None]) -> dict[str, Any]:
        """Runs the step to its end and returns its record.

        Whatever interrupts this call (a timeout that Airflow raises, a failing callback), the child's whole process
        group is gone when it returns.

        Args:
            on_progress: Called with every progress event.
            on_chatter: Called with every other line that the child or its libraries print.

        Raises:
            VaeOpsError: The error that the step reported, of the same class.
            OutOfMemoryError: The child held more memory than its limit, or than there was.
            StepFailedError: The child died without a result, or was killed.
            UsageError: The interpreter cannot be started.
        """
        lifeline, our_end = os.pipe()
        try:
            self._child = child = self._start(lifeline)
            self._limits.assign_cores(child.pid)
            self._memory = MemoryWatch(child.pid, self._limits.memory_bytes)
            self._follow(child, on_progress, on_chatter)
        finally:
            os.close(our_end)
        return self._conclude(child.returncode)

    def _follow(
        self,
        child: subprocess.Popen[bytes],
        on_progress: Callable[[Progress], None],
        on_chatter: Callable[[str], None],
    ) -> None:
        try:
            for is_event, line in self._lines(child):
                self._hear(is_event, line, on_progress, on_chatter)
        except BaseException:
            self.kill()
            for _ in self._lines(child):
                pass
            raise
        finally:
            _close(child)

    @property
    def peak_bytes(self) -> int:
        """The most resident memory that the process and its descendants were seen to hold."""
        return self._memory.peak_bytes if self._memory else 0

    def kill(self) -> None:
        """Ends the child's process group: SIGTERM now, SIGKILL after the grace time.

        Safe inside a signal handler: it neither reads nor waits. The loop in `run`, which the signal interrupted,
        does the waiting and sends the SIGKILL.
        """
        if self._killed_at is None:
            self._killed_at = time.monotonic()
        if self._child is not None and self._child.returncode is None:
            _signal_group(self._child, signal.SIGTERM)

    def _start(self, lifeline: int) -> subprocess.Popen[bytes]:
        """Starts the child, which alone keeps the lifeline."""
        # A file, not a pipe: a large spec cannot block us, and a child that dies at once cannot break us.
        with _file_in_memory() as spec:
            spec.write(json.dumps(self._spec).encode())
            spec.seek(0)
            try:
                return subprocess.Popen(
                    self._command,
                    stdin=spec,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=_child_environment() | {LIFELINE_VARIABLE: str(lifeline)},
                    pass_fds=(lifeline,),
                    start_new_session=True,
                )
            except OSError as error:
                raise UsageError(
                    f"Step {self._step!r} expects python= to name a Python interpreter that has vae-ops, but "
                    f"{self._command[0]!r} cannot be started: {error.strerror}."
                ) from error
            finally:
                os.close(lifeline)

    def _lines(self, child: subprocess.Popen[bytes]) -> Iterator[tuple[bool, str]]:
        """Yields (came from stdout, line) until the child is gone and its pipes are drained."""
        assert child.stdout is not None
        assert child.stderr is not None
        with selectors.DefaultSelector() as selector:
            for pipe in (child.stdout, child.stderr):
                if not pipe.closed:
                    selector.register(pipe, selectors.EVENT_READ, bytearray())
            while True:
                # Asked before reading, so that what the child wrote last is still read.
                gone = child.poll() is not None
                if gone:
                    # Grandchildren would hold the pipes open, and nothing of a step may outlive it.
                    _signal_group(child, signal.SIGKILL)
                ready = selector.select(0 if gone else _TICK_SECONDS)
                for key, _ in ready:
                    for line in _read_lines(selector, key):
                        yield key.fileobj is child.stdout, line
                if gone and not ready:
                    return
                if not gone:
                    self._look_after(child)

    def _look_after(self, child: subprocess.Popen[bytes]) -> None:
        """What has to be seen to a few times a second while the child lives."""
        assert self._memory is not None
        if self._killed_at is not None:
            if time.monotonic() - self._killed_at >= self._grace_seconds:
                _signal_group(child, signal.SIGKILL)
            return
        self._memory.look()
        if self._memory.is_exceeded and self._killed_for is None:
            self._killed_for = self._over_limit()
            # What grows as fast as this may not get the time that SIGTERM would give it.
            _signal_group(child, signal.SIGKILL)
        elif self._is_orphan():
            self._killed_for = StepFailedError(
                f"Step {self._step!r} was ended because the process that waited for it is gone: look there for why."
            )
            self.kill()

    def _over_limit(self) -> OutOfMemoryError:
        limit = format_bytes(self._limits.memory_bytes or 0)
        return OutOfMemoryError(
            f"Step {self._step!r} was ended because it held {format_bytes(self.peak_bytes)} of memory, more than its "
            f"memory_limit of {limit}: raise memory_limit, or lower read.max_training_rows."
        )

    def _hear(
        self,
        is_event: bool,
        line: str,
        on_progress: Callable[[Progress], None],
        on_chatter: Callable[[str], None],
    ) -> None:
        event = _parse_event(line) if is_event else {}
        match event:
            case {"event": "progress", **rest}:
                fraction, message = float(rest.get("fraction", 0.0)), str(rest.get("message", ""))
                on_progress(Progress(self._step, fraction, message, rest.get("values", {})))
            case {"event": "result", "value": dict() as value}:
                self._result = value
            case {"event": "error"}:
                self._error = self._revive(event)
            case _:
                self._last_words.append(line)
                on_chatter(line)

    def _conclude(self, returncode: int) -> dict[str, Any]:
        if self._killed_for is not None:
            raise self._killed_for
        if self._killed_at is not None:
            raise StepFailedError(f"Step {self._step!r} was stopped from outside before it finished.")
        if self._error is not None:
            raise self._error
        if returncode == 0 and self._result is not None:
            return self._result
        if returncode in _KILLED:
            raise self._killed_by_somebody()
        raise StepFailedError(
            f"Step {self._step!r} {_cause_of_death(returncode)} and left no result. "
            f"Its last words: {' | '.join(self._last_words) or 'none'}."
        )

    def _killed_by_somebody(self) -> StepFailedError:
        assert self._memory is not None
        held = f"it held {format_bytes(self.peak_bytes)} at most"
        if self._memory.kernel_killed_somebody:
            return OutOfMemoryError(
                f"Step {self._step!r} ran out of memory and was killed by the kernel (SIGKILL; {held}): {_LESS_MEMORY}."
            )
        return StepFailedError(
            f"Step {self._step!r} was killed by a SIGKILL that Airflow did not send, most often for lack of memory "
            f"({held}): {_LESS_MEMORY}."
        )

    def _revive(self, event: Mapping[str, Any]) -> VaeOpsError:
        """The error that the child raised; a class unknown here is chosen by its exit code."""
        kind, message = str(event.get("kind", "")), str(event.get("message", ""))
        if kind in errors.__all__:
            error: VaeOpsError = getattr(errors, kind)(message)
            return error
        if kind.endswith("MemoryError") or kind == "ResourceExhaustedError":
            return OutOfMemoryError(f"Step {self._step!r} ran out of memory ({message}): {_LESS_MEMORY}.")
        by_exit_code: dict[Any, type[VaeOpsError]] = {2: InputError, 3: GateRefusedError}
        if (known := by_exit_code.get(event.get("exit_code"))) is not None:
            return known(message)
        return StepFailedError(f"{kind}: {message}")


def _child_environment() -> dict[str, str]:
    # Airflow's configuration, connections and variables hold secrets that a training process has no use for, and
    # AIRFLOW_CTX_* would describe the wrong process to whatever reads it.
    return {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW_")}


def _file_in_memory() -> IO[bytes]:
    # The spec may hold credentials, which have no place on a disk, not even in a file without a name.
    return open(os.memfd_create("spec"), "r+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        # Nobody left; macOS says "not permitted" about a group of zombies.
        return


def _read_lines(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> list[str]:
    """Complete lines that one read makes available; the rest waits in the buffer. At its end the pipe is let go."""
    buffer: bytearray = key.data
    chunk = os.read(key.fd, 65_536)
    buffer += chunk
    *lines, rest = buffer.split(b"\n")
    if not chunk:
        selector.unregister(key.fileobj)
        lines, rest = [*lines, rest], bytearray()
    buffer[:] = rest
    return [line.decode("utf-8", "replace").rstrip() for line in lines if line.strip()]


def _close(child: subprocess.Popen[bytes]) -> None:
    pipes: tuple[IO[bytes] | None, ...] = (child.stdout, child.stderr)
    for pipe in pipes:
        if pipe is not None:
            pipe.close()


def _parse_event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _cause_of_death(returncode: int) -> str:
    if returncode < 0:
        return f"was killed by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"
