"""One at a time: locks that die with their holder, on local disks and on object stores.

What a lock guards is said in `store.py`, which names every lock; nothing here knows of runs or models.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from vae_ops.errors import BusyError
from vae_ops.storage import Location

__all__ = ["hold"]


@contextlib.contextmanager
def hold(lock: Location, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Holds a lock file for the length of a `with` block; the kernel frees it if the process dies.

    The file is removed on the way out by its last holder, so that locks leave no litter. On an object store this does
    nothing.

    Raises:
        BusyError: Somebody else holds the lock and `wait` is False.
    """
    if not lock.is_local:
        yield
        return
    handle = _acquire(lock.path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
    try:
        yield
    finally:
        _release(handle, lock.path)


def _acquire(path: str, mode: int, wait: bool) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, mode if wait else mode | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise BusyError(f"Another process holds {path}: wait until it is done, then try again.") from error
        # The holder before us may have removed the file between our open and our lock: then ours guards nothing.
        if _still_names(path, handle):
            return handle
        os.close(handle)


def _release(handle: int, path: str) -> None:
    # Only whoever is alone may remove the file, or a second owner could lock a fresh one beside a shared holder.
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _still_names(path, handle):
            os.unlink(path)
    os.close(handle)


def _still_names(path: str, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
