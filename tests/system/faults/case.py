"""A case: one fault, when it strikes, and how the promises are put to the test.

The common plot: the stage is restored, a walk suffers the fault, readers are looked after, the walk is done again
undisturbed, and nothing may be missing or left over. Cases with another plot override `Case.play`. The lists of cases
stand in `local_cases.py`, `source_cases.py`, `pair_cases.py` and `object_cases.py`.
"""

import contextlib
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.system.faults.night import STEPS, STORE_LOST, Stage

__all__ = ["Case", "Outcome", "how_it_ended", "point_case"]


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
        seen: Whether the fault was met, where the walk itself cannot tell.
    """

    kind: str
    state: str
    steps: tuple[str, ...]
    where: str
    fault: Mapping[str, Any] = field(default_factory=dict)
    trouble: Callable[[], contextlib.AbstractContextManager[None]] = no_trouble
    harmless: bool = False
    loses_store: bool = False
    seen: Callable[[], bool] = bool

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

    def play(self, stage: Stage) -> "Outcome":
        """Lets the fault strike, checks, walks again, and checks again."""
        clean = stage.expected(self.state, self.to_the_end)
        at_last = stage.expected(STORE_LOST, self.again) if self.loses_store else clean
        stage.restore(self.state)
        with self.trouble():
            answer = stage.walk(self.steps, self.fault)
        found = _violations_of_the_walk(answer, harmless=self.harmless)
        found += stage.for_readers({clean.before, clean.after})
        found += stage.walk_again(self.again)
        found += stage.for_readers({at_last.after})
        found += stage.after_a_night(None if self.loses_store else clean.names)
        return Outcome(self, how_it_ended(answer), tuple(found), self.has_struck(answer), _unclear_error(answer))

    def has_struck(self, answer: Mapping[str, Any]) -> bool:
        """Whether the walk has met its fault; a disk with room enough is none."""
        return bool(answer["struck"] or how_it_ended(answer) != "done" or self.seen())

    def __str__(self) -> str:
        return f"{self.kind} at {self.where} ({self.mode}, {self.state})"


@dataclass(frozen=True)
class Outcome:
    """What became of a case: how the walk ended, and each promise that was broken.

    Attributes:
        case: The case.
        ended: How the walk ended that met the fault.
        violations: The promises that were broken, as sentences.
        has_struck: Whether the fault was met at all.
        unclear: An error that is none of our tree, and where it came from.
    """

    case: Case
    ended: str
    violations: tuple[str, ...]
    has_struck: bool = True
    unclear: str = ""


def point_case(kind: str, state: str, steps: tuple[str, ...], point: Mapping[str, Any], **more: Any) -> Case:
    """A fault that strikes at a point; `more` are fields of the case, and of the fault under `fault`."""
    fault = {"act": kind, "point": point, **more.pop("fault", {})}
    where = f"{point['step']}: {point['operation']} {point['role']}, {point['occurrence']}"
    make = more.pop("make", Case)
    case: Case = make(more.pop("label", kind), state, steps, where, fault, **more)
    return case


def _violations_of_the_walk(answer: Mapping[str, Any], *, harmless: bool) -> list[str]:
    if answer["signal"] == signal.SIGALRM:
        return ["the walk hung"]
    if harmless and how_it_ended(answer) != "done":
        return [f"the walk should have come to its end, but was {how_it_ended(answer)}: {answer['error']}"]
    return []


def how_it_ended(answer: Mapping[str, Any]) -> str:
    """A word or two: done, refused, failed, or killed."""
    if answer["signal"]:
        return f"killed by {signal.Signals(answer['signal']).name}"
    if answer["error"]:
        return ("refused: " if answer["error"]["ours"] else "failed: ") + answer["error"]["type"]
    return "done"


def _unclear_error(answer: Mapping[str, Any]) -> str:
    """An error that is none of our tree, and where it came from."""
    error = answer["error"]
    return "" if error is None or error["ours"] else f"{error['type']} in {error['where']}"
