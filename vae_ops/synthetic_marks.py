"""How rows that vae-ops made are known again: a column in what is published, and keys in the metadata of every file.

`publishing.py` writes both. `parquet_files.py` and `python_rows.py` look for them, so that no model learns from the
rows of another.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.errors import SchemaError

__all__ = ["MARK_PREFIX", "SYNTHETIC_COLUMN", "is_marked", "real_mask", "without_label"]

SYNTHETIC_COLUMN = "_is_synthetic"
MARK_PREFIX = "vae_ops."


def is_marked(metadata: Mapping[bytes, bytes] | None) -> bool:
    """Whether the key-value metadata of a Parquet file say that vae-ops wrote it."""
    return any(key.startswith(MARK_PREFIX.encode()) for key in metadata or {})


def without_label(schema: pa.Schema) -> pa.Schema:
    """The schema without the column that labels rows."""
    return pa.schema([field for field in schema if field.name != SYNTHETIC_COLUMN], metadata=schema.metadata)


def real_mask(labels: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """Marks the rows that the label calls real; a row whose label is null is not.

    Raises:
        SchemaError: The labels are not booleans.
    """
    if not pa.types.is_boolean(labels.type):
        raise SchemaError(
            f"Expected booleans in the column {SYNTHETIC_COLUMN!r}, which tells synthetic rows from real ones, but it "
            f"is stored as {labels.type}; cast it, or point at the original source."
        )
    mask: NDArray[np.bool_] = ~labels.fill_null(True).to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask
