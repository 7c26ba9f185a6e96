"""The faults of an object store: kills, errors, slow and torn answers, at each kind of request of each step."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tests.system.faults.bucket import Bucket
from tests.system.faults.case import Case
from tests.system.faults.night import BEFORE, STEPS, Stage, before
from tests.system.faults.proxy import ANSWERS

__all__ = ["object_cases"]

_CHANGING = {"write", "create", "copy to", "remove", "remove many", "upload"}
_UPLOADS = {"write", "create"}
# A lost answer is the hard case: the store has done what the client does not know of.
_ALWAYS = ("killed before an answer", "line drops before an answer")
_IN_TURN = tuple(answer for answer in ANSWERS if answer not in _ALWAYS)
# Whoever retries does not even notice.
_HARMLESS = {"500", "503", "slow answer", "line drops before a request"}


def object_cases(stage: Stage, bucket: Bucket) -> Iterator[Case]:
    """Lost answers to all requests that change something, and all other troubles in turn."""
    turns = itertools.cycle(_IN_TURN)
    for state, steps in [*((before(step), (step,)) for step in STEPS), (BEFORE, ("augment",))]:
        bucket.proxy.watch(steps[0])
        stage.points_of(state, steps)
        for point in bucket.proxy.seen:
            if point.occurrence == 1:
                always = _ALWAYS if point.operation in _CHANGING else ()
                for act in (*always, next(act for act in turns if _makes_sense(act, point.operation))):
                    yield _case(bucket, act, state, steps, asdict(point))


def _makes_sense(act: str, operation: str) -> bool:
    if "upload" in act:
        return operation in _UPLOADS
    return operation == "read" or act != "line drops in an answer"


def _case(bucket: Bucket, act: str, state: str, steps: tuple[str, ...], point: Mapping[str, Any]) -> Case:
    @contextlib.contextmanager
    def trouble() -> Iterator[None]:
        bucket.proxy.watch(steps[0], {"act": act, "point": point})
        try:
            yield
        finally:
            bucket.proxy.watch(steps[0])

    where = f"{point['step']}: {point['operation']} {point['role']}"
    return Case(act, state, steps, where, trouble=trouble, harmless=act in _HARMLESS)
