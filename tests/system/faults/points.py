"""Names every touch of the filesystem, and acts at a chosen one; runs inside the process that is to suffer.

What is done there comes from `acts.py`; which points are tried, and what must hold afterwards, is decided outside, by
`cases.py` and `promises.py`. A point is the step, the operation and the role of the file, such as `publish: rename to
OUTPUT/snapshots/ID`: its name stays when ids, run names and temporary names change.
"""

import fcntl
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MODIFYING", "Places", "Point", "Touches", "announcing_waits", "anonymous"]

# A touch of these kinds changes the disk, or prepares to.
MODIFYING = frozenset({"write", "rename to", "remove", "make directory", "remove directory", "truncate", "sync"})

_EVENTS = {
    "os.remove": "remove",
    "os.mkdir": "make directory",
    "os.rmdir": "remove directory",
    "os.truncate": "truncate",
    "fcntl.flock": "lock",
    "shutil.rmtree": "remove tree",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NAMES = (
    (re.compile(r"[0-9a-f]{32}\.tmp"), "TEMPORARY"),
    (re.compile(r"(cli-[0-9a-f]+|nightly)"), "RUN"),
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{16,64}(?![0-9a-f])"), "ID"),
)


@dataclass(frozen=True)
class Places:
    """The directories of a walk, each with the word that stands for it in the names of points."""

    source: str
    output: str
    store: str

    def role_of(self, path: str) -> str:
        """What a path is for, or nothing if it lies elsewhere."""
        for place, word in ((self.store, "STORE"), (self.output, "OUTPUT"), (self.source, "SOURCE")):
            if path == place or path.startswith(f"{place}/"):
                return word + anonymous(path[len(place) :])
        return ""


def anonymous(name: str) -> str:
    """A name without what differs between runs."""
    for pattern, word in _NAMES:
        name = pattern.sub(word, name)
    return name


@dataclass(frozen=True)
class Point:
    """One touch: the name, and the how many-eth touch of that name it is."""

    step: str
    operation: str
    role: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.step}: {self.operation} {self.role}"


class Touches:
    """Counts and names the touches of this process, and hands each to `act`.

    Args:
        places: Where touches count; others go unnoticed.
        act: Called before the operation happens; what it raises, the operation raises.
    """

    def __init__(self, places: Places, act: Callable[[Point], None]) -> None:
        self.step = "profile"
        self.seen: list[Point] = []
        self._places = places
        self._act = act
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._tree = ""
        self._busy = False

    def watch(self) -> None:
        """Begins; there is no end, as Python's audit hooks cannot be removed."""
        sys.addaudithook(self._heard)
        sync = os.fsync

        def synced(descriptor: int) -> None:
            self._touch("sync", _path_of(descriptor))
            sync(descriptor)

        os.fsync = synced

    def reported(self, step: str) -> None:
        """A step has told how far it is, which happens between its touches too."""
        self.step = step
        self._busy = True
        try:
            self._note("report", "PROGRESS")
        finally:
            self._busy = False

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._busy:
            return
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            self._touch("write" if flags & _WRITING else "read", arguments[0])
        elif event == "os.rename":
            self._touch("rename to", arguments[1])
        elif event in _EVENTS:
            self._touch(_EVENTS[event], arguments[0])

    def _touch(self, operation: str, where: object) -> None:
        # What is done to name a touch, or at it, must not count as another one.
        self._busy = True
        try:
            role = self._places.role_of(self._whole(where))
            if operation == "remove tree":
                self._tree = self._whole(where)
            if role:
                self._note(operation, role)
        finally:
            self._busy = False

    def _note(self, operation: str, role: str) -> None:
        name = (self.step, operation, role)
        self._counts[name] += 1
        point = Point(*name, self._counts[name])
        self.seen.append(point)
        self._act(point)

    def _whole(self, where: object) -> str:
        if isinstance(where, int):
            return _path_of(where)
        path = os.fsdecode(where) if isinstance(where, str | bytes | os.PathLike) else ""
        # The parts of a tree that is being removed are named relative to their parent.
        return path if os.path.isabs(path) else f"{self._tree}/{path}"


def _path_of(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
    except OSError:
        return ""


def announcing_waits(announce: Callable[[], None]) -> None:
    """From now on, whoever has to wait for a lock on a file says so before it waits."""
    lock = fcntl.flock

    def patient(descriptor: int, operation: int) -> None:
        try:
            lock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if operation & fcntl.LOCK_NB:
                raise
            announce()
            lock(descriptor, operation)

    fcntl.flock = patient
