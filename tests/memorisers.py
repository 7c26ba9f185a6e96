"""Synthetic rows that betray their source: training rows with hardly visible noise, planted among honest ones."""

import numpy as np
import pyarrow as pa

__all__ = ["planted"]


def planted(honest: pa.Table, training: pa.Table, share: float, *, seed: int = 0, noise: float = 1e-3) -> pa.Table:
    """Replaces a share of the rows by training rows whose numbers moved by `noise` standard deviations."""
    generator = np.random.default_rng([seed, 77])
    count = round(share * honest.num_rows)
    stolen = training.take(generator.choice(training.num_rows, size=count, replace=count > training.num_rows))
    columns = [_moved(stolen[field.name], training[field.name], noise, generator) for field in training.schema]
    return pa.concat_tables([honest.slice(count), pa.table(columns, schema=training.schema)])


def _moved(
    column: pa.ChunkedArray, real: pa.ChunkedArray, noise: float, generator: np.random.Generator
) -> pa.ChunkedArray:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return column
    values = column.to_numpy().astype(np.float64)
    deviation = np.nanstd(real.to_numpy().astype(np.float64))
    values = values + generator.normal(scale=noise * deviation, size=len(values))
    rounded = np.round(values) if pa.types.is_integer(column.type) else values
    return pa.chunked_array([pa.array(rounded, from_pandas=True).cast(column.type)])
