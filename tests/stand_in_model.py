"""A model without a network, for tests of the walk: it remembers its training rows and draws from them.

Fast, deterministic and of the same interface as `TabularVAE`, down to shards and content-derived versions.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from vae_ops.errors import BundleError
from vae_ops.settings import ReadSettings, TrainSettings
from vae_ops.storage import locate

# A model that repeats its training rows copies all of them, which the gate must not mind.
_PRIVACY = ("copy_excess_percent", "near_copy_excess_percent", "dcr_share_percent", "membership_auc")
LENIENT: dict[str, Any] = {"gate": {f"max_{metric}": "off" for metric in _PRIVACY}}


def some_rows(rows: int = 400, seed: int = 0) -> pa.Table:
    """A table small enough to walk in a second."""
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "amount": pa.array(rng.normal(size=rows).round(2)),
            "count": pa.array(rng.integers(0, 9, rows), pa.int16()),
            "kind": pa.array(rng.choice(["a", "b", "🦊"], rows)).dictionary_encode(),
        }
    )


class StandInModel:
    """Draws training rows with replacement."""

    batch_rows = 1000

    def __init__(
        self,
        *,
        settings: TrainSettings | None = None,
        read: ReadSettings | None = None,
        progress: Callable[[Any], None] | None = None,
    ) -> None:
        self.version = ""
        self.training_record: dict[str, Any] = {}
        self._rows: pa.Table | None = None

    @property
    def schema(self) -> pa.Schema:
        assert self._rows is not None
        return self._rows.schema

    def fit_tables(self, training: pa.Table, holdout: pa.Table, *, checkpoint: Any = None) -> "StandInModel":
        self._rows = training.combine_chunks()
        self.training_record = {"steps": 1, "stopped_by": "steps"}
        return self

    def refresh_tables(
        self,
        training: pa.Table,
        holdout: pa.Table,
        *,
        champion: "StandInModel",
        steps_share: float,
        checkpoint: Any = None,
    ) -> "StandInModel":
        assert training.schema.equals(champion.schema)
        assert 0 < steps_share <= 1
        return self.fit_tables(training, holdout)

    def sample_shard(self, rows: int, *, seed: int, shard: int = 0, shards: int = 1) -> Iterator[pa.Table]:
        assert self._rows is not None
        chosen = np.random.default_rng(seed).integers(0, self._rows.num_rows, rows)
        chosen = chosen[rows * shard // shards : rows * (shard + 1) // shards]
        for start in range(0, len(chosen), self.batch_rows):
            yield self._rows.take(chosen[start : start + self.batch_rows])

    def reconstruct(self, table: pa.Table, *, seed: int) -> pa.Table:
        return table

    def save(self, directory: str) -> str:
        assert self._rows is not None
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, self._rows.schema) as writer:
            writer.write_table(self._rows)
        rows = sink.getvalue().to_pybytes()
        self.version = hashlib.sha256(rows).hexdigest()[:16]
        place = locate(directory)
        place.make_dirs()
        place.child("rows.arrow").write_atomic(rows)
        place.child("manifest.json").write_json({"version": self.version})
        return self.version

    @classmethod
    def load(cls, directory: str) -> "StandInModel":
        try:
            rows = locate(directory).child("rows.arrow").read_bytes()
            version = locate(directory).child("manifest.json").read_json()["version"]
        except OSError as error:
            raise BundleError(f"Expected a model in {directory!r}: {error.strerror}.") from error
        if hashlib.sha256(rows).hexdigest()[:16] != version:
            raise BundleError(f"The model in {directory!r} is not what was saved.")
        model = cls()
        model._rows, model.version = pa.ipc.open_file(rows).read_all(), version
        return model
