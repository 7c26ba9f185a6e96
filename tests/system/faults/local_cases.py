"""The faults of a local disk: which there are, and at which points of which step each is tried.

The points are those that an undisturbed walk comes by, so that a step that touches more files is tried in more places.
"""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.system.faults.case import Case, point_case
from tests.system.faults.night import BEFORE, STEPS, Stage, before
from tests.system.faults.places import EMPTY, LocalDisk
from tests.system.faults.points import MODIFYING

__all__ = ["kill_cases", "local_cases"]

_YEARS = 10 * 365 * 86_400.0
_JUMPS = (_YEARS, -_YEARS, 2 * 86_400.0, -3_600.0)
_ERRORS = {
    "input/output error": None,
    "full disk": MODIFYING - {"remove", "remove directory", "sync"},
    "read-only disk": MODIFYING,
}

Walked = tuple[str, tuple[str, ...]]

_WALKS: list[Walked] = [(BEFORE, ("augment",)), *((before(step), (step,)) for step in STEPS)]


def local_cases(stage: Stage, disk: LocalDisk) -> Iterator[Case]:
    """Every case of a local disk."""
    points = {walked: stage.points_of(*walked) for walked in _WALKS}
    for walked in _WALKS:
        yield from _kills(walked, points[walked])
        yield from _errors(walked, points[walked])
        yield from _vanishing(walked, points[walked], disk)
        yield from _jumps(walked, points[walked])
        yield from _torn_files(walked, stage, disk)
    first: Walked = EMPTY, ("augment",)
    yield from (point_case("kill", *first, point) for point in stage.points_of(*first) if point["occurrence"] == 1)
    if disk.can_mount():
        for walked in _WALKS:
            yield from _small_disks(walked, disk)


def kill_cases(stage: Stage) -> Iterator[Case]:
    """Kills alone: for nights that are decided in another way."""
    for walked in _WALKS:
        yield from _kills(walked, stage.points_of(*walked))


def _ends_of_groups(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first and the last touch of each name."""
    first: dict[tuple[str, str, str], dict[str, Any]] = {}
    last: dict[tuple[str, str, str], dict[str, Any]] = {}
    for point in points:
        name = point["step"], point["operation"], point["role"]
        first.setdefault(name, point)
        last[name] = point
    return [*first.values(), *(point for name, point in last.items() if point != first[name])]


def _kills(walked: Walked, points: list[dict[str, Any]]) -> Iterator[Case]:
    return (point_case("kill", *walked, point) for point in _ends_of_groups(points))


def _errors(walked: Walked, points: list[dict[str, Any]]) -> Iterator[Case]:
    for kind, operations in _ERRORS.items():
        for point in points:
            is_hit = operations is None or point["operation"] in operations
            if point["occurrence"] == 1 and is_hit and not point["role"].startswith("SOURCE"):
                yield point_case(kind, *walked, point)


def _vanishing(walked: Walked, points: list[dict[str, Any]], disk: LocalDisk) -> Iterator[Case]:
    @contextlib.contextmanager
    def absence(*, lost: bool) -> Iterator[None]:
        try:
            yield
        finally:
            disk.bring_back(lost=lost)

    in_store = [point for point in points if point["occurrence"] == 1 and point["role"].startswith("STORE/")]
    for number, point in enumerate(in_store):
        lost = number % 2 == 1
        label = "store is lost" if lost else "store vanishes for a while"
        aside = {"aside": disk.aside}
        trouble = partial(absence, lost=lost)
        yield point_case("store vanishes", *walked, point, label=label, fault=aside, trouble=trouble, loses_store=lost)


def _jumps(walked: Walked, points: list[dict[str, Any]]) -> Iterator[Case]:
    seen: set[str] = set()
    for point in points:
        if point["step"] not in seen:
            seen.add(point["step"])
            for seconds in _JUMPS:
                yield point_case("clock jumps", *walked, point, fault={"seconds": seconds}, harmless=True)


def _torn_files(walked: Walked, stage: Stage, disk: LocalDisk) -> Iterator[Case]:
    """No file may grow beyond the size of each file that the walk writes, so that each is once the first to be torn."""
    state, steps = walked
    stage.restore(state)
    earlier = {path for path in disk.disk.rglob("*") if path.is_file()}
    stage.points_of(*walked)
    sizes = {path.stat().st_size for path in disk.disk.rglob("*") if path.is_file() and path not in earlier}
    for size in sorted({1, 100, *sizes}):
        for deadly, kind in ((True, "killed within a write"), (False, "write cut short")):
            where = f"{steps[0]}: files of at most {size - 1} bytes"
            yield Case(kind, state, steps, where, {"file_bytes": size - 1, "deadly": deadly})


def _small_disks(walked: Walked, disk: LocalDisk) -> Iterator[Case]:
    """Disks of their own, so that what Arrow writes without Python is hit too."""
    state, steps = walked
    yield Case("read-only mount", state, steps, f"{steps[0]}: everything", trouble=partial(disk.read_only, state))
    page = os.sysconf("SC_PAGESIZE")
    for pages in (*range(16), *range(16, 64, 3)):
        where = f"{steps[0]}: {pages * page // 1024} KiB left"
        trouble = partial(disk.nearly_full, state, pages * page)
        yield Case("disk fills up", state, steps, where, trouble=trouble)
