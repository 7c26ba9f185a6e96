"""Processes that share a store on S3: leases between them, deaths among them, and what S3 says to a second creator."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.object_store import ObjectStore
from tests.versions import promote, publish
from vae_ops.errors import BusyError
from vae_ops.leases import hold
from vae_ops.retention import gc
from vae_ops.store import Output, Store

# Long enough for a busy machine to renew in time, short enough to wait for a death.
LEASE_SECONDS = 6.0

HOLDER = """
import sys
from vae_ops.errors import BusyError
from vae_ops.leases import hold
from vae_ops.storage import locate
try:
    with hold(locate(sys.argv[1])) as lease:
        print("held", flush=True)
        sys.stdin.readline()
        lease.verify()
        print("still mine", flush=True)
except BusyError as error:
    print(error, flush=True)
"""

COUNTER = """
import sys
from vae_ops.leases import hold
from vae_ops.storage import locate
lock, count = locate(sys.argv[1]), locate(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    with hold(lock, wait=True) as lease:
        value = count.read_json()
        lease.verify()
        count.write_json(value + 1)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def _lease_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_OPS_LEASE_SECONDS", str(LEASE_SECONDS))


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a script in a process of its own, and waits for its first line."""
    with contextlib.ExitStack() as processes:

        def run(script: str, *arguments: str, expect: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", script, *arguments]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            processes.enter_context(process)
            processes.callback(process.kill)
            assert answer_of(process) == expect
            return process

        yield run


def answer_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def nudge(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_that_contend_for_a_lease_lose_no_update(object_store: ObjectStore, start: Start) -> None:
    lock, count = object_store.location("lock"), object_store.location("count.json")
    count.write_json(0)
    processes = [start(COUNTER, lock.uri, count.uri, expect="ready") for _ in range(2)]
    for process in processes:
        nudge(process)
    assert [process.wait() for process in processes] == [0, 0]
    assert count.read_json() == 10
    assert object_store.keys() == ["count.json"]


def test_a_living_holder_is_respected_and_a_killed_one_is_not(object_store: ObjectStore, start: Start) -> None:
    lock = object_store.location("lock")
    holder = start(HOLDER, lock.uri, expect="held")
    with pytest.raises(BusyError, match=f"Process {holder.pid} on"), hold(lock):
        pass
    holder.kill()
    with hold(lock):
        assert object_store.keys() == ["lock/00000001.json", "lock/00000002.json"]
    assert object_store.keys() == []


def test_a_holder_that_was_stopped_notices_that_it_lost_its_lease(object_store: ObjectStore, start: Start) -> None:
    lock = object_store.location("lock")
    holder = start(HOLDER, lock.uri, expect="held")
    os.kill(holder.pid, signal.SIGSTOP)
    with hold(lock):
        os.kill(holder.pid, signal.SIGCONT)
        nudge(holder)
        assert "took over" in answer_of(holder)


def test_of_two_creators_s3_takes_the_first(object_store: ObjectStore) -> None:
    place = object_store.location("record.json")
    assert place.create_json({"token": "a"})
    assert not place.create_json({"token": "b"})
    assert place.read_json() == {"token": "a"}


def test_a_creator_whose_answer_was_lost_knows_its_own_file(object_store: ObjectStore) -> None:
    place = object_store.location("record.json")
    place.write_json({"token": "a"})
    assert place.create_json({"token": "a"})


def test_garbage_is_collected_on_s3(object_store: ObjectStore) -> None:
    output = Output(object_store.location("out"))
    store = Store(output.default_store)
    promote(store, "v1")
    promote(store, "v2", parent="v1")
    publish(output, "a" * 32, "v2")
    output.snapshots.child(".making-cli-dead", "part.parquet").write_atomic(b"x")
    output.snapshot("b" * 32).child("part.parquet").write_atomic(b"x")
    record = gc(store, keep=1)
    assert (record.kept, record.doubts) == ({"v2": "champion"}, ())
    assert json.loads(store.version("v1").lineage.read_bytes())["version"] == "v1"
    models = [
        f"out/_store/models/v2/{name}" for name in ("lineage.json", "manifest.json", "model.json", "profile.json")
    ]
    moves = ["out/_store/champions/own/00000001.json", "out/_store/champions/own/00000002.json"]
    parents = ["out/_store/models/v1/lineage.json"]
    assert object_store.keys() == [
        "out/_latest.json",
        *moves,
        *parents,
        *models,
        f"out/snapshots/{'a' * 32}/_manifest.json",
    ]
