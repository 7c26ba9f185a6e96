"""Names on disk: locks that die with their holder, removals that vanish whole, bounded litter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vae_ops.errors import BusyError, OutputError, SchemaError, SettingsError
from vae_ops.leases import hold
from vae_ops.storage import locate
from vae_ops.store import Output, Store, leaving_no_trace
from vae_ops.trees import replacing

HOLDER = """
import sys
from vae_ops.storage import locate
from vae_ops.store import Store
with Store(locate(sys.argv[1])).working_on(sys.argv[2], alone=True) as run:
    run.touch("train")
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(locate(tmp_path / "store"))


def start_holder(store: Store, run_id: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", HOLDER, store.root.uri, run_id]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def end(process: subprocess.Popen[bytes], *, kill: bool = False) -> None:
    if kill:
        process.kill()
    process.communicate()


def test_a_run_held_alone_refuses_everybody_else(store: Store) -> None:
    with store.working_on("cli-a", alone=True):
        for alone in (True, False):
            with pytest.raises(BusyError, match=r"cli-a"), store.working_on("cli-a", alone=alone):
                pass
        with store.working_on("cli-b", alone=True):
            pass
    assert store.root.child("runs").list() == []


def test_steps_of_one_run_share_it(store: Store) -> None:
    with store.working_on("nightly", alone=False):
        with store.working_on("nightly", alone=False):
            pass
        with pytest.raises(BusyError), store.working_on("nightly", alone=True):
            pass
    assert store.root.child("runs").list() == []


def test_a_killed_holder_frees_its_run(store: Store) -> None:
    holder = start_holder(store, "cli-a")
    with pytest.raises(BusyError), store.working_on("cli-a", alone=True):
        pass
    end(holder, kill=True)
    with store.working_on("cli-a", alone=True):
        pass


def test_waiting_for_a_lock_ends_when_its_holder_dies(tmp_path: Path, store: Store) -> None:
    holder = start_holder(store, "cli-a")
    waiter = f"""
from vae_ops.storage import locate
from vae_ops.leases import hold
print("waiting", flush=True)
with hold(locate({store.root.child("runs", ".cli-a.lock").path!r}), wait=True):
    print("mine", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", waiter], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"waiting\n"
    end(holder, kill=True)
    assert process.communicate()[0] == b"mine\n"


def test_a_lock_taken_on_a_removed_file_is_not_trusted(tmp_path: Path) -> None:
    lock = locate(tmp_path / "lock")
    with hold(lock):
        stale = os.open(lock.path, os.O_RDWR)
    os.close(stale)
    assert not os.path.exists(lock.path)
    with hold(lock), pytest.raises(BusyError), hold(lock):
        pass


def test_sweep_removes_dead_command_line_runs_and_spares_the_living(store: Store) -> None:
    end(start_holder(store, "cli-dead"), kill=True)
    living = start_holder(store, "cli-living")
    store.run("nightly-1").touch("train")
    store.run("cli-mine").touch("train")
    store.sweep(but="cli-mine")
    end(living)
    assert [name for name in store.root.child("runs").list() if name[0] != "."] == [
        "cli-living",
        "cli-mine",
        "nightly-1",
    ]


def test_sweep_finishes_a_removal_that_was_killed_halfway(store: Store) -> None:
    store.root.child("runs", ".making-cli-a.gone").make_dirs()
    store.sweep()
    assert store.root.child("runs").list() == []


def test_sweep_spares_fresh_scheduler_runs_and_drops_old_ones(store: Store) -> None:
    for night in range(5):
        run = store.run(f"nightly-{night}")
        run.touch("publish")
        run.state.write_json({"step": "publish", "updated_at": float(night)})
    store.run("nightly-4").touch("train")
    store.sweep(keep=2)
    assert store.root.child("runs").list() == ["nightly-3", "nightly-4"]


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "x" * 201, "-x"])
def test_run_ids_that_could_leave_their_directory_are_refused(store: Store, name: str) -> None:
    with pytest.raises(SettingsError, match="run id"):
        store.run(name)


def candidate(store: Store, run_id: str, text: str = "x") -> None:
    place = store.run(run_id).candidate
    place.make_dirs()
    place.child("manifest.json").write_atomic(text.encode())


def test_only_the_newest_refusals_are_kept(store: Store) -> None:
    for number in range(6):
        run = store.run(f"cli-{number}")
        run.touch("validate")
        run.state.write_json({"step": "validate", "updated_at": float(number)})
        run.parts.make_dirs()
        candidate(store, run.run_id)
        kept = store.reject(run)
        assert kept.list() == ["candidate", "state.json"]
    assert store.root.child("rejected").list() == ["cli-3", "cli-4", "cli-5"]
    assert store.root.child("runs").list() == []


def test_a_second_refusal_of_the_same_run_replaces_the_first(store: Store) -> None:
    for text in ("first", "second"):
        store.run("cli-1").touch("validate")
        candidate(store, "cli-1", text)
        kept = store.reject(store.run("cli-1"))
    assert kept.child("candidate", "manifest.json").read_bytes() == b"second"


def test_staging_is_gone_afterwards_and_swept_after_a_kill(tmp_path: Path) -> None:
    output = Output(locate(tmp_path))
    with output.staging("cli-a") as making:
        making.child("x").write_atomic(b"")
        output.sweep()
        assert making.exists()
        with pytest.raises(BusyError), output.staging("cli-a"):
            pass
    assert output.snapshots.list() == []
    output.snapshots.child(".making-cli-b").make_dirs()
    output.sweep()
    assert output.snapshots.list() == []


def test_pruning_spares_the_snapshot_that_the_pointer_names(tmp_path: Path) -> None:
    output = Output(locate(tmp_path))
    for name in "abcd":
        output.snapshot(name).make_dirs()
    output.keep_newest(2, order={"a": "1", "b": "2", "c": "3", "d": "4"}, named="a")
    assert output.snapshots.list() == ["a", "d"]


def test_refused_input_leaves_no_directory_behind(tmp_path: Path) -> None:
    output, store = Output(locate(tmp_path / "new/out")), Store(locate(tmp_path / "new/store"))

    def refuse() -> None:
        with leaving_no_trace(output, store), store.working_on("cli-a", alone=True):
            output.snapshots.make_dirs()
            raise SchemaError("no")

    with pytest.raises(SchemaError):
        refuse()
    assert list(tmp_path.iterdir()) == []


def test_other_errors_leave_what_helps_to_resume(tmp_path: Path) -> None:
    output, store = Output(locate(tmp_path / "out")), Store(locate(tmp_path / "store"))

    def fail() -> None:
        with leaving_no_trace(output, store), store.working_on("cli-a", alone=True) as run:
            run.touch("train")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.run("cli-a").state.exists()


def test_replacing_swaps_a_directory_whole(tmp_path: Path) -> None:
    target = locate(tmp_path / "deep/drawn")
    for text in (b"1", b"2"):
        with replacing(target, marker="_made") as making:
            making.child("_made").write_atomic(text)
    assert target.child("_made").read_bytes() == b"2"
    assert os.listdir(tmp_path / "deep") == ["drawn"]


def test_replacing_leaves_the_old_directory_when_the_block_fails(tmp_path: Path) -> None:
    target = locate(tmp_path / "drawn")
    with replacing(target, marker="_made") as making:
        making.child("_made").write_atomic(b"1")
    with pytest.raises(RuntimeError), replacing(target, marker="_made"):
        raise RuntimeError
    assert target.child("_made").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["drawn"]


def test_replacing_restores_what_a_kill_between_two_renames_put_aside(tmp_path: Path) -> None:
    old = tmp_path / ".drawn.old"
    old.mkdir()
    (old / "_made").write_text("1")
    with pytest.raises(RuntimeError), replacing(locate(tmp_path / "drawn"), marker="_made"):
        raise RuntimeError
    assert (tmp_path / "drawn/_made").read_text() == "1"


def test_replacing_spares_what_was_not_made_here(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match="already holds something else"), replacing(locate(tmp_path), marker="_made"):
        pass


def test_on_an_object_store_staging_is_as_private_and_leaves_as_little(tmp_path: Path) -> None:
    output = Output(locate(f"memory:/{tmp_path}/out"))
    with output.staging("cli-a") as making, output.committing():
        making.child("x").write_atomic(b"1")
        assert [name for name in output.snapshots.list() if name[0] != "."] == []
    assert output.snapshots.list() == []


def test_an_output_that_the_store_lies_in_needs_no_note(tmp_path: Path) -> None:
    home, distant = Output(locate(tmp_path / "home")), Output(locate(tmp_path / "distant"))
    store = Store(home.default_store)
    for output in (home, distant, distant):
        store.remember(output)
    assert [output.root for output in store.outputs()] == [home.root, distant.root]
    assert len(store.noted_outputs.list()) == 1
    os.rename(home.root.path, tmp_path / "moved")
    moved = Output(locate(tmp_path / "moved"))
    assert [output.root for output in Store(moved.default_store).outputs()] == [moved.root, distant.root]


def test_a_line_is_named_like_the_note_of_its_output(tmp_path: Path) -> None:
    home, distant = Output(locate(tmp_path / "home")), Output(locate(tmp_path / "distant"))
    store = Store(home.default_store)
    store.remember(distant)
    line = store.line_of(distant)
    assert store.noted_outputs.list() == [f"{line}.json"]
    assert store.line_of(home) == store.line_of(None) == "own"
    assert (store.fed_by("own"), store.fed_by(line)) == (home.root.uri, distant.root.uri)
    assert store.fed_by("0" * 16) == "0" * 16


def test_a_line_begins_with_its_first_record_and_ends_when_its_output_is_forgotten(tmp_path: Path) -> None:
    home, distant = Output(locate(tmp_path / "home")), Output(locate(tmp_path / "distant"))
    store = Store(home.default_store)
    store.remember(distant)
    line = store.line_of(distant)
    store.champion_line(line).make_dirs()
    store.champions.child("notes").make_dirs()
    assert store.lines() == []
    for name in (line, "own"):
        store.champion_line(name).make_dirs()
        store.champion_record(7, name).write_json({})
    assert store.lines() == sorted([line, "own"])
    for output in (home, distant):
        store.forget(output.root.uri)
    assert store.lines() == ["own"]
    assert store.outputs() == [home]
