"""The faults of an object store: kills, errors, slow and torn answers, frozen holders of leases, at each request."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict

from tests.system.faults.bucket import Bucket
from tests.system.faults.case import Case
from tests.system.faults.night import BEFORE, NIGHT, STEPS, Stage, before
from tests.system.faults.pair_cases import TwoAtOnce
from tests.system.faults.points import Point
from tests.system.faults.proxy import ANSWERS, FREEZES

__all__ = ["object_cases", "object_pair_cases"]

_CHANGING = {"write", "create", "copy to", "remove", "remove many", "upload"}
_UPLOADS = {"write", "create"}
# A lost answer is the hard case: the store has done what the client does not know of.
_ALWAYS = ("killed before an answer", "line drops before an answer")
_IN_TURN = tuple(answer for answer in ANSWERS if answer not in _ALWAYS)
# Whoever retries does not even notice.
_HARMLESS = {"500", "503", "slow answer", "line drops before a request"}


def object_cases(stage: Stage, bucket: Bucket, *, by_step: bool = True) -> Iterator[Case]:
    """Lost answers to all requests that change something, and all other troubles in turn.

    Args:
        stage: In the bucket.
        bucket: Where the requests go.
        by_step: Whether the steps are walked one by one too.
    """
    turns = itertools.cycle(_IN_TURN)
    for state, steps in [(BEFORE, ("augment",)), *((before(step), (step,)) for step in STEPS if by_step)]:
        for point in _points(stage, bucket, state, steps):
            always = _ALWAYS if point.operation in _CHANGING else ()
            for act in (*always, next(act for act in turns if _makes_sense(act, point.operation))):
                trouble = _trouble(bucket, act, point)
                harmless, seen = act in _HARMLESS, bucket.proxy.has_struck
                yield Case(act, state, steps, _name(point), trouble=trouble, harmless=harmless, seen=seen)


def object_pair_cases(stage: Stage, bucket: Bucket, *, by_step: bool = True) -> Iterator[Case]:
    """Two walks at once: the first freezes at a request that changes something, until its leases have run out."""
    other = bucket.other_source(NIGHT + 1)
    turns = itertools.cycle(FREEZES)
    walks = [(BEFORE, ("augment",)), *[(before("publish"), ("publish",))] * by_step]
    for state, steps in walks:
        for point in _points(stage, bucket, state, steps):
            if point.operation in _CHANGING:
                act = next(turns)
                trouble, where = _trouble(bucket, act, point), _name(point)
                yield TwoAtOnce(f"the same run twice, {act}", state, steps, where, trouble=trouble)
                if steps == ("augment",):
                    label = f"another run, {act}"
                    yield TwoAtOnce(label, state, steps, where, trouble=trouble, other_source=other)


def _points(stage: Stage, bucket: Bucket, state: str, steps: tuple[str, ...]) -> list[Point]:
    """The first request of each name, in order."""
    bucket.proxy.watch(steps[0])
    stage.points_of(state, steps)
    return [point for point in bucket.proxy.seen if point.occurrence == 1]


def _makes_sense(act: str, operation: str) -> bool:
    if "upload" in act:
        return operation in _UPLOADS
    return operation == "read" or act != "line drops in an answer"


def _name(point: Point) -> str:
    return f"{point.step}: {point.operation} {point.role}"


def _trouble(bucket: Bucket, act: str, point: Point) -> Callable[[], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def trouble() -> Iterator[None]:
        bucket.proxy.watch(point.step, {"act": act, "point": asdict(point)})
        try:
            yield
        finally:
            bucket.proxy.calm()

    return trouble
