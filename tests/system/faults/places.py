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
        for entry in [*self.disk.iterdir(), *self._temporary.iterdir()]:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.copytree(self._states / state, self.disk, dirs_exist_ok=True)

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
    def small(self, size_bytes: int) -> Iterator[None]:
        """A disk of that size, for the length of a `with` block."""
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "vae-ops-faults", str(self.disk)]
        subprocess.run(mount, check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(self.disk)], check=True)

    def can_mount(self) -> bool:
        """Whether this user may mount a small disk."""
        try:
            with self.small(2**20):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False

    def fill(self, free_bytes: int) -> None:
        """Leaves so many bytes free on a small disk."""
        status = os.statvfs(self.disk)
        size = status.f_bavail * status.f_frsize - free_bytes
        with open(self._ballast, "wb") as file:
            if size > 0:
                os.posix_fallocate(file.fileno(), 0, size)

    def empty(self) -> None:
        """Takes away what `fill` put there."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.disk / "ballast"


def _write_source(directory: str, night: int) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    for number, part in enumerate(night_parts(night)):
        pq.write_table(part, f"{directory}/part-{number}.parquet")


def locations(place: Place) -> tuple[Location, Location]:
    """Output and store, opened."""
    return locate(place.output), locate(place.store)
