"""Encoder, decoder, autoencoder and VAE as Keras models of any layer sizes.

Two families share the latent arithmetic below: plain dense networks over vectors (`build_autoencoder`, `build_vae`),
and `TabularNetwork` over the tokens of a row, whose decoder is autoregressive: p(x|z) = Π p(xᵢ | z, x₁ … xᵢ₋₁). All of
it is written in `keras.ops`, so any Keras backend can run it. Training lives in `training.py`; `sampling.py` repeats
the decoder's arithmetic in NumPy, one token at a time.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from vae_ops.encoding.row import LOG_SIGMA_RANGE, WAVE_HEIGHT, WAVE_NUMBERS, TokenLayout

__all__ = [
    "LOG_SIGMA_RANGE",
    "NetworkSize",
    "TabularNetwork",
    "build_autoencoder",
    "build_decoder",
    "build_encoder",
    "build_vae",
    "kl_divergence",
    "use_threads",
]

_HEAD_SIZES = (8, 32, 64, 128, 256)
_NEVER = -1e9
_MANY_TOKENS = 128


def use_threads(threads: int) -> None:
    """Limits TensorFlow to so many threads, in a process where it has not run yet; other backends are left alone."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    # Once TensorFlow has run, its pools are fixed and it refuses: the first setting of a process stands.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def kl_divergence(mean: Any, log_sigma: Any) -> Any:
    """KL(N(μ, σ²) ‖ N(0, 1)) by latent dimension: ½ (μ² + e^{2s} − 1 − 2s) with s = log σ.

    Kingma and Welling, arXiv 1312.6114, appendix B, written for log σ rather than log σ².

    Args:
        mean: Posterior means, shape (rows, latent).
        log_sigma: Posterior log standard deviations, shape (rows, latent).

    Returns:
        Nats, shape (rows, latent): sum over dimensions, average over rows.
    """
    return 0.5 * (ops.square(mean) + ops.exp(2.0 * log_sigma) - 1.0 - 2.0 * log_sigma)


def build_encoder(
    input_dim: int, hidden_units: Sequence[int], latent_dim: int, *, variational: bool = True, activation: str = "relu"
) -> keras.Model:
    """Dense encoder.

    Args:
        input_dim: Numbers per row.
        hidden_units: Width of each hidden layer.
        latent_dim: Latent dimensions.
        variational: Two outputs, mean and log σ; otherwise the code alone.
        activation: Of the hidden layers.

    Returns:
        A model from (rows, input_dim) to (rows, latent_dim), or to a pair of such tensors.
    """
    inputs = keras.Input((input_dim,))
    hidden = inputs
    for units in hidden_units:
        hidden = keras.layers.Dense(units, activation=activation)(hidden)
    mean = keras.layers.Dense(latent_dim, name="mean" if variational else "code")(hidden)
    if not variational:
        return keras.Model(inputs, mean, name="encoder")
    return keras.Model(inputs, [mean, keras.layers.Dense(latent_dim, name="log_sigma")(hidden)], name="encoder")


def build_decoder(
    latent_dim: int, hidden_units: Sequence[int], output_dim: int, *, activation: str = "relu"
) -> keras.Model:
    """Dense decoder: a model from (rows, latent_dim) to (rows, output_dim)."""
    inputs = keras.Input((latent_dim,))
    hidden = inputs
    for units in hidden_units:
        hidden = keras.layers.Dense(units, activation=activation)(hidden)
    return keras.Model(inputs, keras.layers.Dense(output_dim, name="reconstruction")(hidden), name="decoder")


class Autoencoder(keras.Model):
    """A dense encoder and decoder in one model, from (rows, input_dim) to its reconstruction."""

    def __init__(self, encoder: keras.Model, decoder: keras.Model) -> None:
        """Joins the two."""
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def call(self, inputs: Any) -> Any:
        """Reconstruction, shape (rows, input_dim)."""
        return self.decoder(self.encoder(inputs))


class VariationalAutoencoder(Autoencoder):
    """A dense VAE: the KL to the standard normal is added as a loss, summed over dimensions, averaged over rows."""

    def __init__(self, encoder: keras.Model, decoder: keras.Model, *, seed: int = 0) -> None:
        """Joins the two; the seed decides the noise of the reparameterisation."""
        super().__init__(encoder, decoder)
        self.noise = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any) -> Any:
        """Reconstruction from one reparameterised draw, shape (rows, input_dim)."""
        mean, log_sigma = self.encoder(inputs)
        log_sigma = ops.clip(log_sigma, *LOG_SIGMA_RANGE)
        self.add_loss(ops.mean(ops.sum(kl_divergence(mean, log_sigma), axis=-1)))
        noise = keras.random.normal(ops.shape(mean), seed=self.noise)
        return self.decoder(mean + ops.exp(log_sigma) * noise)


def build_autoencoder(
    input_dim: int,
    hidden_units: Sequence[int],
    latent_dim: int,
    decoder_units: Sequence[int] | None = None,
    *,
    activation: str = "relu",
) -> Autoencoder:
    """Dense autoencoder; the decoder mirrors the encoder unless `decoder_units` says otherwise."""
    units = tuple(reversed(hidden_units)) if decoder_units is None else decoder_units
    encoder = build_encoder(input_dim, hidden_units, latent_dim, variational=False, activation=activation)
    model = Autoencoder(encoder, build_decoder(latent_dim, units, input_dim, activation=activation))
    model.build((None, input_dim))
    return model


def build_vae(
    input_dim: int,
    hidden_units: Sequence[int],
    latent_dim: int,
    decoder_units: Sequence[int] | None = None,
    *,
    activation: str = "relu",
    seed: int = 0,
) -> VariationalAutoencoder:
    """Dense VAE; the decoder mirrors the encoder unless `decoder_units` says otherwise."""
    units = tuple(reversed(hidden_units)) if decoder_units is None else decoder_units
    encoder = build_encoder(input_dim, hidden_units, latent_dim, activation=activation)
    model = VariationalAutoencoder(
        encoder, build_decoder(latent_dim, units, input_dim, activation=activation), seed=seed
    )
    model.build((None, input_dim))
    return model


@dataclass(frozen=True)
class NetworkSize:
    """Widths of a `TabularNetwork`.

    Attributes:
        embedding_dim: Numbers that stand for one token value.
        hidden_units: Width of the residual layers on both sides of the latent.
        hidden_layers: How many of them on each side.
        latent_dim: Latent dimensions.
        head_units: Width of each token's own layers in the decoder.
        head_layers: Residual layers of each token's own.
        context_rank: None: every pair of tokens has its own block of weights. Else tokens reach later ones through a
            running sum of this width, as in NADE (Larochelle and Murray, AISTATS 2011): linear in the columns.
        autoregressive: Whether a token sees those before it.
        variational: Whether the latent is drawn from a posterior.
    """

    embedding_dim: int = 8
    hidden_units: int = 128
    hidden_layers: int = 2
    latent_dim: int = 16
    head_units: int = 48
    head_layers: int = 1
    context_rank: int | None = None
    autoregressive: bool = True
    variational: bool = True


@dataclass(frozen=True)
class HeadGroup:
    """Tokens whose logits are computed in one batched product, because their vocabularies are of similar size.

    Attributes:
        size: Padded vocabulary.
        start: First of them in the decoder's order.
        stop: One past the last.
    """

    size: int
    start: int
    stop: int


class TabularNetwork(keras.Model):
    """VAE over the tokens of a row, with an autoregressive or a factorised decoder.

    Every token's values are embedded; the encoder is a residual network over all embeddings; the decoder's trunk is one
    over the latent. The layer of token i sees the trunk and, through one block-masked product for all tokens at once,
    the embeddings of the tokens before it. Logits come from batched products, grouped by vocabulary.

    Input shape: tokens (rows, tokens) int32 and positions (rows, tokens) float32.
    Output shape: see `call`.
    """

    def __init__(
        self, layout: TokenLayout, size: NetworkSize, *, shares: Sequence[NDArray[np.float64]], seed: int
    ) -> None:
        """Builds all weights.

        Args:
            layout: The tokens of a row.
            size: Widths.
            shares: Training share of each value of each token; the first guess of the logits.
            seed: Decides the initial weights and the noise.
        """
        super().__init__(name="tabular_vae")
        self.layout = layout
        self.size = size
        self.token_order, self.groups = _head_groups(layout.sizes)
        self.noise = keras.random.SeedGenerator(seed)
        self._seed = seed
        self._input_dim = len(layout) * (size.embedding_dim + 1)
        self._add_encoder()
        self._add_decoder(shares)
        self.built = True

    def _weight(self, name: str, shape: tuple[int, ...], scale: float) -> Any:
        self._seed += 1
        initial = np.random.default_rng(self._seed).standard_normal(shape) * scale
        return self.add_weight(name=name, shape=shape, initializer=_fixed(initial))

    def _dense(self, name: str, inputs: int, outputs: int, scale: float | None = None) -> None:
        setattr(self, f"{name}_kernel", self._weight(f"{name}_kernel", (inputs, outputs), scale or inputs**-0.5))
        setattr(self, f"{name}_bias", self._weight(f"{name}_bias", (outputs,), 0.0))

    def _add_encoder(self) -> None:
        size = self.size
        table = _initial_embedding(self.layout, size.embedding_dim, np.random.default_rng(self._seed))
        self.embedding = self.add_weight(name="embedding", shape=table.shape, initializer=_fixed(table))
        outputs = size.latent_dim * (2 if size.variational else 1)
        self._add_stack("encoder", self._input_dim)
        self._dense("posterior", size.hidden_units, outputs, scale=0.01 if size.variational else None)

    def _add_stack(self, name: str, inputs: int) -> None:
        self._dense(f"{name}_0", inputs, self.size.hidden_units)
        for layer in range(1, self.size.hidden_layers + 1):
            self._dense(f"{name}_{layer}", self.size.hidden_units, self.size.hidden_units)

    def _add_decoder(self, shares: Sequence[NDArray[np.float64]]) -> None:
        size, count = self.size, len(self.layout)
        self._add_stack("decoder", size.latent_dim)
        self._dense("context", size.hidden_units, count * size.head_units)
        if size.autoregressive and size.context_rank is None:
            mask = _earlier_tokens(count, self.token_order, size.embedding_dim + 1, size.head_units)
            self.mask = ops.convert_to_tensor(mask)
            kernel = self._weight("earlier_kernel", mask.shape, (2.0 / self._input_dim) ** 0.5)
            kernel.assign(kernel * self.mask)
            self.earlier_kernel = kernel
        elif size.autoregressive and size.context_rank is not None:
            rank, width = size.context_rank, size.embedding_dim + 1
            self.before = ops.convert_to_tensor(_earlier_tokens(count, self.token_order, 1, 1).T)
            self.memory_kernel = self._weight("memory_kernel", (count, width, rank), self._input_dim**-0.5)
            self.recall_kernel = self._weight("recall_kernel", (count, rank, size.head_units), rank**-0.5)
        for layer in range(size.head_layers):
            name = f"head_{layer}"
            kernel = self._weight(f"{name}_kernel", (count, size.head_units, size.head_units), size.head_units**-0.5)
            setattr(self, f"{name}_kernel", kernel)
            setattr(self, f"{name}_bias", self._weight(f"{name}_bias", (count, size.head_units), 0.0))
        for group in self.groups:
            members = self.token_order[group.start : group.stop]
            kernel = self._weight(f"logits_{group.size}_kernel", (len(members), size.head_units, group.size), 0.05)
            setattr(self, f"logits_{group.size}_kernel", kernel)
            start = np.stack([_padded(np.log(shares[token]), group.size, _NEVER) for token in members])
            bias = self.add_weight(name=f"logits_{group.size}_bias", shape=start.shape, initializer=_fixed(start))
            setattr(self, f"logits_{group.size}_bias", bias)

    def embed(self, tokens: Any, positions: Any) -> Any:
        """Embeddings beside positions, shape (rows, tokens × (embedding_dim + 1)); zeros where none applies.

        Of a bin nothing is learned: it enters as its exact position and as waves of it, so that a narrow bin, seen in
        few rows, cannot be told by heart.
        """
        applies = ops.cast(tokens >= 0, "float32")[:, :, None]
        known = self.embedding * self.layout.embedded
        values = ops.take(known, ops.maximum(tokens, 0) + self.layout.offsets, axis=0)
        values = (values + self._waves(positions)) * applies
        return ops.reshape(ops.concatenate([values, positions[:, :, None]], axis=2), (-1, self._input_dim))

    def _waves(self, positions: Any) -> Any:
        """What `TokenLayout.waves` gives, for all tokens: (rows, tokens, embedding_dim)."""
        rank = 0.5 * (1.0 + ops.erf(positions * 2**-0.5))
        waves = WAVE_HEIGHT * ops.cos(rank[:, :, None] * WAVE_NUMBERS) * self.layout.ordered[:, None]
        return ops.pad(waves, ((0, 0), (0, 0), (0, self.size.embedding_dim - len(WAVE_NUMBERS))))

    def posterior(self, embedded: Any) -> tuple[Any, Any]:
        """Mean and log σ of the latent, each (rows, latent_dim); a plain autoencoder's log σ is the lower limit."""
        outputs = self._apply("posterior", self._stack("encoder", embedded))
        if not self.size.variational:
            return outputs, ops.full_like(outputs, LOG_SIGMA_RANGE[0])
        mean, log_sigma = ops.split(outputs, 2, axis=1)
        return mean, ops.clip(log_sigma, *LOG_SIGMA_RANGE)

    def draw(self, mean: Any, log_sigma: Any) -> Any:
        """One reparameterised latent per row; the mean itself in a plain autoencoder."""
        if not self.size.variational:
            return mean
        return mean + ops.exp(log_sigma) * keras.random.normal(ops.shape(mean), seed=self.noise)

    def negative_log_likelihood(self, tokens: Any, embedded: Any, latent: Any) -> Any:
        """−log p(token | latent, earlier tokens), shape (tokens, rows) in `token_order`; 0 where none applies."""
        hidden = self._apply("context", self._stack("decoder", latent))
        if self.size.autoregressive and self.size.context_rank is None:
            hidden = hidden + ops.matmul(embedded, self.earlier_kernel * self.mask)
        hidden = ops.transpose(ops.reshape(hidden, (-1, len(self.layout), self.size.head_units)), (1, 0, 2))
        if self.size.autoregressive and self.size.context_rank is not None:
            hidden = hidden + self._recall(embedded)
        hidden = ops.silu(hidden)
        for layer in range(self.size.head_layers):
            kernel, bias = getattr(self, f"head_{layer}_kernel"), getattr(self, f"head_{layer}_bias")
            hidden = hidden + ops.silu(ops.matmul(hidden, kernel) + bias[:, None, :])
        targets = ops.transpose(ops.take(tokens, self.token_order, axis=1))
        return ops.concatenate([self._group_loss(group, hidden, targets) for group in self.groups], axis=0)

    def _recall(self, embedded: Any) -> Any:
        """What each token learns of those before it through the running sum, (tokens, rows, head) in `token_order`."""
        by_token = ops.transpose(ops.reshape(embedded, (-1, len(self.layout), self.size.embedding_dim + 1)), (1, 0, 2))
        said = ops.matmul(by_token, self.memory_kernel)
        if len(self.layout) > _MANY_TOKENS:
            heard = ops.take(ops.cumsum(said, axis=0) - said, self.token_order, axis=0)
        else:
            # The same sum as one small product, several times as fast as a running sum over few tokens.
            heard = ops.reshape(ops.matmul(self.before, ops.reshape(said, (len(self.layout), -1))), ops.shape(said))
        return ops.matmul(heard, self.recall_kernel)

    def _group_loss(self, group: HeadGroup, hidden: Any, targets: Any) -> Any:
        kernel, bias = getattr(self, f"logits_{group.size}_kernel"), getattr(self, f"logits_{group.size}_bias")
        logits = ops.matmul(hidden[group.start : group.stop], kernel) + bias[:, None, :]
        wanted = targets[group.start : group.stop]
        loss = ops.sparse_categorical_crossentropy(ops.maximum(wanted, 0), logits, from_logits=True)
        return loss * ops.cast(wanted >= 0, "float32")

    def call(self, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
        """Reconstruction loss by token, (tokens, rows) in `token_order`, and KL by latent dimension, (rows, latent)."""
        tokens, positions = inputs
        embedded = self.embed(tokens, positions)
        mean, log_sigma = self.posterior(embedded)
        losses = self.negative_log_likelihood(tokens, embedded, self.draw(mean, log_sigma))
        kl = kl_divergence(mean, log_sigma) if self.size.variational else ops.zeros_like(mean)
        return losses, kl

    def _apply(self, name: str, inputs: Any) -> Any:
        return ops.matmul(inputs, getattr(self, f"{name}_kernel")) + getattr(self, f"{name}_bias")

    def _stack(self, name: str, inputs: Any) -> Any:
        hidden = ops.silu(self._apply(f"{name}_0", inputs))
        for layer in range(1, self.size.hidden_layers + 1):
            hidden = hidden + ops.silu(self._apply(f"{name}_{layer}", hidden))
        return hidden

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """All weights by name, as NumPy arrays."""
        return {weight.name: np.asarray(ops.convert_to_numpy(weight)) for weight in self.trainable_weights}

    def assign(self, arrays: dict[str, NDArray[np.float32]]) -> None:
        """The inverse of `arrays`."""
        for weight in self.trainable_weights:
            weight.assign(arrays[weight.name])


def _fixed(values: NDArray[Any]) -> Any:
    array = values.astype(np.float32)
    return lambda shape, dtype=None: ops.convert_to_tensor(array, dtype=dtype)


def _head_groups(sizes: NDArray[np.int32]) -> tuple[NDArray[np.int32], tuple[HeadGroup, ...]]:
    padded = np.array([next(size for size in _HEAD_SIZES if size >= vocabulary) for vocabulary in sizes])
    order = np.argsort(padded, kind="stable").astype(np.int32)
    groups = []
    for size in np.unique(padded):
        places = np.flatnonzero(padded[order] == size)
        groups.append(HeadGroup(int(size), int(places[0]), int(places[-1]) + 1))
    return order, tuple(groups)


def _earlier_tokens(count: int, order: NDArray[np.int32], inputs: int, outputs: int) -> NDArray[np.float32]:
    source = np.repeat(np.arange(count), inputs)
    target = np.repeat(order, outputs)
    return (source[:, None] < target[None, :]).astype(np.float32)


def _initial_embedding(layout: TokenLayout, dim: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Small random vectors; exact values of ordered columns start on smooth curves, so that neighbours begin alike."""
    table = rng.standard_normal((int(layout.sizes.sum()), dim)) * 0.3
    for token, offset in zip(layout.tokens, layout.offsets.tolist(), strict=True):
        if not token.is_ordered:
            continue
        place = (np.arange(token.size) + 0.5) / token.size
        curves = WAVE_HEIGHT * np.cos(np.pi * place[:, None] * np.arange(1, dim + 1))
        # The first few are always part of an ordered value.
        curves[:, : len(WAVE_NUMBERS)] = 0.0
        table[offset : offset + token.size] = curves
    return table * layout.embedded


def _padded(values: NDArray[np.float64], size: int, fill: float) -> NDArray[np.float64]:
    return np.concatenate([values, np.full(size - len(values), fill)])
