"""Nights in a row on one store: what is decided, who stays champion, and what later nights find."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.stand_in_model import LENIENT, StandInModel
from vae_ops import RunSettings, augment, load_latest
from vae_ops.errors import ContentError, GateRefusedError, UsageError
from vae_ops.records import AugmentResult
from vae_ops.registry import Champion, Registry
from vae_ops.storage import locate
from vae_ops.store import Output, Store

ROWS = 3_000
# Boosted trees would take most of the time, and nothing here is about them.
GATE = {**LENIENT["gate"], "max_c2st_auc": "off"}


def rows(seed: int, *, scale: float = 1.0, kinds: str = "abc") -> pa.Table:
    rng = np.random.default_rng(seed)
    amount = rng.normal(size=ROWS)
    kind = np.asarray(list(kinds))[np.clip((amount + rng.normal(size=ROWS)) * 1.2 + 1.5, 0, len(kinds) - 1).astype(int)]
    return pa.table({"amount": pa.array((amount * scale + 5).round(3)), "kind": pa.array(kind.tolist())})


class Careless(StandInModel):
    """Trained for one step, it draws each column for itself."""

    def sample_shard(self, rows: int, *, seed: int, shard: int = 0, shards: int = 1) -> Iterator[pa.Table]:
        for table in super().sample_shard(rows, seed=seed, shard=shard, shards=shards):
            yield table.set_column(0, "amount", pa.array(np.zeros(len(table))))


class Nights:
    """Runs nights on one output and remembers nothing but its place, and that of its store."""

    def __init__(self, output: Path, store: Path | None = None) -> None:
        self.output = output
        self.store = Store(locate(store or output / "_store"))
        self.registry = Registry(self.store, self.store.line_of(Output(locate(output))))

    def run(self, source: Any, *, engine: Any = StandInModel, **sections: Any) -> AugmentResult:
        settings = RunSettings.from_dict({"gate": GATE, **sections})
        return augment(source, self.output, store=self.store.root.uri, settings=settings, engine=engine)

    @property
    def champion(self) -> Champion:
        found = self.registry.champion()
        assert found is not None
        return found


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path / "out")


def test_a_quiet_night_trains_nothing(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nights.run(rows(1))
    assert (first.decision, first.reason) == ("retrain", "There is no model of an earlier night.")
    monkeypatch.delattr(StandInModel, "fit_tables")
    second = nights.run(rows(2))
    assert second.decision == "reuse"
    assert second.model_version == first.model_version
    assert second.snapshot_path != first.snapshot_path
    assert nights.champion.run_id == first.run_id
    assert nights.registry.versions() == [first.model_version]


def test_the_same_night_again_is_the_same_snapshot(nights: Nights) -> None:
    assert nights.run(rows(1)).snapshot_path == nights.run(rows(1)).snapshot_path


def test_a_drift_is_refreshed_and_then_quiet(nights: Nights) -> None:
    first = nights.run(rows(1))
    moved = nights.run(rows(2, scale=1.5))
    assert moved.decision == "refresh"
    assert "'amount'" in moved.reason
    lineage = nights.champion.lineage
    assert (lineage.version, lineage.parent, lineage.refreshes) == (moved.model_version, first.model_version, 1)
    assert lineage.scores == moved.metrics
    assert nights.run(rows(3, scale=1.5)).decision == "reuse"
    report = json.loads(Path(moved.report_path).with_name("_report.json").read_text())
    assert report["refresh"]["lineage"] == [moved.model_version, first.model_version]
    assert report["refresh"]["trial"]["challenger_wins"]


def test_a_new_category_is_refreshed(nights: Nights) -> None:
    nights.run(rows(1))
    found = nights.run(rows(2, kinds="abcd"))
    assert found.decision == "refresh"
    assert "'kind'" in found.reason


def test_a_new_column_is_trained_from_nothing(nights: Nights) -> None:
    nights.run(rows(1))
    wider = rows(2).append_column("more", pa.array(np.arange(ROWS) % 7))
    found = nights.run(wider)
    assert found.decision == "retrain"
    assert "'more'" in found.reason
    assert nights.champion.lineage.parent is None
    assert load_latest(nights.output).snapshot_path == found.snapshot_path


def test_a_broken_upstream_stops_the_night_and_changes_nothing(nights: Nights) -> None:
    first = nights.run(rows(1))
    broken = rows(2)
    emptied = pa.array([None if row % 5 < 2 else value for row, value in enumerate(broken["amount"].to_pylist())])
    with pytest.raises(ContentError, match=r"'amount'.*40.0 %"):
        nights.run(broken.set_column(0, "amount", emptied))
    assert load_latest(nights.output).snapshot_path == first.snapshot_path
    assert not list((nights.output / "_store/runs").iterdir())
    assert nights.run(broken.set_column(0, "amount", emptied), refresh={"broken_null_share": None}).decision != "reuse"


@pytest.mark.parametrize("mode", ["reuse", "refresh", "retrain"])
def test_every_decision_can_be_forced(nights: Nights, mode: str) -> None:
    nights.run(rows(1))
    assert nights.run(rows(2), refresh={"mode": mode}).decision == mode


def test_a_first_night_cannot_reuse(nights: Nights) -> None:
    with pytest.raises(UsageError, match=r"refresh\.mode is 'reuse', but there is no model"):
        nights.run(rows(1), refresh={"mode": "reuse"})
    assert not nights.output.exists()


@pytest.mark.parametrize("mode", ["refresh", "retrain"])
def test_a_bad_challenger_never_replaces_the_champion(nights: Nights, mode: str) -> None:
    first = nights.run(rows(1))
    # The careless engine also loads the champion, so that only what it trains itself is bad.
    engine = type("Mixed", (Careless,), {"load": StandInModel.load})
    found = nights.run(rows(2), engine=engine, refresh={"mode": mode})
    assert (found.decision, found.model_version) == (mode, first.model_version)
    assert nights.champion.version == first.model_version
    assert nights.champion.failed == mode
    report = json.loads(Path(found.report_path).with_name("_report.json").read_text())
    assert not report["refresh"]["trial"]["challenger_wins"]
    assert "amount" in Path(found.report_path).read_text()


def test_after_a_refresh_that_failed_a_drift_is_trained_from_nothing(nights: Nights) -> None:
    nights.run(rows(1))
    engine = type("Mixed", (Careless,), {"load": StandInModel.load})
    try:
        assert nights.run(rows(2, scale=1.02), engine=engine, refresh={"mode": "refresh"}).decision == "refresh"
    except GateRefusedError:
        pytest.fail("The champion fits these rows well enough to be published.")
    again = nights.run(rows(3, scale=1.5))
    assert again.decision == "retrain"
    assert "lost against it" in again.reason
    assert nights.champion.failed is None


def test_settings_that_change_what_is_learned_train_anew(nights: Nights) -> None:
    nights.run(rows(1))
    assert nights.run(rows(2), gate={**GATE, "borderline": 2.0}).decision == "reuse"
    assert nights.run(rows(2), train={"seed": 5}).decision == "retrain"


# --- files that arrive night by night -----------------------------------------------------------------------------


def test_only_new_files_move_the_model(nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, learned = tmp_path / "lake", []
    lake.mkdir()
    fit = StandInModel.fit_tables

    def listen(model: StandInModel, training: pa.Table, holdout: pa.Table, **how: Any) -> StandInModel:
        learned.append(training.num_rows + holdout.num_rows)
        return fit(model, training, holdout, **how)

    monkeypatch.setattr(StandInModel, "fit_tables", listen)
    settings = {"read": {"incremental": True}, "refresh": {"rehearsal_rows": 1_000}}
    for night, scale in enumerate([1.0, 1.0, 2.0], start=1):
        pq.write_table(rows(night, scale=scale), lake / f"night={night}.parquet")
        found = nights.run(lake, **settings)
        assert found.rows_source == night * ROWS
    # The first night learned all its rows, the second was quiet. The third took 1,000 of the first night's 3,000 rows
    # and as large a share of the 6,000 that came since, so that old and new are as frequent as they are in the lake.
    assert learned == [ROWS, 1_000 + 2_000]
    assert found.decision == "refresh"
    lineage = nights.champion.lineage
    assert (lineage.rows, len(lineage.watermark)) == (3 * ROWS, 3)
    assert nights.run(lake, **settings).decision == "reuse"


def test_whole_tables_leave_no_rows_beside_a_model(nights: Nights) -> None:
    found = nights.run(rows(1))
    assert nights.registry.rehearsal(found.model_version) is None


# --- several outputs on one store -----------------------------------------------------------------------------------


def test_outputs_that_share_a_store_do_not_take_each_others_champion(tmp_path: Path) -> None:
    store = tmp_path / "store"
    other = rows(9).rename_columns(["price", "side"])
    outputs = {"trades": rows(1), "quotes": other}
    first = {name: Nights(tmp_path / name, store).run(table) for name, table in outputs.items()}
    assert first["trades"].model_version != first["quotes"].model_version
    for _ in range(2):
        for name, table in outputs.items():
            # Another seed draws other rows, so that every night publishes; training and its seed stay as they were.
            seed = 1 + len(list((tmp_path / name / "snapshots").iterdir()))
            found = Nights(tmp_path / name, store).run(table, generate={"seed": seed}, publish={"keep_snapshots": 1})
            assert (found.decision, found.model_version) == ("reuse", first[name].model_version)
            assert Nights(tmp_path / name, store).champion.run_id == first[name].run_id
    assert Store(locate(store)).versions() == sorted(night.model_version for night in first.values())
