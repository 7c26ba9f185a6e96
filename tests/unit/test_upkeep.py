"""Between nights: a path leads to its store, and a roll back turns readers away from what was withdrawn."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.versions import promote, publish, run_of
from vae_ops import load_latest
from vae_ops.cli import commands
from vae_ops.errors import UsageError
from vae_ops.inspection import describe
from vae_ops.registry import Registry
from vae_ops.storage import locate
from vae_ops.store import Output, Store
from vae_ops.upkeep import collect_garbage, find_store, roll_back


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """An output with three nights of three models, the store inside."""
    output = Output(locate(tmp_path / "out"))
    store = Store(output.default_store)
    for night in (1, 2, 3):
        promote(store, f"v{night}", parent="v2" if night == 3 else None)
        publish(output, str(night) * 32, f"v{night}", published_at=f"2026-11-0{night}")
    return output


def call(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(commands, [*arguments, "--json"])
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_store_is_found_by_its_own_path_and_by_that_of_its_output(output: Output) -> None:
    store = Store(output.default_store)
    assert find_store(output.root.uri) == find_store(store.root.uri) == store


def test_where_there_is_no_store_nothing_is_collected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Expected a store"):
        collect_garbage(tmp_path, keep=1)
    assert list(tmp_path.iterdir()) == []


def test_a_roll_back_turns_readers_to_the_newest_snapshot_that_is_not_withdrawn(output: Output) -> None:
    record = roll_back(output.root.uri)
    assert (record.version, record.withdrawn, record.unchanged) == ("v2", ("v3",), ())
    assert record.snapshots == {output.root.uri: output.snapshot("2" * 32).uri}
    assert load_latest(output.root.uri).model_version == "v2"
    assert roll_back(output.root.uri).snapshots == {output.root.uri: output.snapshot("1" * 32).uri}


def test_a_roll_back_leaves_readers_of_other_models_where_they_are(output: Output) -> None:
    publish(output, "4" * 32, "v1", published_at="2026-11-04")
    assert roll_back(output.root.uri).snapshots == {}
    assert load_latest(output.root.uri).snapshot_id == "4" * 32


def test_a_roll_back_says_whose_readers_it_cannot_turn(output: Output) -> None:
    for night in (1, 2):
        output.snapshot(str(night) * 32).remove()
    record = roll_back(output.root.uri)
    assert (record.snapshots, record.unchanged) == ({}, (output.root.uri,))
    assert load_latest(output.root.uri).model_version == "v3"


@pytest.fixture
def distant(output: Output, tmp_path: Path) -> Output:
    """Another output of the same store, with two nights of models of its own."""
    store, distant = Store(output.default_store), Output(locate(tmp_path / "distant"))
    store.remember(distant)
    for night in (1, 2):
        promote(store, f"w{night}", line=store.line_of(distant))
        publish(distant, str(night + 4) * 32, f"w{night}", published_at=f"2026-11-0{night}")
    return distant


def test_a_roll_back_turns_readers_of_one_output_only(output: Output, distant: Output) -> None:
    # Two outputs of the same table may share a model; what one withdraws, the other keeps.
    publish(distant, "7" * 32, "v3", published_at="2026-11-03")
    record = roll_back(output.root.uri)
    assert (record.version, list(record.snapshots)) == ("v2", [output.root.uri])
    assert load_latest(distant.root.uri).snapshot_id == "7" * 32


def test_of_several_outputs_the_one_to_roll_back_is_named(output: Output, distant: Output) -> None:
    record = roll_back(output.default_store.uri, output=distant.root.uri)
    assert (record.version, record.snapshots) == ("w1", {distant.root.uri: distant.snapshot("5" * 32).uri})
    assert load_latest(output.root.uri).model_version == "v3"
    assert call("rollback", output.default_store.uri, "--output", output.root.uri)["version"] == "v2"


def test_without_a_name_a_roll_back_lists_the_outputs_of_the_store(output: Output, distant: Output) -> None:
    result = CliRunner().invoke(commands, ["rollback", output.default_store.uri])
    assert result.exit_code == 2
    assert f"champions of 2 outputs: name one of these with --output: {distant.root.uri}, {output.root.uri}." in (
        result.stderr
    )
    with pytest.raises(UsageError, match=rf"has no champion of /elsewhere: name one .*{distant.root.uri}"):
        roll_back(output.default_store.uri, output="/elsewhere")


def test_a_store_of_one_distant_output_needs_no_name(tmp_path: Path) -> None:
    store, distant = Store(locate(tmp_path / "store")), Output(locate(tmp_path / "distant"))
    store.remember(distant)
    with pytest.raises(UsageError, match="Expected a store"):
        roll_back(store.root.uri)
    for version in ("w1", "w2"):
        promote(store, version, line=store.line_of(distant))
    assert roll_back(store.root.uri).version == "w1"


def test_a_moved_output_keeps_its_champion(output: Output, tmp_path: Path) -> None:
    os.rename(output.root.path, tmp_path / "moved")
    assert roll_back(tmp_path / "moved").version == "v2"
    assert load_latest(tmp_path / "moved").model_version == "v2"


def test_the_command_rolls_back_to_a_version_and_says_so(output: Output) -> None:
    found = call("rollback", output.root.uri, "--to", "v1")
    assert (found["version"], found["withdrawn"]) == ("v1", ["v2", "v3"])
    champion = Registry(Store(output.default_store)).champion()
    assert champion is not None
    assert champion.version == "v1"


def test_the_command_refuses_an_unknown_version(output: Output) -> None:
    result = CliRunner().invoke(commands, ["rollback", output.root.uri, "--to", "v9"])
    assert result.exit_code == 2
    assert "'v9' is not an earlier version; the store has v1, v2, v3" in result.stderr


def test_the_command_collects_garbage_but_first_says_what(output: Output) -> None:
    store = Store(output.default_store)
    output.snapshot("1" * 32).remove()
    tried = call("gc", output.root.uri, "--keep", "1", "--dry-run")
    assert tried["removed"] == [store.model("v1").uri]
    assert store.versions() == ["v1", "v2", "v3"]
    done = call("gc", output.root.uri, "--keep", "1")
    assert done == {**tried, "dry_run": False}
    assert store.versions() == ["v2", "v3"]


def test_the_command_forgets_an_output_that_is_gone(output: Output, tmp_path: Path) -> None:
    store = Store(output.default_store)
    store.remember(Output(locate(tmp_path / "gone")))
    output.snapshot("1" * 32).remove()
    assert "--forget" in call("gc", store.root.uri, "--keep", "1")["doubts"][0]
    assert call("gc", store.root.uri, "--keep", "1", "--forget", str(tmp_path / "gone"))["doubts"] == []
    assert store.versions() == ["v2", "v3"]


def test_a_store_explains_its_champion(output: Output) -> None:
    store = Store(output.default_store)
    Registry(store).note_failed(run_of(store, "nightly"), decision="refresh", reason="Worse in shape.", version="v4")
    found = describe(store.root.uri)
    assert (found["models"], found["outputs"]) == (["v1", "v2", "v3"], [output.root.uri])
    champion = found["champions"][output.root.uri]
    assert champion["version"] == "v3"
    made = [(link["version"], link["decision"]) for link in champion["lineage"]]
    assert made == [("v3", "refresh"), ("v2", "retrain")]
    assert champion["failed_challenger"]["reason"] == "Worse in shape."


def test_a_store_explains_the_champion_of_every_output(output: Output, distant: Output) -> None:
    store = Store(output.default_store)
    store.model("w2").remove()
    champions = describe(store.root.uri)["champions"]
    assert {uri: champion and champion["version"] for uri, champion in champions.items()} == {
        output.root.uri: "v3",
        distant.root.uri: None,
    }
    assert CliRunner().invoke(commands, ["inspect", store.root.uri]).exit_code == 0


def test_of_a_model_that_is_gone_the_lineage_is_explained(output: Output) -> None:
    store = Store(output.default_store)
    for night in (1, 2):
        output.snapshot(str(night) * 32).remove()
    collect_garbage(output.root.uri, keep=1)
    found = describe(store.model("v2").uri)
    assert found["kind"] == "lineage of a model that is gone"
    assert found["lineage"][0]["version"] == "v2"
