"""Which rows a model never learns from: what a row holds decides, so that a row held out once is held out every night.

A champion of an earlier night and its challenger can then be judged on the same rows, and old rows be rehearsed, while
none of them has been learned. `content_hash.py` gives each row its number; `table.py` reads the rows.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.content_hash import content_hashes, mix_hashes
from vae_ops.table import filter_rows

__all__ = ["halve_holdout", "held_out_rows", "split_holdout"]

# Any number will do that no seed is likely to be: the halves must not follow from the sides.
_HALVES_SEED = 0x68616C766573


def split_holdout(table: pa.Table, fraction: float, seed: int) -> tuple[pa.Table, pa.Table]:
    """Splits rows by their content; both parts keep source order.

    Args:
        table: At least one row; two or more leave both parts with a row.
        fraction: Share of the rows that goes to the holdout, on average.
        seed: Decides the rows.

    Returns:
        The training rows and the holdout.
    """
    held = held_out_rows(table, fraction, seed)
    return filter_rows(table, ~held), filter_rows(table, held)


def halve_holdout(holdout: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Splits a holdout into the rows that early stop looks at and those that never reach the generator.

    By content too: a row that early stop of an earlier night has looked at must not test the next night's rows.
    """
    return split_holdout(holdout, 0.5, _HALVES_SEED)


def held_out_rows(table: pa.Table, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Marks the rows of the holdout.

    A row's side follows from its values, from how many equal rows come before it, and from the seed: it stays where it
    is when other rows come, go or change places. Equal rows fall independently of each other, as different ones do, so
    that the holdout's size scatters around its share as heads do in as many throws of a coin.

    Returns:
        bool `(rows,)`; of two or more rows, at least one is held out and one is not; a single row is not.
    """
    keys = _keys(table, seed)
    held: NDArray[np.bool_] = keys * 2.0**-64 < fraction
    if len(held) < 2:
        return np.zeros_like(held)
    if held.all():
        held[keys.argmax()] = False
    elif not held.any():
        held[keys.argmin()] = True
    return held


def _keys(table: pa.Table, seed: int) -> NDArray[np.uint64]:
    """uint64 `(rows,)`, evenly spread."""
    hashes = content_hashes(table)
    return mix_hashes(mix_hashes(hashes, _counts_before(hashes)), np.full(1, seed, dtype=np.uint64))


def _counts_before(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """How many equal ones stand before each."""
    order = np.argsort(hashes, kind="stable")
    is_first = np.diff(hashes[order], prepend=~hashes[order[:1]]) != 0
    firsts = np.flatnonzero(is_first)
    counts = np.empty(len(hashes), dtype=np.uint64)
    counts[order] = np.arange(len(hashes)) - np.repeat(firsts, np.diff(firsts, append=len(hashes)))
    return counts
