"""What one step may take of its machine: its memory is watched, its processor cores are assigned.

Memory is watched from outside because no limit of the kernel's fits without root: `RLIMIT_AS` and `RLIMIT_DATA` count
what is reserved, and TensorFlow reserves far more than it touches (measured in a training: 3.3 GB of addresses and
1.6 GB of data for 0.86 GB of resident memory). `process.py` asks here while it waits; what exceeded a limit is killed
and named there.
"""

import os
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from vae_ops.errors import SettingsError

__all__ = ["Limits", "MemoryWatch", "format_bytes", "parse_cores", "parse_memory"]

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_INTERVAL_SECONDS = 0.5


@dataclass(frozen=True)
class Limits:
    """Bounds of one step; None is no bound.

    Attributes:
        memory_bytes: Resident memory of the step's process and its descendants.
        cores: Processor cores that all of its threads share.
    """

    memory_bytes: int | None = None
    cores: int | None = None

    def assign_cores(self, pid: int) -> None:
        """Confines a process that has just been started, and all it will start, to some of the cores that we may use.

        Which ones is left to chance: steps side by side on one worker would otherwise share the first cores.
        """
        allowed = os.sched_getaffinity(0)
        if self.cores is None or self.cores >= len(allowed):
            return
        try:
            os.sched_setaffinity(pid, random.sample(sorted(allowed), self.cores))
        except ProcessLookupError:
            return


class MemoryWatch:
    """Looks now and then at the resident memory of a process and its descendants.

    Args:
        pid: The process.
        limit_bytes: More than this is too much; None is no limit.

    Attributes:
        peak_bytes: The most that was seen.
    """

    def __init__(self, pid: int, limit_bytes: int | None) -> None:
        self._pid = pid
        self._limit_bytes = limit_bytes
        self._next = 0.0
        self._oom_kills = _oom_kills()
        self.peak_bytes = 0

    def look(self) -> None:
        """Measures, unless that was done a moment ago."""
        if time.monotonic() < self._next:
            return
        self.peak_bytes = max(self.peak_bytes, _resident_bytes(self._pid))
        self._next = time.monotonic() + _INTERVAL_SECONDS

    @property
    def is_exceeded(self) -> bool:
        """Whether more than the limit was seen."""
        return self._limit_bytes is not None and self.peak_bytes > self._limit_bytes

    @property
    def kernel_killed_somebody(self) -> bool:
        """Whether the kernel has killed any process for lack of memory since the watch began."""
        return _oom_kills() > self._oom_kills


def parse_memory(value: int | str | None, name: str) -> int | None:
    """Bytes from a number of them or from text such as `4GiB`, `4Gi`, `500 MB`; None where nothing was rendered.

    Args:
        value: What was given, or what a template rendered to.
        name: Which argument was meant.

    Raises:
        SettingsError: It is no amount above 0.
    """
    text = _text(value)
    if not text:
        return None
    if (found := _AMOUNT.fullmatch(text)) is not None:
        number, unit, binary = found.groups()
        amount = int(float(number) * (1024 if binary else 1000) ** _UNITS[unit.upper()])
        if amount > 0:
            return amount
    raise SettingsError(f"{name} expects an amount of memory such as '4GiB' or '500MB', got {value!r}.")


def parse_cores(value: int | str | None, name: str) -> int | None:
    """Number of processor cores; None where nothing was rendered.

    Args:
        value: What was given, or what a template rendered to.
        name: Which argument was meant.

    Raises:
        SettingsError: It is no whole number above 0.
    """
    text = _text(value)
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{name} expects a whole number of processor cores, 1 or more, got {value!r}.")
    return int(text)


def _text(value: int | str | None) -> str:
    return "" if value in (None, "None") else str(value).strip()


def format_bytes(amount: float) -> str:
    """An amount of memory for a person."""
    return f"{amount / 2**30:.2f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"


def _resident_bytes(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(map(_own_resident_bytes, family))


def _own_resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory, in any control group; 0 where it does not say."""
    try:
        counters = Path("/proc/vmstat").read_text("ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in counters.splitlines() if line.startswith("oom_kill ")), 0)
