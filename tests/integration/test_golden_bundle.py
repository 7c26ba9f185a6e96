"""The golden bundles: what earlier versions wrote is loaded, draws the same rows and can be refreshed, for years."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from tests.golden.make_golden import ROWS, SEED, source
from vae_ops.bundle import BUNDLE_FORMAT, OLDEST_FORMAT
from vae_ops.inspection import describe
from vae_ops.settings import TrainSettings
from vae_ops.vae import TabularVAE

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = range(OLDEST_FORMAT, BUNDLE_FORMAT + 1)


@pytest.fixture(params=FORMATS)
def golden(request: pytest.FixtureRequest) -> Path:
    return GOLDEN / f"format-{request.param}"


def table_at(path: Path) -> pa.Table:
    return pyarrow.feather.read_table(path, memory_map=False)


def check_equal(rows: pa.Table, expected: pa.Table) -> None:
    assert rows.schema.equals(expected.schema, check_metadata=True)
    for name in expected.column_names:
        # Written out, NaN equals NaN and −0.0 differs from 0.0.
        assert list(map(repr, rows[name].to_pylist())) == list(map(repr, expected[name].to_pylist())), name


def test_every_promised_format_has_a_golden_bundle() -> None:
    kept = {path.name for path in GOLDEN.glob("format-*")}
    assert kept == {f"format-{one}" for one in FORMATS}
    files = [path for path in GOLDEN.glob("format-*/**/*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000 * len(FORMATS)


def test_it_draws_the_very_rows_that_it_drew_when_it_was_saved(golden: Path) -> None:
    check_equal(TabularVAE.load(golden / "model").sample(ROWS, seed=SEED), table_at(golden / "sampled.arrow"))


def test_it_encodes_rows_as_it_did(golden: Path) -> None:
    mean, log_sigma = TabularVAE.load(golden / "model").encode(table_at(golden / "source.arrow"))
    expected = table_at(golden / "encoded.arrow")
    found = np.concatenate([mean, log_sigma], axis=1)
    assert found == pytest.approx(np.column_stack([expected[name] for name in expected.column_names]), abs=1e-5)


def test_saved_again_it_stays_the_same_model(golden: Path, tmp_path: Path) -> None:
    loaded = TabularVAE.load(golden / "model")
    loaded.save(tmp_path / "again")
    again = TabularVAE.load(tmp_path / "again")
    check_equal(again.sample(ROWS, seed=SEED), table_at(golden / "sampled.arrow"))
    assert again.training_record == loaded.training_record


def test_it_can_be_inspected(golden: Path) -> None:
    facts = describe(golden / "model")
    assert facts["kind"] == "model"
    assert list(facts["columns"]) == table_at(golden / "source.arrow").column_names


@pytest.mark.slow
def test_its_weights_fit_the_keras_network(golden: Path) -> None:
    loaded = TabularVAE.load(golden / "model")
    rows = table_at(golden / "source.arrow")
    codes = loaded._fitted().encode(rows)
    positions = loaded._fitted().layout.positions(codes)
    network = loaded.model
    mean, log_sigma = network.posterior(network.embed(codes.tokens, positions))
    assert np.asarray(mean) == pytest.approx(loaded.encode(rows)[0], abs=1e-4)
    assert np.asarray(log_sigma) == pytest.approx(loaded.encode(rows)[1], abs=1e-4)


@pytest.mark.slow
def test_it_can_be_refreshed(golden: Path) -> None:
    champion, rows = TabularVAE.load(golden / "model"), source()
    refreshed = TabularVAE(settings=TrainSettings(steps=100, hidden_units=16, latent_dim=4))
    refreshed.refresh_tables(rows.slice(0, 540), rows.slice(540), champion=champion, steps_share=0.2)
    assert refreshed.training_record["refreshed_from"] == champion.version
    assert refreshed.history[-1]["holdout_loss"] < champion.history[0]["holdout_loss"]
    assert refreshed.sample(10).schema.equals(champion.schema, check_metadata=True)
