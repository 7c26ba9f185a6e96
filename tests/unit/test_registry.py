"""Model versions: lineage, the moves of the crown, and what each leaves in the store."""

import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.stand_in_model import some_rows
from vae_ops.errors import BundleError, UsageError
from vae_ops.profiling import profile_source
from vae_ops.registry import Lineage, Registry
from vae_ops.storage import locate
from vae_ops.store import Store
from vae_ops.table import open_source

NOW = "2026-11-23T08:00:00+00:00"


@pytest.fixture(params=["local", "object"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """An empty registry on either kind of store."""
    return Registry(Store(locate(tmp_path / "store" if request.param == "local" else f"memory:/{tmp_path}/store")))


def lineage(version: str, run_id: str = "", **facts: Any) -> Lineage:
    about = {"parent": None, "decision": "retrain", "reason": "No model yet.", "run_id": run_id or f"run-{version}"}
    made = {"source": "s3://data/t", "source_fingerprint": "f", "code_version": "1", "settings_digest": "d"}
    return Lineage(version=version, **{**about, **made, "created_at": NOW, "trained_at": NOW, **facts})


def keep(registry: Registry, version: str, run_id: str = "", **facts: Any) -> Any:
    """Makes a candidate and keeps it among the versions."""
    record = lineage(version, run_id, **facts)
    run = registry.store.run(record.run_id)
    run.candidate.make_dirs()
    run.candidate.child("weights").write_atomic(version.encode())
    run.candidate.child("manifest.json").write_atomic(b"{}")
    registry.keep(run, record, {"format": 0}, None)
    return run


def promote(registry: Registry, version: str, run_id: str = "", **facts: Any) -> str:
    return registry.promote(keep(registry, version, run_id, **facts), version, keep=3)


def in_force(registry: Registry) -> str:
    champion = registry.champion()
    assert champion is not None
    return champion.version


def test_an_empty_store_has_no_champion(registry: Registry) -> None:
    assert registry.champion() is None
    assert registry.last_move() is None
    assert registry.store.versions() == []
    with pytest.raises(UsageError, match="no champion"):
        registry.rollback()


def test_a_promoted_version_is_whole_and_says_where_it_comes_from(registry: Registry) -> None:
    assert promote(registry, "v1", scores={"shape": 0.4}, watermark={"a.parquet": "12"}, rows=10) == ""
    champion = registry.champion()
    assert champion is not None
    assert (champion.version, champion.run_id, champion.history, champion.failed) == ("v1", "run-v1", ("v1",), None)
    assert champion.lineage == lineage("v1", scores={"shape": 0.4}, watermark={"a.parquet": "12"}, rows=10)
    assert registry.bundle("v1").list() == ["lineage.json", "manifest.json", "profile.json", "weights"]
    assert registry.store.versions() == ["v1"]


def test_profile_and_rehearsal_come_back_as_they_were(registry: Registry) -> None:
    rows = some_rows(50)
    profile = profile_source(open_source(rows))
    run = keep(registry, "v1")
    registry.keep(run, lineage("v1"), profile.to_dict(), rows)
    assert registry.profile("v1") == profile
    kept = registry.rehearsal("v1")
    assert kept is not None
    assert kept.equals(rows.unify_dictionaries())
    assert registry.rehearsal("v2") is None
    assert registry.profile("v2") is None


def test_a_profile_of_another_format_is_none(registry: Registry) -> None:
    keep(registry, "v1")
    assert registry.profile("v1") is None


def test_a_version_that_is_only_kept_is_not_champion(registry: Registry) -> None:
    promote(registry, "v1")
    keep(registry, "v2")
    assert in_force(registry) == "v1"
    assert registry.store.versions() == ["v1", "v2"]


def test_doing_it_again_moves_nothing(registry: Registry) -> None:
    for _ in range(2):
        promote(registry, "v1")
    assert registry.store.champion_numbers() == [1]


def test_a_night_that_reuses_the_champion_moves_nothing(registry: Registry) -> None:
    promote(registry, "v1")
    promote(registry, "v2")
    assert registry.promote(registry.store.run("another"), "v1", keep=3) == ""
    assert in_force(registry) == "v2"


def test_history_names_as_many_champions_as_are_kept(registry: Registry) -> None:
    for version in ("v1", "v2", "v3", "v4"):
        promote(registry, version)
    champion = registry.champion()
    assert champion is not None
    assert champion.history == ("v2", "v3", "v4")


def test_a_refresh_of_the_champion_in_force_is_promoted(registry: Registry) -> None:
    promote(registry, "v1")
    assert promote(registry, "v2", decision="refresh", parent="v1", refreshes=1) == ""
    assert [link.version for link in registry.lineage_of("v2")] == ["v2", "v1"]


def test_a_refresh_of_a_champion_that_lost_its_place_is_noted_and_not_promoted(registry: Registry) -> None:
    promote(registry, "v1")
    promote(registry, "v2")
    why = promote(registry, "v3", decision="refresh", parent="v1")
    assert "v1, which lost its place to v2" in why
    champion = registry.champion()
    assert champion is not None
    assert (champion.version, champion.failed) == ("v2", "refresh")
    assert champion.failure is not None
    assert (champion.failure.version, champion.failure.reason) == ("v3", why)


def test_a_retrain_needs_no_parent(registry: Registry) -> None:
    promote(registry, "v1")
    promote(registry, "v2")
    assert promote(registry, "v3") == ""
    assert in_force(registry) == "v3"


def test_a_failed_challenger_is_noted_once_and_forgotten_with_the_next_champion(registry: Registry) -> None:
    promote(registry, "v1")
    run = registry.store.run("night-2")
    for _ in range(2):
        registry.note_failed(run, decision="refresh", reason="Worse in shape.", version="v2")
    champion = registry.champion()
    assert champion is not None
    assert (champion.version, champion.run_id, champion.failed) == ("v1", "run-v1", "refresh")
    assert registry.store.champion_numbers() == [1, 2]
    promote(registry, "v3")
    champion = registry.champion()
    assert champion is not None
    assert champion.failed is None


def test_without_a_champion_there_is_nothing_to_fail_against(registry: Registry) -> None:
    registry.note_failed(registry.store.run("night-1"), decision="retrain", reason="")
    assert registry.last_move() is None


def test_rollback_goes_back_one_champion_at_a_time(registry: Registry) -> None:
    for version in ("v1", "v2", "v3"):
        promote(registry, version)
    for version in ("v2", "v1"):
        assert registry.rollback().version == version
        assert in_force(registry) == version
    with pytest.raises(UsageError, match="the first that is remembered"):
        registry.rollback()


def test_rollback_to_a_version_withdraws_all_that_came_after_it(registry: Registry) -> None:
    for version in ("v1", "v2", "v3"):
        promote(registry, version)
    move = registry.rollback("v1")
    assert (move.history, move.withdrawn) == (("v1",), ("v2", "v3"))


@pytest.mark.parametrize("version", ["v9", "v1"])
def test_rollback_refuses_what_is_not_an_earlier_version(registry: Registry, version: str) -> None:
    promote(registry, "v1")
    with pytest.raises(UsageError, match=f"'{version}' is not an earlier version; the store has v1"):
        registry.rollback(version)


def test_no_run_promotes_again_what_was_rolled_back(registry: Registry) -> None:
    for version in ("v1", "v2"):
        promote(registry, version)
    registry.rollback()
    assert "was rolled back" in promote(registry, "v2")
    assert in_force(registry) == "v1"
    assert registry.rollback("v2").withdrawn == ("v1",)
    assert in_force(registry) == "v2"


def test_a_refresh_of_what_was_rolled_back_meanwhile_is_not_promoted(registry: Registry) -> None:
    promote(registry, "v1")
    promote(registry, "v2")
    run = keep(registry, "v3", decision="refresh", parent="v2")
    registry.rollback()
    assert "lost its place to v1" in registry.promote(run, "v3", keep=3)


def test_a_version_made_anew_takes_the_new_lineage_and_never_itself_as_parent(registry: Registry) -> None:
    promote(registry, "v1")
    promote(registry, "v2", "night-2", decision="refresh", parent="v1")
    promote(registry, "v2", "night-3", decision="refresh", parent="v2", refreshes=2)
    assert [link.version for link in registry.lineage_of("v2")] == ["v2", "v1"]
    champion = registry.champion()
    assert champion is not None
    assert (champion.run_id, champion.lineage.refreshes) == ("night-3", 2)


def test_a_champion_whose_files_are_gone_is_none(registry: Registry) -> None:
    promote(registry, "v1")
    registry.bundle("v1").remove()
    assert registry.champion() is None


def test_what_was_not_kept_cannot_be_promoted(registry: Registry) -> None:
    with pytest.raises(UsageError, match="not among the versions"):
        registry.promote(registry.store.run("night-1"), "v1", keep=3)


def test_a_run_without_candidate_cannot_be_kept(registry: Registry) -> None:
    with pytest.raises(UsageError, match="no candidate"):
        registry.keep(registry.store.run("night-1"), lineage("v1"), {}, None)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": 1}', b"\xff"])
def test_a_damaged_record_is_an_error_that_names_it(registry: Registry, content: bytes) -> None:
    promote(registry, "v1")
    registry.store.version("v1").lineage.write_atomic(content)
    with pytest.raises(BundleError, match=r"lineage\.json"):
        registry.champion()
    registry.store.champion_record(1).write_atomic(content)
    with pytest.raises(BundleError, match=r"00000001\.json"):
        registry.last_move()


def test_a_damaged_rehearsal_is_an_error_that_names_it(registry: Registry) -> None:
    keep(registry, "v1")
    registry.store.version("v1").rehearsal.write_atomic(b"ARROW1")
    with pytest.raises(BundleError, match=r"rehearsal\.arrow"):
        registry.rehearsal("v1")


def test_records_of_a_later_version_are_read(registry: Registry) -> None:
    promote(registry, "v1")
    for location in (registry.store.version("v1").lineage, registry.store.champion_record(1)):
        location.write_json({**location.read_json(), "invented_later": 1})
    assert in_force(registry) == "v1"


def test_many_writers_at_once_lose_no_move(registry: Registry) -> None:
    runs = {f"v{number}": keep(registry, f"v{number}") for number in range(6)}
    barrier = threading.Barrier(len(runs))

    def race(version: str) -> None:
        barrier.wait()
        registry.promote(runs[version], version, keep=9)

    threads = [threading.Thread(target=race, args=(version,)) for version in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.store.champion_numbers() == [1, 2, 3, 4, 5, 6]
    last = registry.last_move()
    assert last is not None
    assert sorted(last.history) == sorted(runs)


@pytest.fixture
def other(registry: Registry) -> Registry:
    """The same store as another output sees it."""
    return Registry(registry.store, "0123456789abcdef")


def test_each_output_has_a_champion_of_its_own(registry: Registry, other: Registry) -> None:
    promote(registry, "v1")
    assert other.champion() is None
    promote(other, "w1")
    promote(other, "w2", decision="refresh", parent="w1")
    assert (in_force(registry), in_force(other)) == ("v1", "w2")
    assert registry.store.lines() == [other.line, registry.line]
    moves = [registry.store.champion_numbers(line) for line in registry.store.lines()]
    assert moves == [[1, 2], [1]]


def test_one_version_may_be_champion_of_two_outputs(registry: Registry, other: Registry) -> None:
    promote(registry, "v1")
    promote(other, "v1", "another-dag")
    assert in_force(registry) == in_force(other) == "v1"


def test_a_challenger_fails_on_its_own_line(registry: Registry, other: Registry) -> None:
    promote(registry, "v1")
    promote(other, "w1")
    other.note_failed(other.store.run("night-2"), decision="refresh", reason="Worse in shape.")
    champions = [line.champion() for line in (registry, other)]
    assert [champion and champion.failed for champion in champions] == [None, "refresh"]


def test_a_line_is_rolled_back_alone_and_never_to_a_model_of_another(registry: Registry, other: Registry) -> None:
    for version in ("v1", "v2"):
        promote(registry, version)
    for version in ("w1", "v1", "w2"):
        promote(other, version)
    keep(registry, "v3")
    assert registry.versions() == ["v1", "v2", "v3"]
    with pytest.raises(UsageError, match="'w1' is not an earlier version; the store has v1, v2, v3"):
        registry.rollback("w1")
    assert registry.rollback().version == "v1"
    assert in_force(other) == "w2"
    assert "was rolled back" in promote(registry, "v2")
    assert promote(other, "v2", "another-dag") == ""


def test_bundles_of_the_registry_are_plain_json_and_arrow(registry: Registry) -> None:
    rows = pa.table({"x": pa.array(["a", "b"]).dictionary_encode()})
    registry.keep(keep(registry, "v1"), lineage("v1"), {}, rows)
    place = registry.store.version("v1")
    assert json.loads(place.lineage.read_bytes())["version"] == "v1"
    assert pa.ipc.open_file(place.rehearsal.read_bytes()).read_all().equals(rows)
