"""How far a step has come: one record, and three ways to show it — JSON lines, log lines, a bar on a terminal.

Steps call a `Report` and know nothing of who listens: `python -m vae_ops.steps` sends JSON lines to Airflow's worker,
`cli.py` draws for a person.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

__all__ = ["JsonLines", "Progress", "Report", "bar", "log_lines", "only_results_on_stdout", "silent"]


@dataclass(frozen=True)
class Progress:
    """One moment of one step.

    Attributes:
        step: The verb.
        fraction: Share of the step that is done, 0 to 1.
        message: One line for a person.
        values: The same for a machine: JSON numbers by name.
    """

    step: str
    fraction: float
    message: str
    values: Mapping[str, float | int | None] = field(default_factory=dict)


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Reports to nobody."""


@contextlib.contextmanager
def only_results_on_stdout() -> Iterator[TextIO]:
    """Keeps stdout for results: what libraries print, in Python or below it, goes to stderr instead.

    Yields:
        The true stdout.
    """
    sys.stdout.flush()
    true_stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(true_stdout), "w", encoding="utf-8") as stream:
            yield stream
    finally:
        sys.stdout.flush()
        os.dup2(true_stdout, 1)
        os.close(true_stdout)


class JsonLines:
    """One JSON object a line: progress, and in the end a result or an error.

    Args:
        stream: Where to write.
        every_seconds: Progress that comes sooner than this after the last is dropped, unless it begins or ends a step.
    """

    def __init__(self, stream: TextIO, *, every_seconds: float = 0.5) -> None:
        self._stream = stream
        self._pace = _Pace(every_seconds)

    def progress(self, progress: Progress) -> None:
        """Writes a progress event."""
        if self._pace.allows(progress):
            facts = {"step": progress.step, "fraction": round(progress.fraction, 4), "message": progress.message}
            self._write({"event": "progress", **facts, "values": dict(progress.values)})

    def result(self, step: str, value: Mapping[str, Any]) -> None:
        """Writes the record a step returned."""
        self._write({"event": "result", "step": step, "value": dict(value)})

    def error(self, kind: str, message: str, exit_code: int) -> None:
        """Writes why a step failed."""
        self._write({"event": "error", "kind": kind, "message": message, "exit_code": exit_code})

    def _write(self, event: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._stream.flush()


class _Pace:
    """Lets through the first and last moment of a step, and others no more often than once in a while."""

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._step = ""
        self._next = 0.0

    def allows(self, progress: Progress) -> bool:
        now = time.monotonic()
        if progress.step == self._step and progress.fraction < 1.0 and now < self._next:
            return False
        self._step, self._next = progress.step, now + self._every_seconds
        return True


def log_lines(stream: TextIO, *, every_seconds: float = 5.0) -> Report:
    """Shows progress as plain lines, for logs and pipes."""
    pace = _Pace(every_seconds)

    def report(progress: Progress) -> None:
        if pace.allows(progress):
            stream.write(f"{progress.step:<8} {progress.fraction:>4.0%}  {progress.message}\n")
            stream.flush()

    return report


@contextlib.contextmanager
def bar(stream: TextIO) -> Iterator[Report]:
    """Shows progress as one bar a step on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    # Table and column names may look like rich's markup; the last column is text of ours and theirs.
    columns = (TextColumn("{task.fields[step]:<8}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    tail = (TimeElapsedColumn(), TextColumn("{task.fields[message]}", markup=False))
    bars: dict[str, TaskID] = {}
    with RichProgress(*columns, *tail, console=Console(file=stream)) as rich:

        def report(progress: Progress) -> None:
            if progress.step not in bars:
                bars[progress.step] = rich.add_task("", total=1.0, step=progress.step, message="")
            rich.update(bars[progress.step], completed=progress.fraction, message=progress.message)

        yield report
