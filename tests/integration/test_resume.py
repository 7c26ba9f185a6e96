"""A training that was broken off goes on to the very same model; kills of real processes are in `tests/system`."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vae_ops.settings import TrainSettings
from vae_ops.storage import Location, locate
from vae_ops.training import TrainingProgress
from vae_ops.vae import TabularVAE

pytestmark = pytest.mark.slow

# So few rows are learned by heart long before the plan ends, so that the holdout ends training at step 252.
STEPS, WINDING_UP = 480, 200


def table(rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    return pa.table({"x": np.round(x, 2), "y": np.where(x > 0, "up", "down"), "n": rng.integers(0, 4, rows)})


class BrokenOffError(Exception):
    """Stands for a kill."""


class Try:
    """One try of a training, which may be broken off."""

    def __init__(self, *, break_at: int | None = None) -> None:
        self.break_at = break_at
        self.seen: list[TrainingProgress] = []
        settings = TrainSettings(steps=STEPS, hidden_units=16, latent_dim=4)
        self.model = TabularVAE(settings=settings, progress=self.listen)

    def listen(self, at: TrainingProgress) -> None:
        self.seen.append(at)
        if self.break_at is not None and at.step >= self.break_at:
            raise BrokenOffError

    def fit(self, checkpoint: Location | None = None) -> TabularVAE:
        return self.model.fit_tables(table(100), table(40, seed=1), checkpoint=checkpoint)

    def refresh(self, champion: TabularVAE, checkpoint: Location | None = None) -> TabularVAE:
        rows, held = table(120, seed=2), table(40, seed=3)
        return self.model.refresh_tables(rows, held, champion=champion, steps_share=0.3, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def whole() -> TabularVAE:
    return Try().fit()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Location:
    return locate(tmp_path / "checkpoint")


def test_a_fit_broken_off_twice_gives_the_same_model(whole: TabularVAE, checkpoint: Location) -> None:
    record = whole.training_record
    assert (record["stopped_by"], record["steps"] > WINDING_UP) == ("holdout", True)
    for break_at in (110, WINDING_UP):
        with pytest.raises(BrokenOffError):
            Try(break_at=break_at).fit(checkpoint)
    last = Try()
    assert last.fit(checkpoint).version == whole.version
    assert last.seen[0].step > 110
    assert "went on from step" in last.seen[0].note
    assert all(at.elapsed_seconds > 0 for at in last.seen)


def test_a_refresh_broken_off_gives_the_same_model_and_heeds_no_other_checkpoint(
    whole: TabularVAE, checkpoint: Location
) -> None:
    with pytest.raises(BrokenOffError):
        Try(break_at=40).fit(checkpoint)
    first = Try(break_at=100)
    with pytest.raises(BrokenOffError):
        first.refresh(whole, checkpoint)
    assert first.seen[0].step < 40
    assert "other rows, settings or versions" in first.seen[0].note
    last = Try()
    assert last.refresh(whole, checkpoint).version == Try().refresh(whole).version
    assert "went on from step" in last.seen[0].note
