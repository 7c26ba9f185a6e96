"""The stage: two nights published, a third to come, and a worker that walks it as it is told.

A stage is set in a place, a local disk or a bucket (`places.py`); the walks run in the children of `worker.py`. What
goes wrong there, and when, is the business of `case.py` and of the lists of cases beside it.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.faults.places import Place, locations
from tests.system.faults.points import anonymous
from tests.system.faults.promises import (
    latest_id,
    violations_among_models,
    violations_for_readers,
    violations_of_tidiness,
)

__all__ = ["BEFORE", "NIGHT", "STEPS", "STORE_LOST", "Expected", "Stage", "Worker", "before", "working"]

ROOT = Path(__file__).parents[3]
NIGHT = 2
BEFORE = "two nights published"
STORE_LOST = "two nights published, the store lost"
STEPS = ("profile", "train", "generate", "validate", "publish")


def before(step: str) -> str:
    """The state in which a step of the third night begins."""
    return f"{BEFORE}, {step} is next"


class Worker:
    """The process whose children walk and suffer."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for what became of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextlib.contextmanager
def working() -> Iterator[Worker]:
    """A worker for the length of a `with` block."""
    command = [sys.executable, "-m", "tests.system.faults.worker"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Worker(process)
        assert process.stdin is not None
        process.stdin.close()


@dataclass(frozen=True)
class Expected:
    """What a walk leaves that nothing disturbs.

    Attributes:
        before: Snapshot in force before the night; empty when there is none.
        after: Snapshot that the night publishes.
        names: Everything in output and store after gc.
    """

    before: str
    after: str
    names: frozenset[str]


class Stage:
    """Sets a place up for a night, lets faults strike, and checks the promises.

    Args:
        place: An empty place.
        worker: Does the walking.
        settings: What all nights are told.
        mode: How the third night, and whatever comes after it, gets its model.
    """

    def __init__(self, place: Place, worker: Worker, settings: Mapping[str, Any], mode: str) -> None:
        self.place = place
        self._worker = worker
        self._settings = dict(settings)
        self._mode = mode
        self._expected: dict[tuple[str, str], Expected] = {}
        self._is_walked_by_step = False

    def prepare(self) -> None:
        """Walks two nights, which fill what is kept, and brings the table of the third."""
        for night in range(NIGHT):
            self.place.bring_source(night)
            self._must_end(["augment"])
        self.place.save(BEFORE)
        self.place.bring_source(NIGHT)
        self._settings["refresh"] = {"mode": self._mode}
        locations(self.place)[1].remove()
        self.place.save(STORE_LOST)

    def restore(self, state: str) -> None:
        """Brings a state back; those between the steps are made when the first of them is wanted."""
        if state in map(before, STEPS) and not self._is_walked_by_step:
            self._is_walked_by_step = True
            self.place.restore(BEFORE)
            for step in STEPS:
                self.place.save(before(step))
                self._must_end([step])
        self.place.restore(state)

    def points_of(self, state: str, steps: Sequence[str]) -> list[dict[str, Any]]:
        """Every point that a walk comes by, in order."""
        self.restore(state)
        answer = self.walk(steps, record=True)
        assert answer["error"] is None, answer["error"]
        points: list[dict[str, Any]] = answer["points"]
        return points

    def walk(
        self, steps: Sequence[str], fault: Mapping[str, Any] | None = None, *, record: bool = False
    ) -> dict[str, Any]:
        """Walks some steps, under a fault or none."""
        return self._worker.ask(self.request(steps, fault, record=record))

    def walk_two(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
        """Walks two at once: the second runs while the first stands still at its point."""
        return self._worker.ask({"first": first, "second": second})

    def request(
        self, steps: Sequence[str], fault: Mapping[str, Any] | None = None, *, record: bool = False
    ) -> dict[str, Any]:
        """What the worker is told."""
        place = self.place
        return {
            "source": place.source,
            "output": place.output,
            "store": place.store,
            "steps": list(steps),
            "settings": self._settings,
            "environment": dict(place.environment),
            "fault": fault,
            "record": record,
        }

    def _must_end(self, steps: Sequence[str]) -> None:
        answer = self.walk(steps)
        if answer["error"] or answer["signal"]:
            raise AssertionError(f"An undisturbed walk of {steps} has failed: {answer}")

    def expected(self, state: str, steps: Sequence[str]) -> Expected:
        """What a walk from a state leaves that nothing disturbs."""
        key = state, " ".join(steps)
        if key not in self._expected:
            output, _ = locations(self.place)
            self.restore(state)
            earlier = latest_id(output)
            self._must_end([*steps, "gc"])
            violations = [*violations_for_readers(output, [latest_id(output)]), *self.after_a_night()]
            if violations:
                raise AssertionError(f"An undisturbed walk breaks promises: {violations}")
            self._expected[key] = Expected(earlier, latest_id(output), frozenset(self.place.names()))
        return self._expected[key]

    def for_readers(self, allowed: Collection[str]) -> list[str]:
        """What readers would find amiss if the latest snapshot had to be one of these."""
        return violations_for_readers(locations(self.place)[0], allowed)

    def walk_again(self, steps: Sequence[str]) -> list[str]:
        """Walks undisturbed and collects garbage; that this fails is a violation."""
        again = self.walk([*steps, "gc"])
        if again["error"] or again["signal"]:
            return [f"the next walk fails: signal {again['signal']}, {again['error']}"]
        return []

    def after_a_night(self, names: frozenset[str] | None = None) -> list[str]:
        """Violations among models, and litter."""
        output, store = locations(self.place)
        litter = violations_of_tidiness(self.place.names() | self.place.outside(), names)
        return [*violations_among_models(output, store), *map(anonymous, litter)]
