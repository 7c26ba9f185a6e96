"""What a step is told and what it returns: frozen records with a JSON round trip.

`steps.py` fills them; Airflow's operators, `--json` and the store see them as plain JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from vae_ops.errors import SettingsError
from vae_ops.settings import RunSettings

__all__ = [
    "AugmentResult",
    "DrawRecord",
    "PartRecord",
    "ProfileRecord",
    "PublishRecord",
    "StepSpec",
    "TrainRecord",
    "ValidateRecord",
]


@dataclass(frozen=True)
class StepSpec:
    """All that a step needs to know; the same for the five steps of a run, but for the shard.

    Attributes:
        source: URI of the Parquet table.
        store: URI of the store; None is `_store` inside the output.
        output: URI of the directory that holds the snapshots.
        run_id: Name of the run's artifacts in the store.
        settings: All choices of the run.
        shard: Which shard `generate` draws, from 0.
        shards: In how many shards the rows are drawn; it does not change the rows.
        labels: Facts for the manifest, such as the Airflow DAG and run.
        partition: Key of the partition that the source is, for the provenance of its rows; None where there is none.
            `output` and `store` are the partition's own.
    """

    source: str
    store: str | None
    output: str | None
    run_id: str
    settings: RunSettings = field(default_factory=RunSettings)
    shard: int = 0
    shards: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    partition: str | None = None

    def __post_init__(self) -> None:
        """Checks what can be checked without looking at a disk."""
        for name in ("source", "run_id"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise SettingsError(f"StepSpec.{name} expects a text, got {getattr(self, name)!r}.")
        if not self.store and not self.output:
            raise SettingsError("A step needs to know where its artifacts are: give the store or the output.")
        if not 0 <= self.shard < self.shards:
            raise SettingsError(f"The shard must lie between 0 and shards - 1, got {self.shard} of {self.shards}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the spec from plain JSON values.

        Raises:
            SettingsError: A key is missing or unknown, or a value makes no sense.
        """
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise SettingsError(f"Unknown key {unknown[0]!r} in a step's spec: known are {', '.join(known)}.")
        if missing := [name for name in ("source", "run_id") if name not in values]:
            raise SettingsError(f"A step's spec needs {missing[0]!r}.")
        settings = RunSettings.from_dict(values.get("settings") or {})
        return cls(**{"store": None, "output": None, **values, "settings": settings})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives back an equal spec."""
        return {**asdict(self), "settings": self.settings.to_dict(), "labels": dict(self.labels)}


class _Record:
    """What the results of all steps share: plain JSON values, there and back."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # type: ignore[call-overload]
        return values


@dataclass(frozen=True)
class ProfileRecord(_Record):
    """What `profile` found; the whole profile lies at `profile_path`."""

    profile_path: str
    rows: int
    columns: int
    fingerprint: str
    run_id: str


@dataclass(frozen=True)
class TrainRecord(_Record):
    """What `train` decided and made.

    Attributes:
        model_path: Bundle of the model that draws the rows.
        model_version: Its version.
        decision: `reuse`, `refresh` or `retrain`.
        reason: Why, in one sentence.
        is_new: Whether the model was trained in this step; otherwise it is the champion of an earlier night.
        steps: Optimiser steps of that training; 0 of an old model.
        stopped_by: `plan`, `holdout` or `clock`; `reuse` if nothing was trained, `trial` if the champion was better.
        rows_trained: Rows it was trained on; 0 of an old model.
        sampled: Whether the table was too large to learn from every row.
        seconds: Wall clock of the step.
    """

    model_path: str
    model_version: str
    decision: str
    reason: str
    is_new: bool
    steps: int
    stopped_by: str
    rows_trained: int
    sampled: bool
    seconds: float


@dataclass(frozen=True)
class PartRecord(_Record):
    """One synthetic part that `generate` drew."""

    part_path: str
    rows: int
    shard: int
    shards: int


@dataclass(frozen=True)
class DrawRecord(_Record):
    """Rows that were drawn from a saved model, outside any run."""

    output_path: str
    rows: int
    model_version: str
    seed: int
    files: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class ValidateRecord(_Record):
    """What the gate said, and on what grounds; a verdict `fail` is a result, not an error.

    Attributes:
        verdict: `pass`, `borderline` or `fail`.
        metrics: Value of each judged metric.
        noise_floor: What a perfect sampler scores in each.
        reasons: The three findings that weighed most, as sentences.
        report_path: All that was found, as an HTML page; its JSON lies beside it.
        remedies: What to do about each reason; empty for a pass.
    """

    verdict: str
    metrics: Mapping[str, float]
    noise_floor: Mapping[str, float]
    reasons: tuple[str, ...]
    report_path: str
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishRecord(_Record):
    """The snapshot that `publish` made the latest one; `rows_source` counts the source rows inside it."""

    snapshot_path: str
    model_version: str
    verdict: str
    rows_source: int
    rows_synthetic: int
    report_path: str


@dataclass(frozen=True)
class AugmentResult(_Record):
    """What a whole walk made.

    Attributes:
        snapshot_path: Directory of Parquet files that readers now find through `_latest.json`.
        report_path: What the gate found, as an HTML page; its JSON lies beside it.
        model_version: Version of the model that drew the rows.
        verdict: `pass` or `borderline`.
        rows_source: Source rows in the snapshot.
        rows_synthetic: Synthetic rows in the snapshot.
        seconds: Wall clock by step, and `total`.
        store: The store.
        model_path: Bundle of the promoted model.
        metrics: What the gate measured, by name.
        run_id: Digest of source, settings and code version.
        decision: `reuse`, `refresh` or `retrain`: where the model comes from.
        reason: Why.
        utility: What synthetic rows are worth for the target, and the dose that follows (the fields of
            `vae_ops.validation.evidence.UtilityEvidence`); None without a target.
    """

    snapshot_path: str
    report_path: str
    model_version: str
    verdict: str
    rows_source: int
    rows_synthetic: int
    seconds: Mapping[str, float]
    store: str
    model_path: str
    metrics: Mapping[str, float]
    run_id: str
    decision: str
    reason: str
    utility: Mapping[str, Any] | None = None
