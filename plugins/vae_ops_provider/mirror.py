"""Shows a running step's progress where people look for it: the task's log and its state store."""

import logging
import time
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError

from vae_ops_provider.process import Progress

__all__ = ["ProgressMirror"]

_INTERVAL_SECONDS = 5.0
_STATE_KEY = "progress"


class ProgressMirror:
    """Passes on the first and the last progress event of a step and, between them, one every few seconds.

    Args:
        step: The step's verb.
        log: The task's logger.
        state_store: `context["task_state_store"]`, which Airflow has had since 3.3; None before.
        interval_seconds: Least time between two reports.
    """

    def __init__(
        self, step: str, log: logging.Logger | Any, state_store: Any, *, interval_seconds: float = _INTERVAL_SECONDS
    ) -> None:
        self._step = step
        self._log = log
        self._state_store = state_store
        self._interval_seconds = interval_seconds
        self._last_at = float("-inf")

    def __call__(self, progress: Progress) -> None:
        """Takes one progress event."""
        done = progress.fraction is not None and progress.fraction >= 1.0
        if not done and time.monotonic() - self._last_at < self._interval_seconds:
            return
        self._last_at = time.monotonic()
        share = "" if progress.fraction is None else f" {progress.fraction:4.0%}"
        self._log.info("%s%s  %s", self._step, share, progress.message)
        self._store(progress)

    def _store(self, progress: Progress) -> None:
        if self._state_store is None:
            return
        state = {"step": self._step, "fraction": progress.fraction, "message": progress.message}
        try:
            self._state_store.set(_STATE_KEY, {**state, "values": dict(progress.values)})
        except AirflowRuntimeError as error:
            # A picture of the progress is not worth a failed night.
            self._log.warning("The task state store takes no progress, so it is only logged from here on: %s", error)
            self._state_store = None
