"""Whether synthetic rows are copies of training rows, judged against how often a held-out real row is one by chance.

`fidelity.py` asks how alike the tables are; a copier is perfect there and is caught here. Nearer attacks (distance to
the closest record, membership inference) need rooms of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.validation.columns import joint_codes

__all__ = ["CopyShares", "copy_shares", "row_hashes"]


@dataclass(frozen=True)
class CopyShares:
    """Shares of rows, from 0 to 1, that equal a training row in every compared column.

    Attributes:
        synthetic: Among synthetic rows; 1 is a pure copier.
        holdout: Among held-out rows, which are copies by chance only.
        training: Training rows that equal another training row: the same chance, measured on many more rows.
    """

    synthetic: float
    holdout: float
    training: float


def copy_shares(training: pa.Table, holdout: pa.Table, synthetic: pa.Table, columns: Sequence[str]) -> CopyShares:
    """Counts exact copies of training rows.

    Args:
        training: Rows that the model was trained on; all of them are compared.
        holdout: Real rows that it never saw, of the same schema.
        synthetic: Rows drawn from the model, of the same schema.
        columns: Columns that must be equal. Leave identifiers out: a copied row with a fresh identifier is a copy.
    """
    known, held_out, drawn = row_hashes([training, holdout, synthetic], columns)
    distinct, inverse, counts = np.unique(known, return_inverse=True, return_counts=True)
    return CopyShares(
        synthetic=_share(np.isin(drawn, distinct)),
        holdout=_share(np.isin(held_out, distinct)),
        training=_share(counts[inverse] > 1),
    )


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if len(hits) else 0.0


def row_hashes(tables: Sequence[pa.Table], columns: Sequence[str]) -> list[NDArray[np.uint64]]:
    """Hashes whole rows so that equal rows of any of the tables have equal hashes.

    Values are compared exactly, not rounded; null equals null and NaN equals NaN. Only one column's codes are in memory
    at a time. Two different rows share a 64-bit hash with odds of 5e-20; any of a million and a million, 5e-8.

    Returns:
        uint64 `(rows,)` per table.
    """
    hashes = [np.zeros(table.num_rows, dtype=np.uint64) for table in tables]
    for name in columns:
        codes, _ = joint_codes([table.column(name) for table in tables])
        hashes = [_mix(state, code.astype(np.uint64)) for state, code in zip(hashes, codes, strict=True)]
    return hashes


def _mix(state: NDArray[np.uint64], code: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) per column; a bijection of `state` for each code."""
    mixed = state * np.uint64(0x9E3779B97F4A7C15) + code + np.uint64(1)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
