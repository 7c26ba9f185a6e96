"""`TabularVAE`: fit, sample, encode, save and load, in one object.

It joins the encodings, the network, training and sampling, and knows what a saved model contains; how that lies on disk
is the business of `bundle.py`. A loaded model samples and encodes in NumPy; TensorFlow is imported to fit.
"""

import base64
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.bundle import Bundle
from vae_ops.encoding.base import Carried, Codes
from vae_ops.encoding.row import RowEncoding, TokenLayout, extend_row_encoding, fit_row_encoding
from vae_ops.errors import BundleError, CannotRefreshError, UsageError
from vae_ops.holdout import halve_holdout, split_holdout
from vae_ops.sampling import BLOCK_ROWS, TokenSampler, blocks_of_shard, check_weights
from vae_ops.schema import SemanticType, infer_semantic_types
from vae_ops.settings import ReadSettings, TrainSettings
from vae_ops.storage import Location
from vae_ops.table import SourceLike, open_source
from vae_ops.training import TrainingData, TrainingPlan, TrainingProgress, TrainingResult, plan_training, train
from vae_ops.warm_start import Placement, carry_weights

if TYPE_CHECKING:
    from vae_ops.networks import NetworkSize, TabularNetwork

__all__ = ["TabularVAE"]

# The plan aims below the budget on two quiet cores; a machine twice as slow still finishes it, byte for byte.
_CLOCK_LENIENCE = 1.5
# Two rows in a hundred, at least two: a table of 20 rows has no category in five of them.
_RARE_SHARE = 50


class TabularVAE:
    """A variational autoencoder of one table.

    Args:
        seed: Decides weights and batches, and the sample and holdout of a large table.
        time_budget_seconds: Wall clock that training should take on two quiet cores.
        exclude: Columns to leave out.
        settings: All training choices at once; then `seed` and `time_budget_seconds` are not looked at.
        read: All reading choices at once; then `exclude` is not looked at.
        progress: Called while training.

    Attributes:
        version: Digest of the bundle's content; empty before `fit`.
        training_record: Steps, what stopped them, sizes, history and diagnosis.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        time_budget_seconds: float = 60.0,
        exclude: Sequence[str] = (),
        settings: TrainSettings | None = None,
        read: ReadSettings | None = None,
        progress: Callable[[TrainingProgress], None] | None = None,
    ) -> None:
        self._settings = settings or TrainSettings(seed=seed, time_budget_seconds=float(time_budget_seconds))
        self._read = read or ReadSettings(seed=seed, exclude=tuple(exclude))
        self._progress = progress
        self._rows: RowEncoding | None = None
        self._arrays: dict[str, NDArray[np.float32]] = {}
        self._facts: dict[str, Any] = {}
        self._network: TabularNetwork | None = None
        self._sampler: TokenSampler | None = None
        self.training_record: dict[str, Any] = {}
        self.version = ""

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows that `sample` gives: the source's, without excluded columns."""
        return self._fitted().schema

    @property
    def history(self) -> list[dict[str, float]]:
        """Loss, holdout loss and KL at each evaluation."""
        return list(self.training_record.get("history", []))

    @property
    def diagnosis(self) -> dict[str, Any]:
        """KL by latent dimension, active units, reconstruction loss by column."""
        return dict(self.training_record.get("diagnosis", {}))

    def fit(self, source: SourceLike) -> Self:
        """Learns from a table; a fixed share of its rows is held out for early stop.

        Args:
            source: Path or URI of Parquet, pyarrow Table or Dataset, or pandas DataFrame.

        Raises:
            InputError: The table cannot be learned from.
        """
        read = self._read
        opened = open_source(source, exclude=read.exclude, synthetic=read.synthetic)
        table = opened.sample(read.max_training_rows, read.seed)
        training, holdout = split_holdout(table, read.holdout_fraction, read.seed)
        return self.fit_tables(training, holdout)

    def fit_tables(self, training: pa.Table, holdout: pa.Table, *, checkpoint: Location | None = None) -> Self:
        """Learns from training rows.

        Args:
            training: Rows to learn from.
            holdout: Of these, early stop looks at one half, `halve_holdout(holdout)[0]`.
            checkpoint: Directory that a killed try of the very same fit left checkpoints in, to go on from.
        """
        types = infer_semantic_types(training, self._read.semantic_types)
        self._rows = fit_row_encoding(training, types, rare_rows=self._rare_rows(training))
        return self._learn(types, training, holdout, checkpoint=checkpoint)

    def refresh_tables(
        self,
        training: pa.Table,
        holdout: pa.Table,
        *,
        champion: "TabularVAE",
        steps_share: float,
        checkpoint: Location | None = None,
    ) -> Self:
        """Goes on from an earlier model of the same columns: its weights, its categories and new ones, new ranges.

        Args:
            training: Rows of the champion's schema.
            holdout: Rows that neither model was trained on.
            champion: The model to go on from; it stays as it is.
            steps_share: Optimiser steps, as a share of those of a training from nothing.
            checkpoint: Directory that a killed try of the very same refresh left checkpoints in, to go on from.

        Raises:
            CannotRefreshError: A column needs other tokens than before, or the widths of the network differ.
        """
        if not training.schema.equals(champion.schema):
            raise CannotRefreshError("The columns or their types are not the earlier model's: train from nothing.")
        known = champion.training_record["semantic_types"]
        types = {name: SemanticType(kind) for name, kind in known.items()}
        rare = self._rare_rows(training)
        self._rows, carried = extend_row_encoding(champion._fitted(), training, types, rare_rows=rare)
        self._learn(types, training, holdout, _WarmStart(champion, carried, steps_share), checkpoint=checkpoint)
        return self

    def _rare_rows(self, training: pa.Table) -> int:
        return min(self._settings.rare_category_rows, max(2, len(training) // _RARE_SHARE))

    def _learn(
        self,
        types: Mapping[str, SemanticType],
        training: pa.Table,
        holdout: pa.Table,
        start: "_WarmStart | None" = None,
        *,
        checkpoint: Location | None,
    ) -> Self:
        record: dict[str, Any] = {"steps": 0, "stopped_by": "plan", "history": [], "diagnosis": {}}
        rows = self._fitted()
        if len(rows.layout):
            record = self._train(rows, training, holdout, start, checkpoint)
        record["rows_trained"] = len(training)
        record["semantic_types"] = {name: str(kind) for name, kind in types.items()}
        record["refreshed_from"] = start.champion.version if start else ""
        self.training_record = record
        self.version = self._bundle().version
        return self

    def _train(
        self,
        rows: RowEncoding,
        training: pa.Table,
        holdout: pa.Table,
        start: "_WarmStart | None",
        checkpoint: Location | None,
    ) -> dict[str, Any]:
        from vae_ops.networks import TabularNetwork, use_threads

        settings, layout = self._settings, rows.layout
        use_threads(settings.threads)
        data = TrainingData.of(layout, rows.encode(training))
        held = TrainingData.of(layout, rows.encode(halve_holdout(holdout)[0]))
        size = size_network(layout, settings)
        shares = _shares(layout, data.tokens)
        smoothed = [_smoothed(share, len(training)) for share in shares]
        network = TabularNetwork(layout, size, shares=smoothed, seed=settings.seed)
        plan = plan_training(layout, size, len(training), settings)
        if start is not None:
            plan = start.begin(network, plan, smoothed)
        limit = _CLOCK_LENIENCE * settings.time_budget_seconds if settings.steps is None else float("inf")
        seed, progress = settings.seed, self._progress
        result = train(
            network, data, held, plan, seed=seed, limit_seconds=limit, progress=progress, checkpoint=checkpoint
        )
        self._keep(network, size, shares)
        self._calibrate(layout, shares)
        return _record_of(result, rows, size)

    def _keep(self, network: "TabularNetwork", size: "NetworkSize", shares: Sequence[NDArray[np.float64]]) -> None:
        self._network, self._sampler = None, None
        self._arrays = {**network.arrays(), "shares": np.concatenate(shares).astype(np.float32)}
        self._facts = {
            "size": {name: getattr(size, name) for name in size.__dataclass_fields__},
            "token_order": [int(token) for token in network.token_order],
            "groups": [[group.size, group.start, group.stop] for group in network.groups],
        }

    def _calibrate(self, layout: TokenLayout, shares: Sequence[NDArray[np.float64]]) -> None:
        corrections = self._ready_sampler().calibrate(shares)
        order = self._facts["token_order"]
        for size, start, stop in self._facts["groups"]:
            bias = self._arrays[f"logits_{size}_bias"].copy()
            for place in range(start, stop):
                token = order[place]
                bias[place - start, : layout.tokens[token].size] += corrections[token]
            self._arrays[f"logits_{size}_bias"] = bias
        self._sampler = None

    def _fitted(self) -> RowEncoding:
        if self._rows is None:
            raise UsageError("This TabularVAE has learned nothing yet: call fit, or load a saved model.")
        return self._rows

    def _ready_sampler(self) -> TokenSampler:
        if self._sampler is None:
            facts = self._facts
            groups = [tuple(group) for group in facts["groups"]]
            self._sampler = TokenSampler(
                self._fitted().layout,
                self._arrays,
                facts["token_order"],
                groups,
                facts["size"]["latent_dim"],
                variational=facts["size"]["variational"],
            )
        return self._sampler

    def sample(self, rows: int, *, seed: int = 0) -> pa.Table:
        """Draws rows in exactly the source's schema; the seed decides them, byte for byte."""
        return pa.concat_tables([self.schema.empty_table(), *self.sample_shard(rows, seed=seed)])

    def sample_shard(self, rows: int, *, seed: int, shard: int = 0, shards: int = 1) -> Iterator[pa.Table]:
        """Draws one shard of `rows` rows, block by block; the shards together are what `sample` gives.

        Args:
            rows: Rows of all shards together.
            seed: Decides the rows.
            shard: Which shard, from 0.
            shards: How many there are.

        Raises:
            UsageError: A negative number of rows, or a shard that does not exist.
        """
        if rows < 0:
            raise UsageError(f"The number of rows to draw must not be negative, got {rows}.")
        if not 0 <= shard < shards:
            raise UsageError(f"Shards are numbered from 0 to {shards - 1}, got shard {shard}.")
        encoding = self._fitted()
        for block, wanted in blocks_of_shard(rows, shard, shards):
            yield encoding.decode(self._codes_of_block(block, seed, wanted), block * BLOCK_ROWS)

    def _codes_of_block(self, block: int, seed: int, rows: int) -> Codes:
        return self._ready_sampler().sample_block(block, seed, rows) if self._has_tokens else Codes.none(rows)

    @property
    def _has_tokens(self) -> bool:
        return len(self._fitted().layout) > 0

    def reconstruct(self, table: pa.Table, *, seed: int = 0) -> pa.Table:
        """Encodes rows and decodes them again: each from one draw of its own posterior.

        What prior samples get wrong and reconstructions get right is the fault of the decoder on the prior.

        Args:
            table: Rows in the source's schema.
            seed: Decides the draws.
        """
        rows, rebuilt = self._fitted(), [self.schema.empty_table()]
        for block, start in enumerate(range(0, len(table), BLOCK_ROWS)):
            codes = rows.encode(table.slice(start, BLOCK_ROWS))
            if self._has_tokens:
                codes = self._ready_sampler().reconstruct(codes, np.random.default_rng([seed, block]))
            rebuilt.append(rows.decode(codes, start))
        return pa.concat_tables(rebuilt)

    @property
    def model(self) -> "TabularNetwork":
        """The Keras model; reading it imports TensorFlow."""
        if self._network is None:
            from vae_ops.networks import NetworkSize, TabularNetwork

            layout = self._fitted().layout
            if not self._has_tokens:
                raise UsageError("This table has nothing to learn: all its columns are constant, null or identifiers.")
            shares = [np.full(token.size, 1.0 / token.size) for token in layout.tokens]
            network = TabularNetwork(
                layout, NetworkSize(**self._facts["size"]), shares=shares, seed=self._settings.seed
            )
            network.assign(self._arrays)
            self._network = network
        return self._network

    def encode(self, table: pa.Table) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Posterior mean and log standard deviation of the latent, each of shape (rows, latent_dim)."""
        if not self._has_tokens:
            raise UsageError("This table has nothing to learn: all its columns are constant, null or identifiers.")
        return self._ready_sampler().posterior(self._fitted().encode(table))

    def _bundle(self) -> Bundle:
        rows = self._fitted()
        return Bundle.pack(
            {
                "schema": base64.b64encode(rows.schema.serialize().to_pybytes()).decode("ascii"),
                "settings": self._settings.to_dict(),
                "read": self._read.to_dict(),
                "encoding": rows.state(),
                "network": {**self._facts, "arrays": self._arrays},
                "training": self.training_record,
            }
        )

    def save(self, directory: str | os.PathLike[str]) -> str:
        """Writes the model as a directory of JSON and safetensors, staged and then renamed.

        Args:
            directory: Path or URI; an existing model there is replaced.

        Returns:
            The version: a digest of the content, equal for equal models.
        """
        bundle = self._bundle()
        bundle.write(directory)
        self.version = bundle.version
        return self.version

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Self:
        """Reads a saved model; nothing in it is executed.

        Raises:
            BundleError: Missing, incomplete, altered, of a newer format, or not a model of this kind.
        """
        bundle = Bundle.read(directory)
        try:
            loaded = cls._restored(bundle.unpack())
        # The files hold what was saved, or what somebody made up: then anything may be missing or absurd.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise BundleError(
                f"{os.fspath(directory)} is not a model that this version of vae-ops can use ({reason}); "
                "restore the model or train anew."
            ) from error
        loaded.version = bundle.version
        return loaded

    @classmethod
    def _restored(cls, tree: dict[str, Any]) -> Self:
        settings, read = TrainSettings.from_dict(tree["settings"]), ReadSettings.from_dict(tree["read"])
        loaded = cls(settings=settings, read=read)
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(tree["schema"])))
        loaded._rows = RowEncoding.from_state(schema, tree["encoding"])
        loaded._arrays = tree["network"].pop("arrays")
        loaded._facts = tree["network"]
        if loaded._has_tokens:
            check_weights(loaded._rows.layout, loaded._facts, loaded._arrays)
        loaded.training_record = dict(tree["training"])
        return loaded


@dataclass(frozen=True)
class _WarmStart:
    """The model to go on from.

    Attributes:
        champion: The model.
        carried: For each token, which of the champion's values each value goes on from.
        steps_share: Steps, as a share of those of a training from nothing.
    """

    champion: TabularVAE
    carried: Sequence[Carried]
    steps_share: float

    def begin(
        self, network: "TabularNetwork", plan: TrainingPlan, shares: Sequence[NDArray[np.float64]]
    ) -> TrainingPlan:
        """Gives a fresh network the champion's weights, and shortens the plan."""
        groups = [(group.size, group.start, group.stop) for group in network.groups]
        at = Placement(network.layout, network.token_order.tolist(), groups)
        facts = self.champion._facts
        earlier = Placement(
            self.champion._fitted().layout, facts["token_order"], [tuple(group) for group in facts["groups"]]
        )
        network.assign(carry_weights(network.arrays(), at, self.champion._arrays, earlier, self.carried, shares))
        return plan.shortened(self.steps_share)


def size_network(layout: TokenLayout, settings: TrainSettings) -> "NetworkSize":
    """Widths for a table: within a minute small networks with many steps win, so wide tables get narrower layers."""
    from vae_ops.networks import NetworkSize

    few, many = len(layout) <= _FEW_TOKENS, len(layout) > _MANY_TOKENS
    return NetworkSize(
        embedding_dim=4 if many else 8,
        hidden_units=settings.hidden_units or 64,
        latent_dim=settings.latent_dim or 16,
        head_units=16 if many else 32,
        head_layers=2 if few else 1,
        context_rank=None if few else 64,
        autoregressive=settings.decoder == "autoregressive",
        variational=settings.variational,
    )


# Up to the first, every pair of tokens has weights of its own; beyond the second, even narrow layers take long.
_FEW_TOKENS = 40
_MANY_TOKENS = 128


def _shares(layout: TokenLayout, tokens: NDArray[Any]) -> list[NDArray[np.float64]]:
    shares = []
    for index, token in enumerate(layout.tokens):
        applying = tokens[:, index][tokens[:, index] >= 0]
        shares.append(np.bincount(applying, minlength=token.size) / max(len(applying), 1))
    return shares


def _smoothed(share: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    return np.asarray((share * rows + 0.5) / (rows + 0.5 * len(share)))


def _record_of(result: TrainingResult, rows: RowEncoding, size: "NetworkSize") -> dict[str, Any]:
    record = result.to_dict()
    by_column = np.zeros(len(rows.encodings))
    np.add.at(by_column, np.asarray(rows.layout.column_of), np.asarray(record["diagnosis"].pop("loss_by_token")))
    names = rows.schema.names
    record["diagnosis"]["loss_by_column"] = {
        name: round(float(loss), 6) for name, loss in zip(names, by_column, strict=True)
    }
    record["tokens"] = len(rows.layout)
    return record
