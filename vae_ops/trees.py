"""Whole directories: given their final name, copied, replaced and removed so that nobody sees half of one.

Which directories there are, and which file makes one whole, is said in `store.py`; single files are the business of
`storage.py`.
"""

import contextlib
import os
from collections.abc import Iterator

from vae_ops.errors import OutputError
from vae_ops.leases import hold
from vae_ops.storage import Location

__all__ = ["GONE", "MAKING", "copy_tree", "discard", "move_tree", "replacing"]

# Begin and end of names in the making, and in the unmaking.
MAKING = ".making-"
GONE = ".gone"


def move_tree(source: Location, target: Location, *, last: str) -> None:
    """Gives a finished directory its final name: one rename on a local disk, else copies with `last` written last."""
    if source.is_local:
        source.move_to(target)
        _sync(os.path.dirname(target.path))
        return
    copy_tree(source, target, last=last)
    source.remove()


def copy_tree(source: Location, target: Location, *, last: str = "") -> None:
    """Copies a directory of files and directories, the file named `last` at the end."""
    target.make_dirs()
    for name in sorted(source.list(), key=lambda name: (name == last, name)):
        part = source.child(name)
        if part.is_dir():
            copy_tree(part, target.child(name), last=last)
        else:
            part.fs.copy(part.path, target.child(name).path)


def _sync(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard(parent: Location, name: str, *, first: str) -> None:
    """Removes a directory that readers may know: on a local disk it vanishes whole, else `first` goes first.

    Args:
        parent: Where it lies.
        name: Its name.
        first: The file whose presence says that the directory is whole.
    """
    if not parent.is_local:
        parent.child(name, first).remove()
        parent.child(name).remove()
        return
    trash = parent.child(f"{MAKING}{name}{GONE}")
    trash.remove()
    with contextlib.suppress(FileNotFoundError):
        parent.child(name).move_to(trash)
        trash.remove()


@contextlib.contextmanager
def replacing(target: Location, *, marker: str) -> Iterator[Location]:
    """A new directory that takes the place of `target` when the block ends well.

    Args:
        target: A directory that is missing, empty, or made here before.
        marker: Name of the file that tells a directory made here; the block writes it.

    Raises:
        OutputError: The target holds something that was not made here.
        BusyError: Another process is replacing the same directory.
    """
    if target.list() and not target.child(marker).exists():
        raise OutputError(f"{target.uri!r} already holds something else; choose a new directory, or empty it.")
    making, old = _beside(target, "making"), _beside(target, "old")
    target.parent.make_dirs()
    with hold(_beside(target, "lock")):
        if old.exists() and not target.exists():
            old.move_to(target)
        for leftover in (making, old):
            leftover.remove()
        making.make_dirs()
        try:
            yield making
            _swap(making, target, old, marker)
        finally:
            making.remove()


def _swap(making: Location, target: Location, old: Location, marker: str) -> None:
    if not target.is_local:
        target.remove()
    elif target.child(marker).exists():
        target.move_to(old)
    move_tree(making, target, last=marker)
    old.remove()


def _beside(location: Location, role: str) -> Location:
    """A hidden neighbour of a directory."""
    return location.parent.child(f".{location.name}.{role}")
