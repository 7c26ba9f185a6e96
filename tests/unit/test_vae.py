"""`TabularVAE`: reproducible rows whatever the shards, bundles that are whole and checked, a fit that learns."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vae_ops.errors import BundleError, UsageError
from vae_ops.sampling import BLOCK_ROWS, blocks_of_shard
from vae_ops.settings import TrainSettings
from vae_ops.training import TrainingProgress
from vae_ops.vae import TabularVAE

pytestmark = pytest.mark.slow


def table(rows: int = 1200) -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    return pa.table(
        {
            "id": [f"row-{i:05d}" for i in range(rows)],
            "x": np.round(x, 3),
            "y": np.where(x > 0, "up", "down"),
            "n": pa.array([None if value > 1.5 else int(value * 10) for value in x], pa.int32()),
            "when": pa.array(1_600_000_000 + (x * 1e6).astype("int64"), pa.int64()).cast(pa.timestamp("s", "UTC")),
            "constant": [1] * rows,
            "nothing": pa.nulls(rows, pa.string()),
        },
        metadata={"owner": "tests"},
    )


@pytest.fixture(scope="module")
def fitted() -> TabularVAE:
    return TabularVAE(settings=TrainSettings(steps=300)).fit(table())


def test_rows_have_exactly_the_schema(fitted: TabularVAE) -> None:
    rows = fitted.sample(500, seed=1)
    assert rows.schema.equals(table().schema, check_metadata=True)
    assert rows.num_rows == 500
    assert rows["constant"].unique().to_pylist() == [1]
    assert rows["nothing"].null_count == 500
    assert fitted.sample(0).schema.equals(table().schema, check_metadata=True)


def test_the_dependence_between_columns_is_learned(fitted: TabularVAE) -> None:
    rows = fitted.sample(4000, seed=1)
    up = np.array([value == "up" for value in rows["y"].to_pylist()])
    x = rows["x"].to_numpy()
    assert np.mean(up == (x > 0)) > 0.97
    assert np.mean(rows["n"].is_null().to_numpy() == (x > 1.5)) > 0.97


def test_shards_together_are_the_sample(fitted: TabularVAE) -> None:
    rows = 3 * BLOCK_ROWS + 100
    whole = fitted.sample(rows, seed=7)
    for shards in (1, 3, 8):
        parts = [
            part for shard in range(shards) for part in fitted.sample_shard(rows, seed=7, shard=shard, shards=shards)
        ]
        assert pa.concat_tables(parts).equals(whole)
    assert len(set(whole["id"].to_pylist())) == rows
    assert not fitted.sample(100, seed=8).equals(whole.slice(0, 100))


def test_blocks_cover_the_rows_once() -> None:
    for rows in (0, 1, BLOCK_ROWS, 5 * BLOCK_ROWS + 1):
        for shards in (1, 2, 7):
            blocks = [block for shard in range(shards) for block in blocks_of_shard(rows, shard, shards)]
            assert [number for number, _ in blocks] == list(range(-(-rows // BLOCK_ROWS)))
            assert sum(taken for _, taken in blocks) == rows


def test_the_same_seed_gives_the_same_model(fitted: TabularVAE) -> None:
    again = TabularVAE(settings=TrainSettings(steps=300)).fit(table())
    assert again.version == fitted.version
    other = TabularVAE(settings=TrainSettings(steps=300, seed=1)).fit(table())
    assert other.version != fitted.version


def test_a_saved_model_is_whole(fitted: TabularVAE, tmp_path: Path) -> None:
    assert fitted.save(tmp_path / "model") == fitted.version
    loaded = TabularVAE.load(tmp_path / "model")
    assert loaded.sample(300, seed=3).equals(fitted.sample(300, seed=3))
    assert loaded.version == fitted.version
    assert loaded.training_record == json.loads(json.dumps(fitted.training_record))
    for mine, theirs in zip(loaded.encode(table(50)), fitted.encode(table(50)), strict=True):
        assert mine.shape == (50, 16)
        assert mine == pytest.approx(theirs, abs=1e-5)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "manifest.json", "model.json", "weights.safetensors",
    ]  # fmt: skip


def test_reconstructions_resemble_their_rows() -> None:
    # After few steps a VAE hardly uses its latent yet; a plain autoencoder has nothing else to go by.
    fitted = TabularVAE(settings=TrainSettings(steps=400, variational=False)).fit(table())
    rows = table(600)
    rebuilt = fitted.reconstruct(rows, seed=1)
    assert rebuilt.schema == rows.schema
    assert rebuilt.equals(fitted.reconstruct(rows, seed=1))
    assert not rebuilt.equals(fitted.reconstruct(rows, seed=2))
    mean, _ = fitted.encode(rows)
    again, _ = fitted.encode(rebuilt)
    own = np.linalg.norm(mean - again, axis=1).mean()
    assert own < np.linalg.norm(mean - np.roll(again, 1, axis=0), axis=1).mean()


def test_loading_sampling_and_encoding_need_no_tensorflow(fitted: TabularVAE, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    code = (
        "import sys; from vae_ops.vae import TabularVAE; vae = TabularVAE.load(sys.argv[1]);"
        "vae.encode(vae.reconstruct(vae.sample(10)));"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_an_altered_model_is_refused(fitted: TabularVAE, tmp_path: Path, name: str) -> None:
    fitted.save(tmp_path / "model")
    path = tmp_path / "model" / name
    data = path.read_bytes()
    for altered in (data[:-1], data + b" ", b""):
        path.write_bytes(altered)
        with pytest.raises(BundleError, match=name):
            TabularVAE.load(tmp_path / "model")
    path.unlink()
    with pytest.raises(BundleError, match=name):
        TabularVAE.load(tmp_path / "model")


def test_a_model_of_a_newer_format_is_refused(fitted: TabularVAE, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model")
    manifest = tmp_path / "model" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(BundleError, match="newer"):
        TabularVAE.load(tmp_path / "model")
    with pytest.raises(BundleError, match="no model"):
        TabularVAE.load(tmp_path)


def test_saving_replaces_a_model_and_leaves_nothing_else(fitted: TabularVAE, tmp_path: Path) -> None:
    for _ in range(2):
        fitted.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_progress_is_reported_and_history_kept() -> None:
    seen: list[TrainingProgress] = []
    model = TabularVAE(settings=TrainSettings(steps=60), progress=seen.append).fit(table(300))
    assert seen[-1].step == 60
    assert [at.step for at in seen] == sorted({at.step for at in seen})
    assert seen[-1].holdout_loss is not None
    assert model.history[-1]["step"] == 60
    assert model.history[-1]["holdout_loss"] < model.history[0]["holdout_loss"]
    assert set(model.diagnosis["loss_by_column"]) == set(table().column_names)
    assert model.training_record["stopped_by"] == "plan"


def test_the_clock_is_a_safety_stop_and_is_recorded() -> None:
    settings = TrainSettings(time_budget_seconds=0.01)
    record = TabularVAE(settings=settings).fit(table(300)).training_record
    assert record["stopped_by"] in ("clock", "plan")
    assert record["steps"] <= record["planned_steps"]


@pytest.mark.parametrize(
    "settings", [{"decoder": "factorised"}, {"variational": False}, {"latent_dim": 3, "hidden_units": 8}]
)
def test_other_models_train_and_sample(settings: dict[str, object]) -> None:
    model = TabularVAE(settings=TrainSettings.from_dict({"steps": 20, **settings})).fit(table(300))
    assert model.sample(10).num_rows == 10


def test_a_table_with_nothing_to_learn_is_sampled_all_the_same() -> None:
    rows = pa.table({"constant": ["a"] * 60, "id": [f"x{i:03d}" for i in range(60)]})
    drawn = TabularVAE(settings=TrainSettings(steps=5)).fit(rows).sample(5000)
    assert drawn.schema.equals(rows.schema)
    assert len(set(drawn["id"].to_pylist())) == 5000


def test_an_unfitted_model_and_bad_rows_are_refused(fitted: TabularVAE) -> None:
    with pytest.raises(UsageError, match="fit"):
        TabularVAE().sample(1)
    with pytest.raises(UsageError, match="negative"):
        fitted.sample(-1)
    with pytest.raises(UsageError, match="Shards"):
        list(fitted.sample_shard(5, seed=0, shard=2, shards=2))
