"""Adult and MAGIC, where they are at hand: beside the checkout, or where VAE_OPS_SHARED says."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SHARED = Path(os.environ.get("VAE_OPS_SHARED", Path(__file__).parents[2] / "shared"))
NAMES = ("adult", "magic")


def public_table(name: str) -> tuple[pa.Table, pa.Table]:
    """Training and test rows; skips the test where they are not at hand."""
    folder = SHARED / "tables" / name
    if not folder.exists():
        pytest.skip(f"{folder} is not here; VAE_OPS_SHARED may name another place.")
    return pq.read_table(folder / "train.parquet"), pq.read_table(folder / "test.parquet")


def shuffled_by_column(table: pa.Table, seed: int = 0) -> pa.Table:
    """The same columns, each in an order of its own: perfect margins, no dependence."""
    generator = np.random.default_rng(seed)
    return pa.table([column.take(generator.permutation(len(column))) for column in table.columns], table.column_names)


def with_moved_mean(table: pa.Table, name: str, deviations: float) -> pa.Table:
    """One column of numbers moved by so many of its standard deviations, whole numbers staying whole."""
    column = table.column(name)
    values = column.to_numpy().astype(np.float64)
    moved = values + deviations * values.std()
    moved = np.round(moved) if pa.types.is_integer(column.type) else moved
    return table.set_column(table.column_names.index(name), name, pa.array(moved).cast(column.type))
