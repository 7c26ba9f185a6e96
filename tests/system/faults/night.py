"""One night under a fault: the stage is set, the fault strikes, the promises are checked, the night is walked again.

The stage is a source, an output and a store, on a local disk or in a bucket (`places.py`); the walks run in the
processes of `worker.py`. Which faults there are is the business of `cases.py`.
"""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.faults.places import EMPTY, Place, locations
from tests.system.faults.points import anonymous
from tests.system.faults.promises import (
    latest_id,
    violations_among_models,
    violations_for_readers,
    violations_of_tidiness,
)

__all__ = ["BEFORE", "NIGHT", "STEPS", "Case", "Outcome", "Stage", "Worker", "before", "working"]

ROOT = Path(__file__).parents[3]
NIGHT = 2
BEFORE = "two nights published"
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


def no_trouble() -> contextlib.AbstractContextManager[None]:
    """Nothing is wrong with the place itself."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Case:
    """A fault and where it strikes.

    Attributes:
        kind: What goes wrong, in a word or two.
        state: What the place holds when the night begins.
        steps: What is walked while it strikes: `augment`, or one step.
        where: The step and point, for a person.
        fault: What the worker is told.
        trouble: Makes trouble outside the walk, and ends it.
        harmless: Whether the walk must come to its end nevertheless.
        loses_store: Whether everything in the store is gone for good.
    """

    kind: str
    state: str
    steps: tuple[str, ...]
    where: str
    fault: Mapping[str, Any] = field(default_factory=dict)
    trouble: Callable[[], contextlib.AbstractContextManager[None]] = no_trouble
    harmless: bool = False
    loses_store: bool = False

    @property
    def step(self) -> str:
        """The step that suffers."""
        return self.where.partition(":")[0]

    @property
    def mode(self) -> str:
        """Whether the steps run one by one or as one walk."""
        return "augment" if self.steps == ("augment",) else "steps"

    @property
    def to_the_end(self) -> tuple[str, ...]:
        """What a scheduler would walk from here on."""
        return self.steps if self.mode == "augment" else STEPS[STEPS.index(self.steps[0]) :]

    @property
    def again(self) -> tuple[str, ...]:
        """What is walked afterwards, undisturbed."""
        return STEPS if self.loses_store and self.mode == "steps" else self.to_the_end

    def __str__(self) -> str:
        return f"{self.kind} at {self.where} ({self.mode}, {self.state})"


@dataclass(frozen=True)
class Outcome:
    """What became of a case: how the walk ended, and each promise that was broken."""

    case: Case
    ended: str
    violations: tuple[str, ...]
    unclear: str = ""


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
    """

    def __init__(self, place: Place, worker: Worker, settings: Mapping[str, Any]) -> None:
        self.place = place
        self._worker = worker
        self._settings = settings
        self._expected: dict[tuple[str, str], Expected] = {}

    def prepare(self) -> None:
        """Walks two nights, which fill what is kept, and then a third step by step; saves what lies in between."""
        for night in range(NIGHT):
            self.place.bring_source(night)
            self._must_end(["augment"])
        self.place.save(BEFORE)
        self.place.bring_source(NIGHT)
        for step in STEPS:
            self.place.save(before(step))
            self._must_end([step])

    def points_of(self, state: str, steps: Sequence[str]) -> list[dict[str, Any]]:
        """Every point that a walk comes by, in order."""
        self.place.restore(state)
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
            self.place.restore(state)
            earlier = latest_id(output)
            self._must_end([*steps, "gc"])
            violations = [*violations_for_readers(output, [latest_id(output)]), *self.after_a_night()]
            if violations:
                raise AssertionError(f"An undisturbed walk breaks promises: {violations}")
            self._expected[key] = Expected(earlier, latest_id(output), frozenset(self.place.names()))
        return self._expected[key]

    def play(self, case: Case) -> Outcome:
        """Lets the fault strike, checks, walks again, and checks again."""
        clean = self.expected(case.state, case.to_the_end)
        output, _ = locations(self.place)
        self.place.restore(case.state)
        with case.trouble():
            answer = self.walk(case.steps, case.fault)
        ended = how_it_ended(answer)
        found = violations_for_readers(output, {clean.before, clean.after})
        if answer["signal"] == signal.SIGALRM:
            found.append("the walk hung")
        if case.harmless and ended != "done":
            found.append(f"the walk should have come to its end, but was {ended}")
        again = self.walk([*case.again, "gc"])
        if again["error"] or again["signal"]:
            found.append(f"the next walk fails: {how_it_ended(again)}: {again['error']}")
        found += violations_for_readers(output, {clean.after})
        found += self.after_a_night(None if case.loses_store else clean.names)
        return Outcome(case, ended, tuple(found), unclear_error(answer))

    def after_a_night(self, names: frozenset[str] | None = None) -> list[str]:
        """Violations among models, and litter."""
        output, store = locations(self.place)
        litter = violations_of_tidiness(self.place.names() | self.place.outside(), names)
        return [*violations_among_models(output, store), *map(anonymous, litter)]


def how_it_ended(answer: Mapping[str, Any]) -> str:
    """A word or two: done, refused, failed, or killed."""
    if answer["signal"]:
        return f"killed by {signal.Signals(answer['signal']).name}"
    if answer["error"]:
        return ("refused: " if answer["error"]["ours"] else "failed: ") + answer["error"]["type"]
    return "done"


def unclear_error(answer: Mapping[str, Any]) -> str:
    """An error that is none of our tree, and where it came from."""
    error = answer["error"]
    return "" if error is None or error["ours"] else f"{error['message']} | {error['where']}"
