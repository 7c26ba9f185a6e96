"""Rows from a trained decoder, in NumPy: latent → codes, one token at a time, block by block; and the way back.

Rows are drawn in blocks of a fixed size, and the seed and a block's number decide its rows. So the rows are the same,
byte for byte, however many shards draw them, and drawing needs neither TensorFlow nor Keras. `networks.py` holds the
same arithmetic for training; a test keeps the two equal.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae_ops.encoding.base import NOT_APPLICABLE, Codes, Fractions, Tokens
from vae_ops.encoding.row import LOG_SIGMA_RANGE, WAVE_NUMBERS, TokenLayout
from vae_ops.errors import BundleError

__all__ = ["BLOCK_ROWS", "TokenSampler", "blocks_of_shard", "check_weights"]

BLOCK_ROWS = 4096
# Counts are corrected after each of these: noise of the whole block falls to that of one batch.
_BATCH_ROWS = 256
_MAX_CORRECTION = 2.0
# Multiples of the golden ratio, modulo 1, keep apart from each other however many there are.
_GOLDEN = 0.6180339887498949
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


def check_weights(layout: TokenLayout, facts: Mapping[str, Any], arrays: _Arrays) -> None:
    """Makes sure that weights which were read from somewhere are those of a network over these tokens.

    Args:
        layout: The tokens of a row.
        facts: The network's `size` by field, its `token_order` and its `groups`.
        arrays: Weights by name.

    Raises:
        BundleError: A weight is missing, superfluous, of another shape or type, or not finite; or the facts
            contradict the layout.
    """
    size, order = facts["size"], facts["token_order"]
    groups = [tuple(group) for group in facts["groups"]]
    _check_widths(size, [*order, *(bound for group in groups for bound in group)])
    _check_heads(layout, order, groups)
    # Layers are counted before they are listed: a number that somebody made up may be of any size.
    listed = size["hidden_layers"] + size["head_layers"] < len(arrays)
    expected = _shapes(layout, size, groups) if listed else {}
    found = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    if found != {name: (np.dtype(np.float32), shape) for name, shape in expected.items()}:
        raise BundleError("The weights are not those of the network that the model describes.")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise BundleError("Some weights are not finite numbers.")


def _check_widths(size: Mapping[str, Any], others: Sequence[Any]) -> None:
    flags = (size["autoregressive"], size["variational"])
    widths = [value for name, value in size.items() if name not in ("context_rank", "autoregressive", "variational")]
    widths += [size["context_rank"] or 1, *others]
    if any(type(flag) is not bool for flag in flags) or any(type(width) is not int or width < 0 for width in widths):
        raise BundleError("The widths of the network are not whole numbers.")
    if size["embedding_dim"] < len(WAVE_NUMBERS):
        raise BundleError(f"The network's embedding has fewer than {len(WAVE_NUMBERS)} numbers.")


def _check_heads(layout: TokenLayout, order: Sequence[int], groups: Sequence[tuple[int, ...]]) -> None:
    starts, stops = [start for _, start, _ in groups], [stop for *_, stop in groups]
    if sorted(order) != list(range(len(layout))) or [0, *stops] != [*starts, len(layout)]:
        raise BundleError(f"The network's heads are not one for each of the table's {len(layout)} tokens.")
    for vocabulary, start, stop in groups:
        if any(layout.tokens[token].size > vocabulary for token in order[start:stop]):
            raise BundleError("A token of the table has more values than the network's head for it.")


def _shapes(
    layout: TokenLayout, size: Mapping[str, Any], groups: Sequence[tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights of a `TabularNetwork`, and of the training shares, by name."""
    count, width, hidden, head = len(layout), size["embedding_dim"] + 1, size["hidden_units"], size["head_units"]
    latent, values = size["latent_dim"], int(layout.sizes.sum())
    dense = {"posterior": (hidden, latent * (1 + size["variational"])), "context": (hidden, count * head)}
    for name, inputs in (("encoder", count * width), ("decoder", latent)):
        dense[f"{name}_0"] = (inputs, hidden)
        dense |= {f"{name}_{layer}": (hidden, hidden) for layer in range(1, size["hidden_layers"] + 1)}
    shapes: dict[str, tuple[int, ...]] = {"embedding": (values, width - 1), "shares": (values,)}
    shapes |= {f"{name}_kernel": shape for name, shape in dense.items()}
    shapes |= {f"{name}_bias": shape[1:] for name, shape in dense.items()}
    if size["autoregressive"] and size["context_rank"] is None:
        shapes["earlier_kernel"] = (count * width, count * head)
    elif size["autoregressive"]:
        rank = size["context_rank"]
        shapes |= {"memory_kernel": (count, width, rank), "recall_kernel": (count, rank, head)}
    for layer in range(size["head_layers"]):
        shapes |= {f"head_{layer}_kernel": (count, head, head), f"head_{layer}_bias": (count, head)}
    for vocabulary, start, stop in groups:
        shapes[f"logits_{vocabulary}_kernel"] = (stop - start, head, vocabulary)
        shapes[f"logits_{vocabulary}_bias"] = (stop - start, vocabulary)
    return shapes


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
        variational: Whether the encoder gives a posterior rather than a code.
    """

    def __init__(
        self,
        layout: TokenLayout,
        arrays: _Arrays,
        order: Sequence[int],
        groups: Sequence[tuple[int, int, int]],
        latent_dim: int,
        *,
        variational: bool = True,
    ) -> None:
        """Cuts the weights into one piece per token, in the row's order."""
        self._layout = layout
        self._arrays = arrays
        self._latent_dim = latent_dim
        self._variational = variational
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

    def sample_block(self, block: int, seed: int, rows: int) -> Codes:
        """Codes of one block, shape (rows, tokens), from the prior."""
        rng = np.random.default_rng([seed, block])
        begin = np.random.default_rng(seed).random((len(self._layout), 2))
        return self._sample(self._prior(rows, rng), rng, ends=(begin + block * _GOLDEN) % 1.0)

    def reconstruct(self, codes: Codes, rng: np.random.Generator) -> Codes:
        """The rows encoded and decoded again: one draw of the latent from each row's posterior, one of the tokens."""
        mean, log_sigma = self.posterior(codes)
        noise = rng.standard_normal(mean.shape).astype(np.float32)
        latent = mean + np.exp(log_sigma) * noise if self._variational else mean
        return self._sample(np.asarray(latent, dtype=np.float32), rng, balanced=False)

    def posterior(self, codes: Codes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and log σ of the latent, each (rows, latent); a plain autoencoder's log σ is the lower limit."""
        said = [self._said(index, codes.tokens, codes.fractions) for index in range(len(self._layout))]
        hidden = self._stack("encoder", np.concatenate(said, axis=1))
        outputs = hidden @ self._arrays["posterior_kernel"] + self._arrays["posterior_bias"]
        if not self._variational:
            return outputs, np.full_like(outputs, LOG_SIGMA_RANGE[0])
        mean, log_sigma = np.split(outputs, 2, axis=1)
        return mean, np.clip(log_sigma, *LOG_SIGMA_RANGE)

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
        rng = np.random.default_rng(0)
        self._sample(self._prior(rows, rng), rng, shares)
        return [head.bias - bias for head, bias in zip(self._heads, before, strict=True)]

    def _prior(self, rows: int, rng: np.random.Generator) -> NDArray[np.float32]:
        return rng.standard_normal((rows, self._latent_dim)).astype(np.float32)

    def _sample(
        self,
        latent: NDArray[np.float32],
        rng: np.random.Generator,
        shares: Sequence[NDArray[np.float64]] | None = None,
        *,
        balanced: bool = True,
        ends: NDArray[np.float64] | None = None,
    ) -> Codes:
        rows = len(latent)
        context = self._stack("decoder", latent) @ self._context_kernel + self._context_bias
        tokens = np.full((rows, len(self._layout)), NOT_APPLICABLE, dtype=np.int32)
        fractions = np.full(tokens.shape, 0.5, dtype=np.float32)
        memory = np.zeros((rows, 0), dtype=np.float32)
        for index in range(len(self._layout)):
            applies = self._layout.applies(index, tokens)
            hidden = self._hidden(index, context, memory)
            if shares is not None:
                self._correct(index, hidden[applies], shares[index])
            chances = self._chances(index, hidden)
            drawn = _draw(chances, rng, self._wanted(index) if balanced else None)
            tokens[:, index] = np.where(applies, drawn, NOT_APPLICABLE)
            fractions[:, index] = _spread_within(tokens[:, index], rng)
            if ends is not None:
                self._reach_ends(index, tokens[:, index], fractions[:, index], ends[index])
            memory = self._remember(index, self._said(index, tokens, fractions), context, memory)
        return Codes(tokens, fractions)

    def _reach_ends(self, index: int, values: Tokens, fractions: Fractions, ends: NDArray[np.float64]) -> None:
        """Moves the outermost draw of a column's first and last bin, in place, within its stratum.

        Extremes are what one draw a block comes near: about 1/n of the first bin's n rows. Where in that stratum it
        falls, `ends` says, so that blocks share the stratum out among themselves instead of all missing its outer part.
        """
        token = self._layout.tokens[index]
        if token.first_bin >= token.size:
            return
        for value, from_end, outermost in ((token.first_bin, 0.0, np.argmin), (token.size - 1, 1.0, np.argmax)):
            rows = np.flatnonzero(values == value)
            if len(rows):
                reach = ends[int(from_end)] / len(rows)
                fractions[rows[outermost(fractions[rows])]] = abs(from_end - reach)

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

    def _said(self, index: int, tokens: Tokens, fractions: Fractions) -> NDArray[Any]:
        """What one token tells the network, shape (rows, embedding_dim + 1)."""
        values = tokens[:, index]
        vectors = self._arrays["embedding"][np.maximum(values, 0) + self._layout.offsets[index]]
        positions = self._layout.position(index, values, fractions[:, index])
        waves = self._layout.waves(index, positions)
        vectors[:, : waves.shape[1]] += waves
        return np.column_stack([np.where((values >= 0)[:, None], vectors, np.float32(0)), positions])

    def _remember(self, index: int, said: NDArray[Any], context: NDArray[Any], memory: NDArray[Any]) -> NDArray[Any]:
        """Lets later tokens hear what one said; changes `context` in place, returns the running sum."""
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

    def log_likelihood(self, codes: Codes, latent: NDArray[np.float32]) -> NDArray[Any]:
        """Log p(token | latent, earlier tokens), shape (rows, tokens); 0 where none applies."""
        tokens = codes.tokens
        context = self._stack("decoder", latent) @ self._context_kernel + self._context_bias
        memory = np.zeros((len(tokens), 0), dtype=np.float32)
        result = np.zeros(tokens.shape)
        for index in range(len(self._layout)):
            head = self._heads[index]
            chances = _softmax(self._hidden(index, context, memory) @ head.kernel + head.bias)
            chosen = chances[np.arange(len(tokens)), np.maximum(tokens[:, index], 0)]
            result[:, index] = np.where(tokens[:, index] >= 0, np.log(chosen), 0.0)
            memory = self._remember(index, self._said(index, tokens, codes.fractions), context, memory)
        return result


def _by_token(kernel: NDArray[Any], natural: Sequence[int], units: int) -> NDArray[Any]:
    """Reorders the columns of a kernel from the network's order of tokens to the row's."""
    return np.ascontiguousarray(kernel.reshape(len(kernel), -1, units)[:, list(natural)].reshape(len(kernel), -1))


def _spread_within(values: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), stratified among the rows of each value: less noise at the same distribution."""
    order = np.lexsort((rng.random(len(values)), values))
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(values)])
    rank = np.arange(len(values)) - np.repeat(starts, counts)
    uniform = np.empty(len(values))
    uniform[order] = (rank + rng.random(len(values))) / np.repeat(counts, counts)
    return uniform


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
