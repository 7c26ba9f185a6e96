"""Rows from a trained decoder, in NumPy: latent → tokens, one token at a time, block by block.

Rows are drawn in blocks of a fixed size, and the seed and a block's number decide its rows. So the rows are the same,
byte for byte, however many shards draw them, and drawing needs neither TensorFlow nor Keras. `networks.py` holds the
same arithmetic for training; a test keeps the two equal.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae_ops.encoding.base import NOT_APPLICABLE, Tokens
from vae_ops.encoding.row import TokenLayout

__all__ = ["BLOCK_ROWS", "TokenSampler", "blocks_of_shard"]

BLOCK_ROWS = 4096
# Counts are corrected after each of these: noise of the whole block falls to that of one batch.
_BATCH_ROWS = 256
_MAX_CORRECTION = 2.0
_CALIBRATION_ROWS = 16_384
_FEW_TOKENS = 32
_CALIBRATION_LIMIT = 1.0

_Arrays = Mapping[str, NDArray[Any]]


def blocks_of_shard(rows: int, shard: int, shards: int) -> Iterator[tuple[int, int]]:
    """Blocks of one shard: number of the block and the rows to take of it.

    Args:
        rows: Rows of all shards together.
        shard: Which shard, from 0.
        shards: How many there are; shards hold neighbouring blocks, in order.
    """
    blocks = -(-rows // BLOCK_ROWS)
    for block in range(blocks * shard // shards, blocks * (shard + 1) // shards):
        yield block, min(BLOCK_ROWS, rows - block * BLOCK_ROWS)


@dataclass(frozen=True)
class _Head:
    """The weights of one token's own layers, cut out of the batched ones."""

    layers: tuple[tuple[NDArray[Any], NDArray[Any]], ...]
    kernel: NDArray[Any]
    bias: NDArray[Any]


class TokenSampler:
    """Draws tokens from the decoder of a `TabularNetwork`.

    Args:
        layout: The tokens of a row.
        arrays: Weights of the network by name.
        order: The network's `token_order`.
        groups: The network's head groups as (size, start, stop).
        latent_dim: Latent dimensions.
    """

    def __init__(
        self,
        layout: TokenLayout,
        arrays: _Arrays,
        order: Sequence[int],
        groups: Sequence[tuple[int, int, int]],
        latent_dim: int,
    ) -> None:
        """Cuts the weights into one piece per token, in the row's order."""
        self._layout = layout
        self._arrays = arrays
        self._latent_dim = latent_dim
        self._width = arrays["embedding"].shape[1] + 1
        count = len(layout)
        self._places = {token: place for place, token in enumerate(order)}
        self._heads = [self._head(token, groups) for token in range(count)]
        natural = [self._places[token] for token in range(count)]
        units = arrays["context_bias"].size // count
        self._context_kernel = _by_token(arrays["context_kernel"], natural, units)
        self._context_bias = _by_token(arrays["context_bias"][None, :], natural, units)[0]
        self._earlier = _by_token(arrays["earlier_kernel"], natural, units) if "earlier_kernel" in arrays else None
        self._units = units

    def _head(self, token: int, groups: Sequence[tuple[int, int, int]]) -> _Head:
        place, arrays = self._places[token], self._arrays
        layers: list[tuple[NDArray[Any], NDArray[Any]]] = []
        while f"head_{len(layers)}_kernel" in arrays:
            name = f"head_{len(layers)}"
            layers.append((arrays[f"{name}_kernel"][place], arrays[f"{name}_bias"][place]))
        size, start, _ = next(group for group in groups if group[1] <= place < group[2])
        vocabulary = self._layout.tokens[token].size
        kernel = arrays[f"logits_{size}_kernel"][place - start][:, :vocabulary]
        return _Head(tuple(layers), kernel, arrays[f"logits_{size}_bias"][place - start][:vocabulary].copy())

    def sample_block(self, block: int, seed: int, rows: int) -> tuple[Tokens, np.random.Generator]:
        """Tokens of one block, shape (rows, tokens), and the generator that places values inside them."""
        rng = np.random.default_rng([seed, block])
        return self._sample(rows, rng, None), rng

    def calibrate(self, shares: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float32]]:
        """Corrects each token's logits so that prior samples have the training shares.

        The decoder is trained on posterior draws; on prior draws small errors of earlier tokens add up. One pass over a
        fixed sample finds, token by token, the additive correction under which the mean predicted share is the training
        share, and uses it at once for the tokens that follow.

        Args:
            shares: Training share of each value of each token.

        Returns:
            The corrections, by token; they are also in effect from now on.
        """
        before = [head.bias.copy() for head in self._heads]
        rows = max(_CALIBRATION_ROWS // max(len(self._layout) // _FEW_TOKENS, 1), BLOCK_ROWS // 4)
        self._sample(rows, np.random.default_rng(0), shares)
        return [head.bias - bias for head, bias in zip(self._heads, before, strict=True)]

    def _sample(self, rows: int, rng: np.random.Generator, shares: Sequence[NDArray[np.float64]] | None) -> Tokens:
        latent = rng.standard_normal((rows, self._latent_dim)).astype(np.float32)
        context = self._stack("decoder", latent) @ self._context_kernel + self._context_bias
        tokens = np.full((rows, len(self._layout)), NOT_APPLICABLE, dtype=np.int32)
        memory = np.zeros((rows, 0), dtype=np.float32)
        for index in range(len(self._layout)):
            applies = self._layout.applies(index, tokens)
            hidden = self._hidden(index, context, memory)
            if shares is not None:
                self._correct(index, hidden[applies], shares[index])
            chances = self._chances(index, hidden)
            drawn = _draw(chances, rng, self._wanted(index))
            tokens[:, index] = np.where(applies, drawn, NOT_APPLICABLE)
            memory = self._remember(index, tokens, context, memory)
        return tokens

    def _wanted(self, index: int) -> NDArray[Any] | None:
        """Training shares of a token that applies to every row, without blocked values; None where it depends."""
        token = self._layout.tokens[index]
        if token.parent is not None:
            return None
        start = self._layout.offsets[index]
        share = self._arrays["shares"][start : start + token.size].astype(np.float64)
        share[list(token.blocked)] = 0.0
        return share / share.sum() if share.sum() else None

    def _hidden(self, index: int, context: NDArray[Any], memory: NDArray[Any]) -> NDArray[Any]:
        own = context[:, index * self._units : (index + 1) * self._units]
        if "recall_kernel" in self._arrays and memory.shape[1]:
            own = own + memory @ self._arrays["recall_kernel"][self._places[index]]
        hidden = _silu(own)
        for kernel, bias in self._heads[index].layers:
            hidden = hidden + _silu(hidden @ kernel + bias)
        return np.asarray(hidden)

    def _chances(self, index: int, hidden: NDArray[Any]) -> NDArray[Any]:
        head = self._heads[index]
        chances = _softmax(hidden @ head.kernel + head.bias)
        blocked = list(self._layout.tokens[index].blocked)
        if blocked and len(blocked) < chances.shape[1]:
            chances[:, blocked] = 0.0
            chances /= np.maximum(chances.sum(axis=1, keepdims=True), 1e-30)
        return chances

    def _correct(self, index: int, hidden: NDArray[Any], share: NDArray[np.float64]) -> None:
        if not len(hidden):
            return
        head = self._heads[index]
        correction = np.zeros(len(share))
        for _ in range(3):
            predicted = _softmax(hidden @ head.kernel + head.bias + correction).mean(axis=0)
            correction += np.log((share + 1e-7) / (predicted + 1e-7))
        head.bias[:] += np.clip(correction, -_CALIBRATION_LIMIT, _CALIBRATION_LIMIT).astype(np.float32)

    def _remember(self, index: int, tokens: Tokens, context: NDArray[Any], memory: NDArray[Any]) -> NDArray[Any]:
        """Lets later tokens see the one just drawn; changes `context` in place, returns the running sum."""
        values = tokens[:, index]
        vectors = self._arrays["embedding"][np.maximum(values, 0) + self._layout.offsets[index]]
        vectors = np.where((values >= 0)[:, None], vectors, np.float32(0))
        said = np.column_stack([vectors, self._layout.position(index, tokens)])
        if self._earlier is not None:
            later = (index + 1) * self._units
            context[:, later:] += said @ self._earlier[index * self._width : (index + 1) * self._width, later:]
        if "memory_kernel" in self._arrays:
            told = said @ self._arrays["memory_kernel"][index]
            return np.asarray(memory + told if memory.shape[1] else told)
        return memory

    def _stack(self, name: str, inputs: NDArray[Any]) -> NDArray[Any]:
        arrays = self._arrays
        hidden = _silu(inputs @ arrays[f"{name}_0_kernel"] + arrays[f"{name}_0_bias"])
        layer = 1
        while f"{name}_{layer}_kernel" in arrays:
            hidden = hidden + _silu(hidden @ arrays[f"{name}_{layer}_kernel"] + arrays[f"{name}_{layer}_bias"])
            layer += 1
        return hidden

    def log_likelihood(self, tokens: Tokens, latent: NDArray[np.float32]) -> NDArray[Any]:
        """Log p(token | latent, earlier tokens), shape (rows, tokens); 0 where none applies."""
        context = self._stack("decoder", latent) @ self._context_kernel + self._context_bias
        memory = np.zeros((len(tokens), 0), dtype=np.float32)
        result = np.zeros(tokens.shape)
        for index in range(len(self._layout)):
            head = self._heads[index]
            chances = _softmax(self._hidden(index, context, memory) @ head.kernel + head.bias)
            chosen = chances[np.arange(len(tokens)), np.maximum(tokens[:, index], 0)]
            result[:, index] = np.where(tokens[:, index] >= 0, np.log(chosen), 0.0)
            memory = self._remember(index, tokens, context, memory)
        return result


def _by_token(kernel: NDArray[Any], natural: Sequence[int], units: int) -> NDArray[Any]:
    """Reorders the columns of a kernel from the network's order of tokens to the row's."""
    return np.ascontiguousarray(kernel.reshape(len(kernel), -1, units)[:, list(natural)].reshape(len(kernel), -1))


def _silu(values: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return np.asarray(values / (1.0 + np.exp(-values)))


def _softmax(logits: NDArray[Any]) -> NDArray[Any]:
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(chances / chances.sum(axis=1, keepdims=True))


def _draw(chances: NDArray[Any], rng: np.random.Generator, share: NDArray[Any] | None) -> NDArray[np.int32]:
    """One value per row; with a share, the counts of a block stay near it.

    Independent draws would scatter the counts of n rows by √n. Here the chances of each batch are tilted by what the
    batches before it are owed, which keeps every row's distribution right on average and the column's nearly exact.
    """
    uniform = rng.random(len(chances), dtype=np.float32)
    if share is None or chances.shape[1] == 1:
        return _invert(chances, uniform)
    drawn = np.empty(len(chances), dtype=np.int32)
    owed = np.zeros(chances.shape[1])
    for start in range(0, len(chances), _BATCH_ROWS):
        batch = chances[start : start + _BATCH_ROWS]
        owed += share * len(batch)
        tilt = np.clip(owed / np.maximum(batch.sum(axis=0), 1e-9), 1 / _MAX_CORRECTION, _MAX_CORRECTION)
        chosen = _invert(batch * tilt.astype(np.float32), uniform[start : start + _BATCH_ROWS])
        drawn[start : start + _BATCH_ROWS] = chosen
        owed -= np.bincount(chosen, minlength=len(owed))
    return drawn


def _invert(chances: NDArray[Any], uniform: NDArray[np.float32]) -> NDArray[np.int32]:
    cumulative = np.cumsum(chances, axis=1)
    places = (uniform[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1)
    return np.asarray(np.minimum(places, chances.shape[1] - 1), dtype=np.int32)
