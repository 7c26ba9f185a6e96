"""What goes wrong at a point: a kill, a full, failing, read-only or vanished disk, another clock, a changed source.

An act is made by name, so that a fault can be asked for in JSON. It runs inside the process that is to suffer, right
before the operation that `points.py` has named.
"""

import datetime
import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.system.faults.points import MODIFYING, Places, Point

__all__ = ["ACTS", "Act", "Clock", "make_act"]

Act = Callable[[Point], None]

# Removing frees room even where there is none to write.
_GROWING = MODIFYING - {"remove", "remove directory", "sync"}


class _At:
    """Acts at one point, or from there on."""

    def __init__(self, point: Mapping[str, Any], act: Act, *, onwards: bool = False) -> None:
        self.struck = False
        self._point = Point(**point)
        self._act = act
        self._onwards = onwards

    def __call__(self, point: Point) -> None:
        if point == self._point or (self.struck and self._onwards):
            self.struck = True
            self._act(point)


def make_act(fault: Mapping[str, Any], places: Places, clock: "Clock") -> _At:
    """The act that a fault asks for: `{"act", "point", …}`."""
    make, onwards = ACTS[fault["act"]]
    return _At(fault["point"], make(fault, places, clock), onwards=onwards)


def _kill(fault: Mapping[str, Any], places: Places, clock: "Clock") -> Act:
    return lambda point: os.kill(os.getpid(), signal.SIGKILL)


def _pause(fault: Mapping[str, Any], places: Places, clock: "Clock") -> Act:
    return lambda point: os.kill(os.getpid(), signal.SIGSTOP)


def _raising(number: int, operations: frozenset[str] | None) -> Callable[..., Act]:
    def make(fault: Mapping[str, Any], places: Places, clock: "Clock") -> Act:
        def act(point: Point) -> None:
            if (operations is None or point.operation in operations) and not point.role.startswith("SOURCE"):
                raise OSError(number, os.strerror(number), point.role)

        return act

    return make


def _vanish(fault: Mapping[str, Any], places: Places, clock: "Clock") -> Act:
    return lambda point: os.rename(places.store, fault["aside"])


def _jump(fault: Mapping[str, Any], places: Places, clock: "Clock") -> Act:
    return lambda point: clock.jump(fault["seconds"])


def _change_source(fault: Mapping[str, Any], places: Places, clock: "Clock") -> Act:
    def act(point: Point) -> None:
        file, other = os.path.join(places.source, "part-1.parquet"), fault["other"]
        if fault["how"] == "replace":
            shutil.copy(other, f"{file}.new")
            os.replace(f"{file}.new", file)
        elif fault["how"] == "overwrite":
            shutil.copy(other, file)
        elif fault["how"] == "append":
            shutil.copy(other, os.path.join(places.source, "part-2.parquet"))
        elif fault["how"] == "truncate":
            os.truncate(file, os.path.getsize(file) // 2)
        else:
            os.remove(file)

    return act


# By name: the maker, and whether the trouble stays.
ACTS: dict[str, tuple[Callable[..., Act], bool]] = {
    "kill": (_kill, False),
    "pause": (_pause, False),
    "input/output error": (_raising(errno.EIO, None), False),
    "full disk": (_raising(errno.ENOSPC, _GROWING), True),
    "read-only disk": (_raising(errno.EROFS, MODIFYING), True),
    "store vanishes": (_vanish, False),
    "clock jumps": (_jump, False),
    "source changes": (_change_source, False),
}


class Clock:
    """The wall clock of this process, which can be made to jump; the monotonic one stays as it is."""

    def __init__(self) -> None:
        self._shift = 0.0
        self._time = time.time

    def jump(self, seconds: float) -> None:
        """Moves the clock by so many seconds, backwards if negative."""
        if not self._shift:
            self._take_over()
        self._shift += seconds

    def _take_over(self) -> None:
        clock, real, now = self, datetime.datetime, self._time

        class Shifted(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
                return real.fromtimestamp(now() + clock._shift, tz)

        time.time = lambda: now() + clock._shift
        for name, module in list(sys.modules.items()):
            if name.startswith("vae_ops.") and getattr(module, "datetime", None) is real:
                module.datetime = Shifted  # type: ignore[attr-defined]
