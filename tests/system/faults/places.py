"""Where a night takes place: source, output and store on a local disk or in a bucket, saved and restored at will.

Every night has its own table, in two files, so that a source can change by half. What happens there is the business of
`night.py`.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tests.stand_in_model import some_rows
from tests.system.faults.promises import names_below
from vae_ops.storage import Location, locate

__all__ = ["EMPTY", "LocalDisk", "Place", "locations", "night_parts"]

EMPTY = "nothing published yet"
_ROWS = 60
_SMALL_DISK = 8 * 2**20


def night_parts(night: int) -> tuple[pa.Table, pa.Table]:
    """The two halves of a night's table."""
    rows = some_rows(_ROWS, seed=night)
    return rows.slice(0, _ROWS // 2), rows.slice(_ROWS // 2)


class Place(Protocol):
    """What a night asks of the place where it happens; the three URIs never change."""

    source: str
    output: str
    store: str
    environment: Mapping[str, str]

    def bring_source(self, night: int) -> None:
        """Puts a night's table where the walk looks for it, and nothing else."""

    def save(self, state: str) -> None:
        """Remembers what lies in output and store."""

    def restore(self, state: str) -> None:
        """Brings that back, and removes all else."""

    def names(self) -> set[str]:
        """Every name in output and store."""

    def outside(self) -> set[str]:
        """Names of temporary files that were left elsewhere."""


class LocalDisk:
    """A directory.

    Args:
        root: An empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = root / "disk"
        self._states = root / "states"
        self._temporary = root / "temporary"
        self.source, self.output, self.store = str(root / "source"), str(self.disk / "out"), str(self.disk / "store")
        self.environment = {"TMPDIR": str(self._temporary)}
        for directory in (self.disk, self._states / EMPTY, self._temporary):
            directory.mkdir(parents=True)

    def bring_source(self, night: int) -> None:
        """Puts a night's table where the walk looks for it, and nothing else."""
        _write_source(self.source, night)

    def other_source(self, night: int) -> str:
        """A night's table elsewhere."""
        path = str(self.root / f"source-{night}")
        _write_source(path, night)
        return path

    def spare_part(self, night: int) -> str:
        """The second half of another night's table, outside the source."""
        path = self.root / f"spare-{night}.parquet"
        if not path.exists():
            pq.write_table(night_parts(night)[1], path)
        return str(path)

    def save(self, state: str) -> None:
        """Remembers what lies in output and store."""
        shutil.copytree(self.disk, self._states / state)

    def restore(self, state: str) -> None:
        """Brings that back, and removes all else."""
        self.clear()
        shutil.copytree(self._states / state, self.disk, dirs_exist_ok=True)

    def clear(self) -> None:
        """Removes all that walks have left."""
        for entry in [*self.disk.iterdir(), *self._temporary.iterdir()]:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def names(self) -> set[str]:
        """Every name in output and store."""
        return names_below(locate(self.disk))

    def outside(self) -> set[str]:
        """Names of temporary files that were left elsewhere."""
        return set(os.listdir(self._temporary))

    @property
    def aside(self) -> str:
        """Where the store goes when it vanishes."""
        return str(self.root / "aside")

    def bring_back(self, *, lost: bool) -> None:
        """Ends the absence of a store that has vanished; one that is lost is empty from now on."""
        if os.path.exists(self.aside):
            # What a walk has written where the store was mounted lies below the mount again.
            shutil.rmtree(self.store, ignore_errors=True)
            shutil.rmtree(self.aside) if lost else os.rename(self.aside, self.store)

    @contextlib.contextmanager
    def nearly_full(self, state: str, free_bytes: int) -> Iterator[None]:
        """A small disk in that state with so much room left, for the length of a `with` block; then there is room."""
        with self._mounted(state):
            ballast = self.disk / "ballast"
            status = os.statvfs(self.disk)
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(status.f_bavail * status.f_frsize - free_bytes, 1))
            try:
                yield
            finally:
                ballast.unlink()

    @contextlib.contextmanager
    def read_only(self, state: str) -> Iterator[None]:
        """A disk in that state on which nothing can be changed, for the length of a `with` block; then it can."""
        with self._mounted(state):
            _mount("-o", "remount,ro", str(self.disk))
            try:
                yield
            finally:
                _mount("-o", "remount,rw", str(self.disk))

    def can_mount(self) -> bool:
        """Whether this user may mount a small disk."""
        try:
            with self._mounted(EMPTY):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False

    @contextlib.contextmanager
    def _mounted(self, state: str) -> Iterator[None]:
        """A disk of its own; what is left there at the end is carried over to the place where it was mounted."""
        carried = self.root / "carried"
        _mount("-t", "tmpfs", "-o", f"size={_SMALL_DISK}", "vae-ops-faults", str(self.disk))
        try:
            self.restore(state)
            yield
            shutil.copytree(self.disk, carried)
        finally:
            subprocess.run(["umount", str(self.disk)], check=True)
        self.clear()
        shutil.copytree(carried, self.disk, dirs_exist_ok=True)
        shutil.rmtree(carried)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _write_source(directory: str, night: int) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    for number, part in enumerate(night_parts(night)):
        pq.write_table(part, f"{directory}/part-{number}.parquet")


def locations(place: Place) -> tuple[Location, Location]:
    """Output and store, opened."""
    return locate(place.output), locate(place.store)
