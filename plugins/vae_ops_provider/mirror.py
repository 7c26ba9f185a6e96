"""Shows a running step's progress where people look for it: the task's log and its state store."""

import dataclasses
import logging
import time
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError

from vae_ops.progress import Progress

__all__ = ["ProgressMirror"]

_INTERVAL_SECONDS = 5.0
_STATE_KEY = "progress"


class ProgressMirror:
    """Passes on the first and the last progress event of a step and, between them, one every few seconds.

    Args:
        log: The task's logger.
        state_store: `context["task_state_store"]`, which Airflow has had since 3.3; None before.
        interval_seconds: Least time between two reports.
    """

    def __init__(
        self, log: logging.Logger | Any, state_store: Any, *, interval_seconds: float = _INTERVAL_SECONDS
    ) -> None:
        self._log = log
        self._state_store = state_store
        self._interval_seconds = interval_seconds
        self._last_at = float("-inf")

    def __call__(self, progress: Progress) -> None:
        """Takes one progress event."""
        if progress.fraction < 1.0 and time.monotonic() - self._last_at < self._interval_seconds:
            return
        self._last_at = time.monotonic()
        self._log.info("%s %3.0f %%  %s", progress.step, 100 * progress.fraction, progress.message)
        self._store(progress)

    def _store(self, progress: Progress) -> None:
        if self._state_store is None:
            return
        try:
            self._state_store.set(_STATE_KEY, dataclasses.asdict(progress))
        except AirflowRuntimeError as error:
            # A picture of the progress is not worth a failed night.
            self._log.warning("The task state store takes no progress, so it is only logged from here on: %s", error)
            self._state_store = None
