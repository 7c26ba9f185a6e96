"""Weights of an earlier model in the place of a fresh one's: where a refresh begins.

Columns are the same and so are the layers; what differs is which values each token has, and with them the order of the
decoder's heads, which are grouped by vocabulary. `encoding/` says which earlier value each value goes on from;
`training.py` goes on from what is put together here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vae_ops.encoding.base import NO_VALUE, Carried
from vae_ops.encoding.row import TokenLayout
from vae_ops.errors import CannotRefreshError

__all__ = ["Placement", "carry_weights"]

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Placement:
    """Where a network keeps what belongs to each token.

    Attributes:
        layout: The tokens of a row.
        order: The network's `token_order`: the token at each place among the heads.
        groups: Heads computed together, as (padded vocabulary, first place, one past the last).
    """

    layout: TokenLayout
    order: Sequence[int]
    groups: Sequence[tuple[int, int, int]]

    def places(self) -> NDArray[np.int64]:
        """The place of each token, shape (tokens,)."""
        return np.argsort(np.asarray(self.order))

    def head(self, token: int) -> tuple[int, int]:
        """Padded vocabulary of a token's group, and the token's number within it."""
        place = int(self.places()[token])
        size, start, _ = next(group for group in self.groups if group[1] <= place < group[2])
        return size, place - start


def carry_weights(
    fresh: Arrays,
    at: Placement,
    earlier: Arrays,
    earlier_at: Placement,
    carried: Sequence[Carried],
    shares: Sequence[NDArray[np.float64]],
) -> dict[str, NDArray[np.float32]]:
    """Puts the weights of an earlier network in the places of a fresh one.

    Args:
        fresh: Weights of the network to be filled, by name; they stay where nothing is carried over.
        at: Where it keeps what belongs to each token.
        earlier: Weights of the network to go on from, of the same widths.
        earlier_at: Where that one keeps it.
        carried: For each token, the earlier value that each value goes on from.
        shares: Training share of each value of each token, none of them 0.

    Raises:
        CannotRefreshError: The widths differ.
    """
    moved = earlier_at.places()[np.asarray(at.order)]
    filled = {}
    for name, array in fresh.items():
        if name == "embedding":
            filled[name] = _embedding(array, at.layout, earlier[name], earlier_at.layout, carried)
        elif not name.startswith("logits_"):
            filled[name] = _by_place(name, earlier.get(name), moved, array.shape)
        else:
            filled[name] = array.copy()
    for token, values in enumerate(carried):
        _carry_head(filled, at.head(token), earlier, earlier_at.head(token), values, shares[token])
    return filled


def _by_place(
    name: str, array: NDArray[np.float32] | None, moved: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """A layer's weights, with what belongs to each head where that head stands now."""
    if array is None or array.shape != shape:
        raise CannotRefreshError(f"The widths of the network have changed ({name}): train from nothing.")
    if name.startswith("head_") or name == "recall_kernel":
        return array[moved]
    if name in ("context_kernel", "context_bias", "earlier_kernel"):
        by_head = array.reshape(*array.shape[:-1], len(moved), -1)
        return np.ascontiguousarray(by_head[..., moved, :].reshape(array.shape))
    return array.copy()


def _embedding(
    fresh: NDArray[np.float32],
    layout: TokenLayout,
    earlier: NDArray[np.float32],
    earlier_layout: TokenLayout,
    carried: Sequence[Carried],
) -> NDArray[np.float32]:
    filled = fresh.copy()
    for token, values in enumerate(carried):
        known = np.flatnonzero(values != NO_VALUE)
        filled[layout.offsets[token] + known] = earlier[earlier_layout.offsets[token] + values[known]]
    return np.asarray(filled * layout.embedded, dtype=np.float32)


def _carry_head(
    filled: dict[str, NDArray[np.float32]],
    head: tuple[int, int],
    earlier: Arrays,
    earlier_head: tuple[int, int],
    values: Carried,
    shares: NDArray[np.float64],
) -> None:
    """Logits of one token: carried values keep theirs, new ones start at their share."""
    (size, row), (earlier_size, earlier_row) = head, earlier_head
    known = np.flatnonzero(values != NO_VALUE)
    kernel, bias = filled[f"logits_{size}_kernel"][row], filled[f"logits_{size}_bias"][row]
    source = values[known]
    kernel[:, : len(values)] = 0.0
    kernel[:, known] = earlier[f"logits_{earlier_size}_kernel"][earlier_row][:, source]
    # Values that go on from the same one share its mass among themselves.
    crowd = np.bincount(source, minlength=1)[source]
    before = earlier[f"logits_{earlier_size}_bias"][earlier_row][source] - np.log(crowd)
    # Only differences of logits mean anything, so new ones are set on the level of those that are known.
    level = np.average(before - np.log(shares[known]), weights=shares[known]) if len(known) else 0.0
    bias[: len(values)] = np.log(shares) + level
    bias[known] = before
