"""One at a time: locks that end with their holder, on local disks and on object stores.

What a lock guards is said in `store.py`, which names every lock; nothing here knows of runs or models.

On a local disk the kernel holds the lock and drops it with the process. An object store offers only a put that fails if
the key exists, so there a lock is a directory of leases (Gray and Cheriton, 1989). `00000007.json` is the claim of
generation 7, and the highest generation is the holder. It renews its claim from a thread. Whoever sees no change of the
claim for as long as the claim says takes the holder for dead and creates generation 8, in which only one can succeed.
The old holder, should it only have slept, notices before it commits (`Lease.verify`): it finds the higher generation,
or that its own time has run out, which is earlier than anybody could take over. Time is measured by each process alone,
on a clock that nobody can set. Holders that share write a file of their own beside the claims, and each side looks for
the other only after it has written.
"""

import contextlib
import fcntl
import math
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from vae_ops.errors import BusyError, SettingsError
from vae_ops.storage import Location

__all__ = ["Lease", "hold"]

# Longer than any pause of a machine that is still at work, shorter than anybody minds after a kill.
_SECONDS = 30.0
_VARIABLE = "VAE_OPS_LEASE_SECONDS"
_BEATS = 3
_FIRST_LOOK = 0.05
_LOOKS = 10
_CLAIM = re.compile(r"([0-9]{8,})\.json")
_SHARER = "with-"


class Lease:
    """A lock that is held."""

    def verify(self) -> None:
        """Makes sure that the lock is still held, right before something that must not happen twice.

        What the kernel holds cannot be lost. A lease on an object store can, and is renewed here.

        Raises:
            BusyError: Another process took the lock over, as this one had shown no sign of life.
        """


@contextlib.contextmanager
def hold(lock: Location, *, shared: bool = False, wait: bool = False) -> Iterator[Lease]:
    """Holds a lock for the length of a `with` block; it ends with the process, and leaves nothing behind.

    Args:
        lock: A file on a local disk, a directory on an object store.
        shared: Beside others that share it; otherwise alone.
        wait: For others to be done.

    Raises:
        BusyError: Somebody else holds the lock and `wait` is False. On an object store that takes as long to find out
            as a sign of life does; a dead holder takes `VAE_OPS_LEASE_SECONDS` (30) to be known as dead.
    """
    with _kernel_lock(lock.path, shared, wait) if lock.is_local else _object_lease(lock, shared, wait) as lease:
        yield lease


# --- local disks -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _kernel_lock(path: str, shared: bool, wait: bool) -> Iterator[Lease]:
    handle = _acquire(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
    try:
        yield Lease()
    finally:
        _release(handle, path)


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


# --- object stores ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sign:
    """A sign of life: the content of a claim, or of a sharer's file.

    Attributes:
        token: Tells this holder from all others.
        owner: The same for a person.
        seconds: How long it counts as alive without another sign.
        beat: Number of this sign.
    """

    token: str
    owner: str
    seconds: float
    beat: int = 0


class _Held(Lease):
    """A lease on an object store, renewed from a thread.

    Args:
        lock: Directory of the lock.
        place: Claim or sharer's file of this holder.
        sign: The sign of life in it.
        since: Monotonic time before it was written.
    """

    def __init__(self, lock: Location, place: Location, sign: _Sign, since: float) -> None:
        self._lock = lock
        self._place = place
        self._sign = sign
        self._since = since
        self._turn = threading.Lock()
        self._done = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._renew, name=f"lease {lock.uri}", daemon=True)
        self._thread.start()

    def verify(self) -> None:
        self._beat()
        if self._lost:
            raise BusyError(
                f"Another process took over {self._lock.uri}, as this one had shown no sign of life for "
                f"{self._sign.seconds:g} s: start it again."
            )

    def stop(self) -> None:
        """Ends renewing, and gives the lock back unless it is lost already."""
        self._done.set()
        self._thread.join()
        # A lease that cannot be given back runs out by itself; what the block has done stands.
        with contextlib.suppress(Exception):
            if self._is_mine():
                _give_back(self._lock, self._place)

    def _renew(self) -> None:
        while not self._done.wait(self._sign.seconds / _BEATS):
            # fsspec packages raise trees of their own. A sign that was not written is not counted, so that the lease
            # runs out by itself if the trouble lasts.
            with contextlib.suppress(Exception):
                self._beat()

    def _beat(self) -> None:
        with self._turn:
            now = time.monotonic()
            self._lost = self._lost or now - self._since >= self._sign.seconds or not self._is_mine()
            if self._lost:
                return
            sign = replace(self._sign, beat=self._sign.beat + 1)
            self._place.write_json(asdict(sign))
            # A sign that took longer to write than a lease lasts may have come after somebody else's turn.
            self._lost = time.monotonic() - self._since >= self._sign.seconds
            self._sign, self._since = sign, now

    def _is_mine(self) -> bool:
        if self._lost:
            return False
        name = self._place.name
        if name.startswith(_SHARER):
            return _read(self._place) is not None
        claims = _claims(self._lock)
        return max(claims, default="") == name and claims[name] == self._sign.token


@contextlib.contextmanager
def _object_lease(lock: Location, shared: bool, wait: bool) -> Iterator[Lease]:
    held = _share(lock, wait) if shared else _claim(lock, wait)
    try:
        if not shared:
            _outlive_sharers(lock, wait)
        yield held
    finally:
        held.stop()


def _claim(lock: Location, wait: bool) -> _Held:
    """Becomes the highest generation of a lock whose holder is gone or dead."""
    while True:
        before = _outlive_holder(lock, wait)
        sign, since = _new_sign(), time.monotonic()
        place = lock.child(f"{_generation(before) + 1:08d}.json")
        if not place.create_json(asdict(sign)):
            continue
        # Of all who saw the same claims only one gets here. Whoever has slept since he looked finds claims that he has
        # not seen, and steps back; nobody else can have missed his.
        if _claims(lock) == {**before, place.name: sign.token}:
            return _Held(lock, place, sign, since)
        place.remove()


def _share(lock: Location, wait: bool) -> _Held:
    """Writes a sharer's file, and keeps it there if nobody holds the lock alone."""
    while True:
        sign, since = _new_sign(), time.monotonic()
        place = lock.child(f"{_SHARER}{sign.token}.json")
        place.write_json(asdict(sign))
        if not _claims(lock):
            return _Held(lock, place, sign, since)
        place.remove()
        if _outlive_holder(lock, wait):
            _claim(lock, wait).stop()


def _outlive_holder(lock: Location, wait: bool) -> dict[str, str]:
    """Returns the claims of a lock once its holder is gone or dead: none, or those of the dead.

    Raises:
        BusyError: The holder lives and `wait` is False.
    """
    while claims := _claims(lock):
        if _outlive(lock.child(max(claims)), wait):
            return claims
    return {}


def _outlive_sharers(lock: Location, wait: bool) -> None:
    for name in lock.list():
        if name.startswith(_SHARER) and _outlive(lock.child(name), wait):
            lock.child(name).remove()


def _outlive(place: Location, wait: bool) -> bool:
    """Watches a sign of life until it is gone (False) or has not changed for as long as it counts (True).

    Raises:
        BusyError: It has changed and `wait` is False.
    """
    seen, since, pause = _read(place), time.monotonic(), _FIRST_LOOK
    while seen is not None:
        # An object store tells nobody of a change, so there is no event to wait for.
        time.sleep(pause)
        pause = min(2 * pause, seen.seconds / _LOOKS)
        now, found = time.monotonic(), _read(place)
        if found == seen:
            if now - since >= seen.seconds:
                return True
            continue
        if found is not None and found.token == seen.token and not wait:
            raise BusyError(f"{seen.owner} holds {place.uri}: wait until it is done, then try again.")
        seen, since = found, time.monotonic()
    return False


def _claims(lock: Location) -> dict[str, str]:
    """Token of each claim, by name."""
    signs = {name: _read(lock.child(name)) for name in lock.list() if _CLAIM.fullmatch(name)}
    return {name: sign.token for name, sign in signs.items() if sign is not None}


def _generation(claims: dict[str, str]) -> int:
    return max((int(name.partition(".")[0]) for name in claims), default=0)


def _give_back(lock: Location, mine: Location) -> None:
    """Removes a holder's file, a claim after those of the dead before it."""
    if not mine.name.startswith(_SHARER):
        for name in sorted(_claims(lock)):
            if name < mine.name:
                lock.child(name).remove()
    mine.remove()


def _new_sign() -> _Sign:
    return _Sign(uuid.uuid4().hex, f"Process {os.getpid()} on {socket.gethostname()}", _lease_seconds())


def _lease_seconds() -> float:
    text = os.environ.get(_VARIABLE, str(_SECONDS))
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise SettingsError(f"{_VARIABLE} expects a number of seconds above 0, got {text!r}.")


def _read(place: Location) -> _Sign | None:
    try:
        return _Sign(**place.read_json())
    except FileNotFoundError:
        return None
