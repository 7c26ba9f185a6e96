"""Leases on an object store: one holder at a time, none for ever, and whoever lost one notices."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from vae_ops import leases
from vae_ops.errors import BusyError, SettingsError
from vae_ops.leases import hold
from vae_ops.storage import Location, locate

_places = itertools.count()


@pytest.fixture
def lock() -> Location:
    """A lock on an object store without rename and without a kernel's locks."""
    return locate(f"memory://leases-{next(_places)}/.lock")


@pytest.fixture(autouse=True)
def lease_seconds(monkeypatch: pytest.MonkeyPatch) -> float:
    """Short leases, so that waiting for a death takes no time."""
    monkeypatch.setenv("VAE_OPS_LEASE_SECONDS", "1.5")
    return 1.5


def dead_claim(lock: Location, generation: int = 1, *, seconds: float = 0.3) -> Location:
    """A claim of somebody who does not renew it."""
    claim = lock.child(f"{generation:08d}.json")
    claim.write_json({"token": f"dead-{generation}", "owner": "Somebody", "seconds": seconds, "beat": 4})
    return claim


@contextlib.contextmanager
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signs of life are not written for the length of the block, as if the process slept."""
    with monkeypatch.context() as patch:
        patch.setattr(leases._Held, "_beat", lambda held: None)
        yield


def test_a_lease_held_alone_refuses_everybody_else_and_leaves_nothing(lock: Location) -> None:
    with hold(lock) as lease:
        for shared in (False, True):
            with pytest.raises(BusyError, match=r"Process \d+ on .* holds memory:.*lock"), hold(lock, shared=shared):
                pass
        lease.verify()
    assert lock.list() == []
    with hold(lock):
        pass


def test_a_shared_lease_is_shared_and_refuses_one_alone(lock: Location) -> None:
    with hold(lock, shared=True) as first, hold(lock, shared=True) as second:
        with pytest.raises(BusyError), hold(lock):
            pass
        first.verify()
        second.verify()
    assert lock.list() == []
    with hold(lock):
        pass


@pytest.mark.parametrize("shared", [False, True])
def test_a_dead_holder_is_known_as_dead_once_its_time_has_run_out(lock: Location, shared: bool) -> None:
    dead_claim(lock)
    begin = time.monotonic()
    with hold(lock, shared=shared):
        assert time.monotonic() - begin >= 0.3
    assert lock.list() == []


def test_a_dead_sharer_is_cleared_away_by_one_alone(lock: Location) -> None:
    dead_claim(lock).move_to(lock.child("with-dead.json"))
    with hold(lock):
        assert lock.list() == ["00000001.json"]
    assert lock.list() == []


def test_a_dead_sharer_does_not_bother_others_that_share(lock: Location) -> None:
    dead_claim(lock, seconds=1000).move_to(lock.child("with-dead.json"))
    with hold(lock, shared=True):
        pass


def test_whoever_waits_gets_the_lock_when_it_is_free(lock: Location) -> None:
    order: list[str] = []

    def wait() -> None:
        with hold(lock, wait=True):
            order.append("waiter")

    with hold(lock):
        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(0.3)
        order.append("holder")
    waiter.join()
    assert order == ["holder", "waiter"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_holder_that_slept_too_long_notices_before_it_commits(
    lock: Location, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    with hold(lock, shared=shared) as sleeper:
        with frozen(monkeypatch), hold(lock):
            pass
        with pytest.raises(BusyError, match=r"no sign of life for 1\.5 s"):
            sleeper.verify()
    assert lock.list() == []


def test_whoever_lost_a_lease_leaves_the_new_holder_alone(lock: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as later:
        with hold(lock) as sleeper:
            with frozen(monkeypatch):
                holder = later.enter_context(hold(lock))
            with pytest.raises(BusyError):
                sleeper.verify()
        assert "00000002.json" in lock.list()
        holder.verify()
    assert lock.list() == []


def test_a_holder_cut_off_from_the_store_gives_up_by_its_own_clock(
    lock: Location, monkeypatch: pytest.MonkeyPatch, lease_seconds: float
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("unreachable")

    with hold(lock) as lease:
        with monkeypatch.context() as patch:
            patch.setattr(Location, "write_json", refuse)
            with pytest.raises(OSError, match="unreachable"):
                lease.verify()
            lease._thread.join(1.5 * lease_seconds)  # type: ignore[attr-defined]
        with pytest.raises(BusyError):
            lease.verify()


def test_clocks_that_jump_change_nothing(lock: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(lock) as lease:
        for jump in (1e9, -1e9):
            monkeypatch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
            with pytest.raises(BusyError), hold(lock):
                pass
            lease.verify()


def test_whoever_has_slept_since_he_looked_steps_back(lock: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = iter([{"00000001.json": "dead-1"}])
    honest = leases._outlive_holder
    monkeypatch.setattr(leases, "_outlive_holder", lambda lock, wait: next(looked, None) or honest(lock, wait))
    with hold_first(lock, honest), pytest.raises(BusyError), hold(lock):
        pass
    assert lock.list() == []


@contextlib.contextmanager
def hold_first(lock: Location, honest: Any) -> Iterator[None]:
    """Holds generation 1, whatever others believe to have seen."""
    sign = leases._new_sign()
    claim = lock.child("00000001.json")
    stop = threading.Event()

    def renew() -> None:
        for beat in itertools.count():
            claim.write_json({"token": sign.token, "owner": sign.owner, "seconds": 1.5, "beat": beat})
            if stop.wait(0.1):
                return

    thread = threading.Thread(target=renew)
    thread.start()
    yield
    stop.set()
    thread.join()
    claim.remove()


def test_among_many_never_two_at_once(lock: Location) -> None:
    inside, most = 0, 0
    count = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(3):
            with hold(lock, wait=True) as lease:
                with count:
                    inside += 1
                    most = max(most, inside)
                lease.verify()
                with count:
                    inside -= 1

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (inside, most) == (0, 1)
    assert lock.list() == []


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "inf", "nan"])
def test_a_lease_needs_a_time(lock: Location, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("VAE_OPS_LEASE_SECONDS", text)
    with pytest.raises(SettingsError, match="VAE_OPS_LEASE_SECONDS"), hold(lock):
        pass
