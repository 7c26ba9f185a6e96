"""Made the golden bundle beside it, once: `python tests/golden/make_golden.py`.

A bundle is what some version really wrote, so an existing one is never made again; a new format gets a directory of its
own, and the old one stays. `tests/integration/test_golden_bundle.py` holds every later version to them.
"""

import decimal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather

sys.path.insert(0, str(Path(__file__).parents[2]))

from vae_ops.bundle import BUNDLE_FORMAT
from vae_ops.settings import TrainSettings
from vae_ops.vae import TabularVAE

ROWS, SEED = 300, 20


def source(rows: int = 600) -> pa.Table:
    """Every kind of column, and some dependence between them."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=rows)
    columns: dict[str, Any] = {
        "id": pa.array([f"K-{i:05d}-{'abc'[i % 3]}" for i in range(rows)]),
        "with_nan": pa.array(np.where(x > 1, np.nan, np.round(x * x, 4)).astype(np.float32)),
        "count": pa.array([None if value < -1.2 else int(9 * value) for value in x], pa.int16()),
        "price": pa.array([decimal.Decimal(int(100 * value)).scaleb(-2) for value in x + 3], pa.decimal128(9, 2)),
        # A column may be called what marks an array in `model.json`.
        "array": pa.array([["red", "green", "blue"][int(value) % 3] for value in 9 + 3 * x]).dictionary_encode(),
        "city": pa.array([f"City {int(abs(40 * value)):03d}" if value < 2 else None for value in x]),
        "at": pa.array((1_700_000_000 + 3e7 * x).astype("int64") * 1000).cast(pa.timestamp("ms", "Europe/Vienna")),
        "constant": pa.array([7] * rows, pa.int8()),
        "nothing": pa.nulls(rows, pa.string()),
    }
    fields = [pa.field(name, array.type, metadata={"unit": "none"}) for name, array in columns.items()]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata={"owner": "vae-ops"}))


def main() -> None:
    """Trains, and keeps the bundle beside what it draws and encodes."""
    directory = Path(__file__).with_name(f"format-{BUNDLE_FORMAT}")
    if directory.exists():
        sys.exit(f"{directory} is there already: a golden bundle is never made again.")
    table = source()
    settings = TrainSettings(steps=400, hidden_units=16, latent_dim=4)
    model = TabularVAE(settings=settings).fit_tables(table.slice(0, 540), table.slice(540))
    model.save(directory / "model")
    write = pyarrow.feather.write_feather
    write(model.sample(ROWS, seed=SEED), directory / "sampled.arrow", compression="uncompressed")
    some = table.slice(0, 20)
    write(some, directory / "source.arrow", compression="uncompressed")
    mean, log_sigma = model.encode(some)
    latent = {
        f"{name}{i}": values[:, i] for name, values in (("mean", mean), ("log_sigma", log_sigma)) for i in range(4)
    }
    write(pa.table(latent), directory / "encoded.arrow", compression="uncompressed")


if __name__ == "__main__":
    main()
