"""What the steps of one process share: where a run's things lie, the opened source, and who hears of progress.

`steps.py` walks with it; names on disk come from `store.py`. The model is reached through two protocols, so that the
walk can be tested without a network.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import pyarrow as pa

from vae_ops.errors import SettingsError, SourceError, UsageError
from vae_ops.holdout import split_holdout
from vae_ops.profiling import Profile
from vae_ops.progress import Progress, Report, silent
from vae_ops.records import StepSpec, TrainRecord, ValidateRecord
from vae_ops.registry import Registry
from vae_ops.settings import ReadSettings, RunSettings, TrainSettings
from vae_ops.storage import Location, locate
from vae_ops.store import Output, Run, Store
from vae_ops.table import SourceLike, SourceTable, open_source
from vae_ops.validation.evidence import UtilityEvidence, Validation
from vae_ops.version import __version__

if TYPE_CHECKING:
    from vae_ops.training import TrainingProgress

__all__ = [
    "Engine",
    "Model",
    "Rows",
    "Walk",
    "another_seed",
    "code_version",
    "default_engine",
    "path_of",
    "recipe_of",
    "record_of",
    "rows_to_learn",
    "together",
    "training_facts",
    "training_listener",
]


class Model(Protocol):
    """What the walk asks of a model; `vae_ops.vae.TabularVAE` is it."""

    version: str
    training_record: dict[str, Any]

    @property
    def schema(self) -> pa.Schema:
        """Schema of the rows it draws."""

    def fit_tables(self, training: pa.Table, holdout: pa.Table, *, checkpoint: Location | None = None) -> object:
        """Learns from the training rows, with the holdout for early stop; a try after a kill goes on where it was."""

    def refresh_tables(
        self,
        training: pa.Table,
        holdout: pa.Table,
        *,
        champion: Self,
        steps_share: float,
        checkpoint: Location | None = None,
    ) -> object:
        """Goes on from an earlier model; raises `CannotRefreshError` where it cannot."""

    def sample_shard(self, rows: int, *, seed: int, shard: int = 0, shards: int = 1) -> Iterator[pa.Table]:
        """Draws one shard of the rows."""

    def reconstruct(self, table: pa.Table, *, seed: int) -> pa.Table:
        """Rows of the schema encoded and decoded again, in their order: draws from the posterior, not the prior."""

    def save(self, directory: str) -> str:
        """Saves a bundle and returns its version."""


class Engine(Protocol):
    """Makes models and loads them; the class `vae_ops.vae.TabularVAE` is it."""

    def __call__(
        self,
        *,
        settings: TrainSettings | None,
        read: ReadSettings | None,
        progress: "Callable[[TrainingProgress], None] | None",
    ) -> Model:
        """A model that has learned nothing yet."""

    def load(self, directory: str) -> Model:
        """A saved model, checked against its hashes."""


def default_engine() -> Engine:
    """`TabularVAE`, imported when it is needed."""
    # TensorFlow reads this when it is imported: without it every run reports at length that there is no GPU.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from vae_ops.vae import TabularVAE

    return TabularVAE


class Walk:
    """One run as one process sees it.

    Args:
        spec: What the steps are told.
        source: The table, where it is an object in memory; by default what lies at the spec's URI.
        engine: Makes and loads models; by default `TabularVAE`.
        report: Told how far a step has come.
    """

    def __init__(
        self,
        spec: StepSpec,
        *,
        source: "SourceLike | None" = None,
        engine: Engine | None = None,
        report: Report | None = None,
    ) -> None:
        self.spec = spec
        self.settings = spec.settings
        self.output = Output(locate(spec.output)) if spec.output else None
        self.store = Store(locate(spec.store)) if spec.store else Store(self.needed_output().default_store)
        self.registry = Registry(self.store, self.store.line_of(self.output))
        self.run: Run = self.store.run(spec.run_id)
        self.report: Report = report or silent
        self._source = spec.source if source is None else source
        self._engine = engine

    @cached_property
    def engine(self) -> Engine:
        """Makes and loads models; imported late, so that steps without a model pay for none."""
        return self._engine or default_engine()

    @cached_property
    def source(self) -> SourceTable:
        """The opened source."""
        return self.reopened()

    def reopened(self, *, unseen: Mapping[str, str] | None = None) -> SourceTable:
        """The source as it is now; with a watermark, only its files that are not in there."""
        read = self.settings.read
        fewest = 2 if unseen is None else 0
        return open_source(self._source, exclude=read.exclude, synthetic=read.synthetic, unseen=unseen, min_rows=fewest)

    def needed_output(self) -> Output:
        """The output, for steps that cannot do without."""
        if self.output is None:
            raise SettingsError("This step needs the output: the directory that holds the snapshots.")
        return self.output

    @property
    def recipe(self) -> str:
        """Digest of all that decides the published bytes: source, settings and code version."""
        return recipe_of(self.profile.fingerprint, self.settings)

    @property
    def profile(self) -> Profile:
        """What the profile step found."""
        return Profile.from_dict(self.read_json(self.run.profile, "profile"))

    @property
    def trained(self) -> TrainRecord:
        """What the train step made."""
        return TrainRecord(**self.read_json(self.run.trained, "train"))

    def read_json(self, location: Location, step: str) -> Any:
        """Reads what an earlier step left."""
        if not location.exists():
            raise UsageError(f"Run {self.spec.run_id!r} has no {location.name}: run its {step} step first.")
        return location.read_json()

    def bundle(self, version: str) -> Location:
        """Where a model lies: among the versions of the store, or else as the run's candidate."""
        return self.registry.bundle(version) if self.store.has_model(version) else self.run.candidate

    def is_trained(self) -> bool:
        """Whether the train step was finished and nothing of it has been removed since."""
        left = (self.run.trained, self.run.training, self.run.holdout)
        return all(part.exists() for part in left) and self.bundle(self.trained.model_version).exists()

    @property
    def utility(self) -> UtilityEvidence:
        """What synthetic rows are worth for learning the target."""
        return UtilityEvidence.from_dict(self.read_json(self.run.utility, "train"))

    @property
    def rows_to_draw(self) -> int:
        """Synthetic rows of the run; what does not provably help is not drawn."""
        dose = 1.0
        if self.settings.picks_dose:
            curve = self.utility.dose_curve
            dose = curve.picked if curve else 0.0
        return self.settings.generate.synthetic_rows(self.profile.rows, dose=dose)

    def check_unchanged(self, source: SourceTable) -> None:
        """Makes sure that all steps of a run see the same rows."""
        if source.fingerprint() != self.profile.fingerprint:
            raise SourceError(
                f"The source {self.spec.source!r} has changed since it was profiled: run the whole walk again, and let "
                "nothing write to the source meanwhile."
            )

    def tell(self, step: str, fraction: float, message: str, **values: float | int | None) -> None:
        """Reports progress."""
        self.report(Progress(step, min(max(fraction, 0.0), 1.0), message, values))

    @contextlib.contextmanager
    def at_work(self, step: str) -> Iterator[None]:
        """Marks the run as alive, beside other steps of it."""
        with self.store.working_on(self.spec.run_id, alone=False):
            self.run.touch(step)
            yield


def recipe_of(fingerprint: str, settings: RunSettings) -> str:
    """Digest of all that decides the published bytes: source, settings and code version."""
    parts = [fingerprint, settings.to_dict(), code_version()]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=12).hexdigest()


def code_version() -> str:
    """Version of vae-ops."""
    return __version__


def another_seed(seed: int) -> int:
    """A seed whose rows are not those of `seed`."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True)
class Rows:
    """What is learned from and judged by.

    Attributes:
        training: Rows that a model may be trained on.
        holdout: Rows of the same table that none is trained on.
        sampled: Whether the table was too large to learn from every row.
    """

    training: pa.Table
    holdout: pa.Table
    sampled: bool


def rows_to_learn(source: SourceTable, read: ReadSettings) -> Rows:
    """Samples the source and holds rows out."""
    sample = source.sample(read.max_training_rows, read.seed)
    training, holdout = split_holdout(sample, read.holdout_fraction, read.seed)
    return Rows(training, holdout, sampled=sample.num_rows < source.num_rows)


def training_facts(model: Model, rows: Rows) -> dict[str, Any]:
    """What `TrainRecord` says of a model that was trained on these rows."""
    facts = model.training_record
    return {
        "steps": int(facts["steps"]),
        "stopped_by": str(facts["stopped_by"]),
        "rows_trained": rows.training.num_rows,
        "sampled": rows.sampled,
    }


def together(model: Model, tables: Iterator[pa.Table]) -> pa.Table:
    """The shards of a draw as one table."""
    return pa.concat_tables([model.schema.empty_table(), *tables])


def record_of(found: Validation, page: Location) -> ValidateRecord:
    """What a validation tells its caller; all else is on the page."""
    return ValidateRecord(
        verdict=found.verdict,
        metrics=found.metrics,
        noise_floor=found.noise_floor,
        reasons=found.reasons,
        report_path=page.uri,
        remedies=tuple(finding.remedy for finding in found.findings[: len(found.reasons)]),
    )


def path_of(location: Location) -> str:
    """What a model takes as a directory: a path where there is one."""
    return location.path if location.is_local else location.uri


def training_listener(report: Report) -> "Callable[[TrainingProgress], None]":
    """Turns the training loop's own progress into a step's."""

    def listen(at: "TrainingProgress") -> None:
        loss, held = _finite(at.loss), _finite(at.holdout_loss)
        shown = "" if held is None else f", held-out {held:.3f}"
        # The last percent belongs to saving: a step is done once its record is written.
        fraction = 0.99 * at.step / max(at.steps, 1)
        values = {"loss": loss, "holdout_loss": held, "kl": _finite(at.kl), "optimiser_step": at.step}
        note = f" ({at.note})" if at.note else ""
        message = f"step {at.step:,} of {at.steps:,}, loss {at.loss:.3f}{shown}{note}"
        report(Progress("train", fraction, message, values))

    return listen


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
