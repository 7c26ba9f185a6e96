"""Garbage collection: what nothing points at goes, what something points at stays, and so does what is unclear."""

import os
from pathlib import Path

import pytest

from tests.versions import promote, publish, run_of
from vae_ops.errors import SettingsError
from vae_ops.leases import hold
from vae_ops.registry import Registry
from vae_ops.retention import gc
from vae_ops.storage import locate
from vae_ops.store import Output, Run, Store


@pytest.fixture(params=["local", "object"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Output:
    """An empty output on either kind of store."""
    return Output(locate(tmp_path / "out" if request.param == "local" else f"memory:/{tmp_path}/out"))


@pytest.fixture(autouse=True)
def _short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAE_OPS_LEASE_SECONDS", "2")


@pytest.fixture
def store(output: Output) -> Store:
    return Store(output.default_store)


def long_ago(run: Run) -> None:
    run.state.write_json({"step": "train", "updated_at": 0.0})


def test_an_empty_store_holds_no_garbage(store: Store) -> None:
    assert gc(store, keep=1).removed == ()
    assert not store.root.exists()


def test_champions_stay_as_many_as_are_kept(store: Store) -> None:
    for version in ("v1", "v2", "v3"):
        promote(store, version)
    record = gc(store, keep=2)
    assert record.removed == (store.model("v1").uri,)
    assert record.kept == {"v2": "an earlier champion", "v3": "champion"}
    assert store.models.list() == ["v2", "v3"]


def test_champions_of_every_line_stay(output: Output, store: Store) -> None:
    distant = Output(output.root.parent.child("elsewhere"))
    store.remember(distant)
    publish(distant, "b" * 32, "w3")
    for version in ("v1", "v2"):
        promote(store, version)
    for version in ("w1", "v2", "w2", "w3"):
        promote(store, version, line=store.line_of(distant))
    record = gc(store, keep=2)
    assert record.removed == (store.model("w1").uri,)
    assert record.kept == {"v1": "an earlier champion", "v2": "champion", "w2": "an earlier champion", "w3": "champion"}
    distant.root.remove()
    store.forget(distant.root.uri)
    assert gc(store, keep=1).kept == {"v2": "champion"}


def test_a_model_behind_a_snapshot_stays(output: Output, store: Store) -> None:
    promote(store, "v1")
    promote(store, "v2")
    publish(output, "a" * 32, "v1")
    assert gc(store, keep=1).kept == {"v1": f"snapshot {'a' * 32}", "v2": "champion"}
    output.snapshot("a" * 32).remove()
    assert gc(store, keep=1).kept == {"v2": "champion"}


def test_a_model_behind_a_snapshot_of_a_distant_output_stays(output: Output, store: Store) -> None:
    distant = Output(output.root.parent.child("elsewhere"))
    store.remember(distant)
    publish(distant, "b" * 32, "v1")
    promote(store, "v1")
    promote(store, "v2")
    assert gc(store, keep=1).kept == {"v1": f"snapshot {'b' * 32}", "v2": "champion"}


def test_while_an_output_cannot_be_seen_no_model_goes(output: Output, store: Store) -> None:
    distant = Output(output.root.parent.child("elsewhere"))
    store.remember(distant)
    promote(store, "v1")
    promote(store, "v2")
    record = gc(store, keep=1)
    assert store.models.list() == ["v1", "v2"]
    assert set(record.kept) == {"v1", "v2"}
    assert distant.root.uri in record.doubts[0]
    store.forget(distant.root.uri)
    assert gc(store, keep=1).removed == (store.model("v1").uri,)


def test_a_model_that_a_run_uses_stays(store: Store) -> None:
    promote(store, "v1")
    run_of(store, "nightly", "v1")
    promote(store, "v2")
    assert gc(store, keep=1).kept == {"v1": "run nightly", "v2": "champion"}


def test_a_run_that_has_not_said_which_model_it_uses_may_use_any(store: Store) -> None:
    promote(store, "v1")
    promote(store, "v2")
    run = run_of(store, "nightly")
    assert gc(store, keep=1).doubts == ("Run nightly has not said yet which model it uses.",)
    long_ago(run)
    with store.working_on("nightly", alone=False):
        assert gc(store, keep=1).doubts
    assert store.models.list() == ["v1", "v2"]
    assert gc(store, keep=1).removed == (store.model("v1").uri,)


@pytest.mark.parametrize("what", ["train", "manifest", "champion", "champion of another output", "lineage"])
def test_what_cannot_be_read_may_point_anywhere(output: Output, store: Store, what: str) -> None:
    promote(store, "v1")
    promote(store, "v2")
    promote(store, "v2", line="0" * 16)
    publish(output, "a" * 32, "v2")
    places = {
        "train": run_of(store, "nightly", "v2").trained,
        "manifest": output.manifest(output.snapshot("a" * 32)),
        "champion": store.champion_record(2),
        "champion of another output": store.champion_record(1, "0" * 16),
        "lineage": store.version("v2").lineage,
    }
    places[what].write_atomic(b"\xff")
    assert any("cannot be read" in doubt for doubt in gc(store, keep=1).doubts)
    assert store.models.list() == ["v1", "v2"]


def test_of_what_a_version_descends_from_the_lineage_stays(store: Store) -> None:
    promote(store, "v0")
    promote(store, "v1")
    promote(store, "v2", parent="v1")
    promote(store, "v3", parent="v2")
    for _ in range(2):
        gc(store, keep=1)
        assert store.models.list() == ["v1", "v2", "v3"]
        assert store.model("v1").list() == store.model("v2").list() == ["lineage.json"]
        assert store.versions() == ["v3"]
    assert [link.version for link in Registry(store).lineage_of("v3")] == ["v3", "v2", "v1"]
    promote(store, "v4")
    gc(store, keep=1)
    assert store.models.list() == ["v4"]


def test_thinning_that_was_killed_halfway_is_finished(store: Store) -> None:
    promote(store, "v1")
    promote(store, "v2", parent="v1")
    store.version("v1").manifest.remove()
    gc(store, keep=1)
    assert store.model("v1").list() == ["lineage.json"]


def test_dead_runs_and_what_they_were_making_goes(output: Output, store: Store) -> None:
    run_of(store, "cli-dead", "v1")
    output.snapshots.child(".making-cli-dead").make_dirs()
    output.snapshots.child(".making-cli-dead", "x").write_atomic(b"")
    if output.root.is_local:
        store.runs.child(".making-cli-gone.gone").make_dirs()
    with store.working_on("cli-living", alone=True) as living, output.staging("cli-living") as making:
        living.touch("train")
        making.child("x").write_atomic(b"")
        record = gc(store, keep=1)
        assert living.state.exists()
        assert making.child("x").exists()
    assert record.removed == (store.run("cli-dead").root.uri, output.snapshots.child(".making-cli-dead").uri)
    assert [name for name in store.runs.list() if name[0] == "."] == []


def test_a_dry_run_says_the_same_and_removes_nothing(output: Output, store: Store) -> None:
    for version in ("v1", "v2"):
        promote(store, version)
    run_of(store, "cli-dead", "v1")
    output.snapshots.child(".making-cli-dead").make_dirs()
    output.snapshots.child(".making-cli-dead", "x").write_atomic(b"")
    before = output.root.fs.find(output.root.path)
    tried = gc(store, keep=1, dry_run=True)
    assert output.root.fs.find(output.root.path) == before
    done = gc(store, keep=1)
    assert tried.removed == done.removed
    assert len(done.removed) == 3
    assert (tried.dry_run, done.dry_run) == (True, False)


def test_a_snapshot_without_manifest_goes_and_what_is_no_snapshot_stays(output: Output, store: Store) -> None:
    torn = output.snapshot("c" * 32)
    for place in (torn, output.snapshot("mine")):
        place.make_dirs()
        place.child("part.parquet").write_atomic(b"")
    publish(output, "d" * 32, "v1")
    assert gc(store, keep=1).removed == (torn.uri,)
    assert output.snapshots.list() == ["d" * 32, "mine"]


def test_old_runs_of_a_scheduler_go_but_for_the_newest(store: Store) -> None:
    for night in range(4):
        long_ago(run_of(store, f"nightly-{night}", "v1"))
        run = store.run(f"nightly-{night}")
        run.state.write_json({"step": "publish", "updated_at": float(night)})
    assert gc(store, keep=9).removed == gc(store, keep=3, but="nightly-3").removed == ()
    assert gc(store, keep=3).removed == (store.run("nightly-0").root.uri,)


def test_records_of_moves_long_past_go(store: Store) -> None:
    line = "0" * 16
    promote(store, "v1")
    promote(store, "v1", line=line)
    record = store.champion_record(1, line).read_json()
    for number in range(2, 104):
        store.champion_record(number, line).write_json({**record, "number": number})
    gc(store, keep=1)
    assert store.champion_numbers(line) == list(range(4, 104))
    assert store.champion_numbers() == [1]


@pytest.mark.parametrize("keep", [0, -1])
def test_the_champion_cannot_be_given_up(store: Store, keep: int) -> None:
    with pytest.raises(SettingsError, match="at least 1"):
        gc(store, keep=keep)


def test_files_that_never_got_their_name_go_unless_somebody_writes_them(tmp_path: Path) -> None:
    output = Output(locate(tmp_path))
    store = Store(output.default_store)
    promote(store, "v1")
    run = run_of(store, "nightly", "v1")
    run.parts.make_dirs()
    run.published.write_json({})
    litter = [output.root, store.champion_line(), store.champion_line("0" * 16), store.model("v1"), run.parts]
    store.champion_line("0" * 16).make_dirs()
    for place in litter:
        place.child(".x.json.tmp").write_atomic(b"")
    written = store.root.child(".y.json.tmp")
    with hold(written):
        gc(store, keep=1)
        assert os.path.exists(written.path)
    for place in litter:
        assert not place.child(".x.json.tmp").exists()


def test_an_output_behind_an_unknown_connection_may_point_at_any_model(store: Store) -> None:
    for version in ("v1", "v2"):
        promote(store, version)
    store.noted_outputs.make_dirs()
    store.noted_outputs.child("ab.json").write_json({"output": "s3://moon@bucket/out"})
    record = gc(store, keep=1)
    assert record.removed == ()
    assert [doubt.partition(" (")[0] for doubt in record.doubts] == ["s3://moon@bucket/out cannot be read"]
