"""Frozen settings, one record per step, checked when built, with a JSON round trip.

A misspelt key, a wrong type or a value out of range raises `SettingsError` at once and names the setting. The records
hold choices only; where files lie is the business of `store.py`, what a step does of `steps.py`.
"""

import contextlib
import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from vae_ops.errors import SettingsError

__all__ = [
    "GATE_PRESETS",
    "GateSettings",
    "GenerateSettings",
    "PublishSettings",
    "ReadSettings",
    "RefreshSettings",
    "RunSettings",
    "TrainSettings",
    "UtilitySettings",
]

_LARGEST_DOSE = 100.0

GATE_PRESETS: Mapping[str, Mapping[str, float]] = {
    "standard": {},
    # Half the distance from perfect that the standard allows; the noise floor, which is chance, stays excused.
    "strict": {
        "noise_multiple": 3.0,
        "max_shape_error_percent": 1.5,
        "max_column_error_percent": 3.0,
        "max_mean_shift_sd": 0.03,
        "max_trend_error_percent": 3.0,
        "max_pair_error_percent": 3.0,
        "max_dependence_error_percent": 10.0,
        "max_c2st_auc": 0.62,
        "max_copy_excess_percent": 0.25,
        "max_near_copy_excess_percent": 0.5,
        "max_dcr_share_percent": 52.0,
        "max_membership_auc": 0.53,
        "max_rare_leak_percent": 5.0,
    },
    # Twice that distance, in fidelity alone: who puts up with coarser rows has not agreed to less privacy.
    "lenient": {
        "max_shape_error_percent": 6.0,
        "max_column_error_percent": 12.0,
        "max_mean_shift_sd": 0.12,
        "max_trend_error_percent": 12.0,
        "max_pair_error_percent": 12.0,
        "max_dependence_error_percent": 40.0,
        "max_c2st_auc": 0.9,
    },
}
"""Limits of `GateSettings` by how strict a gate is asked for; what a preset does not name is the default."""


class _Settings:
    """What all settings share: strict construction from plain values, and back."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values.

        Raises:
            SettingsError: An unknown key (the nearest known one is suggested), a wrong type, or a value out of range.
        """
        known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        hints = typing.get_type_hints(cls)
        built: dict[str, Any] = {}
        for key, value in values.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known settings are {', '.join(sorted(known))}."
                raise SettingsError(f"Unknown setting {key!r} in {cls.__name__}: {hint}")
            built[key] = _coerce(value, hints[key], f"{cls.__name__}.{key}")
        return cls(**built)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Builds the record from a JSON object; raises `SettingsError` like `from_dict`."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsError(f"{cls.__name__} expects a JSON object, but the text is not JSON: {error}.") from error
        if not isinstance(values, dict):
            raise SettingsError(f"{cls.__name__} expects a JSON object, got {type(values).__name__}.")
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives back an equal record."""
        return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(self))))  # type: ignore[call-overload]


def _coerce(value: Any, hint: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _coerce_one_of(value, typing.get_args(hint), where)
    if origin is Literal:
        if value not in typing.get_args(hint):
            expected = ", ".join(map(repr, typing.get_args(hint)))
            raise SettingsError(f"{where} expects one of {expected}, got {value!r}.")
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):
            return value
        if not isinstance(value, Mapping):
            raise SettingsError(f"{where} expects an object of settings, got {value!r}.")
        return typing.cast(type[_Settings], hint).from_dict(value)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise SettingsError(f"{where} expects a list, got {value!r}.")
        return tuple(_coerce(v, typing.get_args(hint)[0], where) for v in value)
    if origin in (dict, Mapping) or hint is Mapping or str(origin).endswith("Mapping'>"):
        if not isinstance(value, Mapping):
            raise SettingsError(f"{where} expects an object, got {value!r}.")
        return {str(k): _coerce(v, typing.get_args(hint)[1], where) for k, v in value.items()}
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, str):
        return value
    raise SettingsError(f"{where} expects {getattr(hint, '__name__', hint)}, got {value!r}.")


def _coerce_one_of(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in options:
        return None
    if value == "off" and options == (float, type(None)):
        return None
    first, *others = [option for option in options if option is not type(None)]
    for other in others:
        with contextlib.suppress(SettingsError):
            return _coerce(value, other, where)
    return _coerce(value, first, where)


def _check_range(record: object, name: str, low: float, high: float = math.inf, *, above: bool = False) -> None:
    value = getattr(record, name)
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise SettingsError(f"{type(record).__name__}.{name} expects a number, got {value!r}.")
    if not math.isfinite(value) or value > high or (value <= low if above else value < low):
        bound = f"above {low:g}" if above else f"at least {low:g}"
        bound += f" and at most {high:g}" if math.isfinite(high) else ""
        raise SettingsError(f"{type(record).__name__}.{name} must be {bound}, got {value!r}.")


@dataclass(frozen=True, kw_only=True)
class ReadSettings(_Settings):
    """How the source is read.

    Attributes:
        exclude: Columns to leave out of the model and of the output.
        semantic_types: Overrides of the inferred semantic type, by column name.
        max_training_rows: A larger table is trained on a fixed-seed sample of this many rows.
        holdout_fraction: Share of the sampled rows held out for the gate; early stop looks at half of them.
        seed: Decides the sample and the holdout.
        synthetic: What happens to rows and files that are labelled synthetic: `refuse` the source, or `exclude` and
            count them.
        incremental: Learn only from files that the champion's lineage has not seen, beside a rehearsal of old rows.
    """

    exclude: tuple[str, ...] = ()
    semantic_types: Mapping[str, str] = field(default_factory=dict)
    max_training_rows: int = 500_000
    holdout_fraction: float = 0.1
    seed: int = 0
    synthetic: Literal["refuse", "exclude"] = "refuse"
    incremental: bool = False

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_range(self, "max_training_rows", 2)
        _check_range(self, "holdout_fraction", 0.0, 0.5, above=True)
        _check_range(self, "seed", 0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class TrainSettings(_Settings):
    """How the model is trained.

    Attributes:
        time_budget_seconds: Wall clock that training should take on two quiet cores. The number of steps follows from
            it and from the table's shape, never from a clock; the clock itself is only a safety stop.
        steps: Exact number of optimiser steps; None derives it from the budget.
        seed: Decides initial weights, batches and noise.
        decoder: `autoregressive` (each column sees those before it) or `factorised` (independent given the latent).
        variational: False trains a plain autoencoder.
        latent_dim: Latent dimensions; None sizes by the table.
        hidden_units: Width of the residual layers; None sizes by the table and budget.
        rare_category_rows: Categories seen in fewer rows than this are protected: never emitted verbatim.
        threads: CPU threads; part of the reproducibility promise, as sums are split by thread.
    """

    time_budget_seconds: float = 60.0
    steps: int | None = None
    seed: int = 0
    decoder: Literal["autoregressive", "factorised"] = "autoregressive"
    variational: bool = True
    latent_dim: int | None = None
    hidden_units: int | None = None
    rare_category_rows: int = 5
    threads: int = 2

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_range(self, "time_budget_seconds", 0.0, above=True)
        _check_range(self, "steps", 1)
        _check_range(self, "seed", 0, 2**63 - 1)
        _check_range(self, "latent_dim", 1, 4096)
        _check_range(self, "hidden_units", 1, 65_536)
        _check_range(self, "rare_category_rows", 1)
        _check_range(self, "threads", 1, 1024)


@dataclass(frozen=True, kw_only=True)
class RefreshSettings(_Settings):
    """When a night goes on with the model it has, and when it trains.

    A drift is a distance between 0 and 1 (total variation or Kolmogorov-Smirnov), and counts only beyond what chance
    does to tables of these sizes.

    Attributes:
        mode: `auto` decides by drift; `reuse`, `refresh` and `retrain` are done whatever the drift, where they can be.
        max_drift: Distance, beyond chance, up to which a column or pair of columns counts as unmoved.
        retrain_drift: Distance, beyond chance, from which on a model is trained from nothing.
        broken_null_share: Rise of a column's share of nulls, beyond chance, that no world but a broken upstream makes:
            the night is stopped. None (or `off`) never stops one.
        max_age_days: A model trained from nothing longer ago is not refreshed any more; None never.
        max_refreshes: Refreshes in a row before a model is trained from nothing; None is any number.
        steps_share: Optimiser steps of a refresh, as a share of those of a training from nothing.
        rehearsal_rows: Rows of the past that are kept beside a model, to be rehearsed when it is refreshed; real rows,
            so guard the store as you guard the source. 0 keeps none.
        trial_rows: Rows that champion and challenger draw to be compared.
    """

    mode: Literal["auto", "reuse", "refresh", "retrain"] = "auto"
    max_drift: float = 0.02
    retrain_drift: float = 0.6
    broken_null_share: float | None = 0.2
    max_age_days: float | None = 30.0
    max_refreshes: int | None = 14
    steps_share: float = 0.08
    rehearsal_rows: int = 20_000
    trial_rows: int = 10_000

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_range(self, "max_drift", 0.0, 1.0)
        _check_range(self, "retrain_drift", self.max_drift, 1.0)
        _check_range(self, "broken_null_share", 0.0, 1.0, above=True)
        _check_range(self, "max_age_days", 0.0)
        _check_range(self, "max_refreshes", 0)
        _check_range(self, "steps_share", 0.0, 1.0, above=True)
        _check_range(self, "rehearsal_rows", 0)
        _check_range(self, "trial_rows", 100)


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(_Settings):
    """How many rows are drawn, and from which seed.

    Attributes:
        rows: Synthetic rows; excludes `ratio`.
        ratio: Synthetic rows per source row. With a target in `UtilitySettings`, `auto` is the dose that provably helps
            to learn it; otherwise, and without `rows` and `ratio`, it is one synthetic row per source row.
        seed: Decides the rows, byte for byte, however many shards draw them.
    """

    rows: int | None = None
    ratio: float | Literal["auto"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_range(self, "rows", 0)
        if self.ratio != "auto":
            _check_range(self, "ratio", 0.0)
        _check_range(self, "seed", 0, 2**63 - 1)
        if self.rows is not None and self.ratio is not None:
            raise SettingsError("Give either rows or ratio, not both: each fixes the number of synthetic rows.")

    def synthetic_rows(self, source_rows: int, *, dose: float = 1.0) -> int:
        """Number of rows to draw for a source of `source_rows` rows; `dose` is what `auto` stands for."""
        if self.rows is not None:
            return self.rows
        ratio = 1.0 if self.ratio is None else self.ratio
        return round((dose if ratio == "auto" else ratio) * source_rows)


@dataclass(frozen=True, kw_only=True)
class GateSettings(_Settings):
    """What the gate lets through. Errors are percent, 0 is perfect; None (or `off`) switches a metric off.

    Every limit is a multiple of the noise floor, which is what a perfect sampler scores at these numbers of rows. It is
    never less than its `max_…`, so that the narrow floor of a large table makes no fault of what nobody would notice,
    and never more than that beyond the floor, so that the wide floor of a small one excuses nothing but noise.

    A value beyond its limit is borderline until it lies `borderline` times as far from the floor as the limit does, and
    for as long as its confidence interval reaches down to the limit; one whose interval reaches down to the floor is a
    pass, as so few rows cannot tell it from chance.

    Attributes:
        noise_multiple: How many noise floors a metric may reach.
        max_shape_error_percent: Mean over columns of 100 × KS or total-variation distance.
        max_column_error_percent: The same of the worst column.
        max_mean_shift_sd: Distance of the means in real standard deviations, of the worst column.
        max_trend_error_percent: Mean over the pairs of columns with a trend of 100 × correlation or contingency error.
        max_pair_error_percent: The same over all pairs.
        max_dependence_error_percent: 100 × the distance of joint distributions that no single column explains, of the
            worst pair.
        max_c2st_auc: AUC of boosted trees telling synthetic from held-out rows; 0.5 cannot tell.
        max_copy_excess_percent: Exact copies of training rows, above the share found among held-out rows.
        borderline: Factor on a limit up to which the verdict is borderline instead of fail.
        sample_rows: Fixed-seed sample per side on which all but the search for copies is judged.
        max_near_copy_excess_percent: Synthetic rows ten times nearer to one training row than to any other, above the
            share found among real rows.
        max_dcr_share_percent: Synthetic rows nearer to training than to held-out rows, equal numbers of both; 50 is
            perfect.
        max_membership_auc: AUC of an attacker telling training from held-out rows by the synthetic rows; 0.5 cannot
            tell. Among outliers the distance from 0.5 may be twice as large.
        max_rare_leak_percent: Categories too rare to be shown that were emitted nevertheless, above the share that
            fresh real rows would show.
        max_extreme_leak_percent: The same of least and greatest values that a single training row holds.
    """

    noise_multiple: float = 4.0
    max_shape_error_percent: float | None = 3.0
    max_column_error_percent: float | None = 6.0
    max_mean_shift_sd: float | None = 0.06
    max_trend_error_percent: float | None = 6.0
    max_pair_error_percent: float | None = 6.0
    max_dependence_error_percent: float | None = 20.0
    max_c2st_auc: float | None = 0.75
    max_copy_excess_percent: float | None = 0.5
    borderline: float = 1.5
    sample_rows: int = 50_000
    max_near_copy_excess_percent: float | None = 1.0
    max_dcr_share_percent: float | None = 53.0
    max_membership_auc: float | None = 0.55
    max_rare_leak_percent: float | None = 10.0
    max_extreme_leak_percent: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values.

        Args:
            values: Settings by name. Besides them, `strictness` names one of `GATE_PRESETS`, over which they win.

        Raises:
            SettingsError: An unknown key or preset, a wrong type, or a value out of range.
        """
        limits = dict(values)
        strictness = limits.pop("strictness", "standard")
        if strictness not in tuple(GATE_PRESETS):
            expected = ", ".join(map(repr, GATE_PRESETS))
            raise SettingsError(f"{cls.__name__}.strictness expects one of {expected}, got {strictness!r}.")
        return super().from_dict({**GATE_PRESETS[strictness], **limits})

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_range(self, "noise_multiple", 1.0)
        for measured in ("shape", "column", "trend", "pair", "dependence"):
            _check_range(self, f"max_{measured}_error_percent", 0.0, 100.0)
        _check_range(self, "max_mean_shift_sd", 0.0)
        _check_range(self, "max_c2st_auc", 0.5, 1.0)
        _check_range(self, "max_copy_excess_percent", 0.0, 100.0)
        _check_range(self, "borderline", 1.0)
        _check_range(self, "sample_rows", 100)
        _check_range(self, "max_near_copy_excess_percent", 0.0, 100.0)
        _check_range(self, "max_dcr_share_percent", 50.0, 100.0)
        _check_range(self, "max_membership_auc", 0.5, 1.0)
        _check_range(self, "max_rare_leak_percent", 0.0, 100.0)
        _check_range(self, "max_extreme_leak_percent", 0.0, 100.0)

    @property
    def judges_privacy(self) -> bool:
        """Whether any metric of privacy is switched on."""
        limits = ("copy_excess_percent", "near_copy_excess_percent", "dcr_share_percent", "membership_auc")
        leaks = ("rare_leak_percent", "extreme_leak_percent")
        return any(getattr(self, f"max_{name}") is not None for name in limits + leaks)


@dataclass(frozen=True, kw_only=True)
class UtilitySettings(_Settings):
    """Whether synthetic rows help to learn a target, and how closely that is looked at.

    Attributes:
        target: The column to learn from the others; None measures no utility.
        task: What learning it means; None decides by the column (texts, booleans and integers of few values are
            classes).
        doses: Synthetic rows per real row, beside 0, at which the gain is measured.
        repeats: Draws of synthetic rows, and fits, behind each dose; three of a table that takes long to fit.
        max_rows: Real rows in each fit; of a larger table a fixed-seed sample plays that part.
        max_gap: How much lower a model trained on synthetic rows alone may score than one trained on as many real rows,
            beyond what chance may cause; more is borderline. None (or `off`) judges no utility.
        fail_gap: From where on it is a failure; None never fails a run for its utility.
    """

    target: str | None = None
    task: Literal["classification", "regression"] | None = None
    doses: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    repeats: int = 5
    max_rows: int = 30_000
    max_gap: float | None = 0.05
    fail_gap: float | None = None

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_range(self, "repeats", 2, 100)
        _check_range(self, "max_rows", 100)
        _check_range(self, "max_gap", 0.0)
        _check_range(self, "fail_gap", self.max_gap or 0.0)
        if not self.doses or not all(0 < dose <= _LARGEST_DOSE for dose in self.doses):
            raise SettingsError(
                f"UtilitySettings.doses expects numbers above 0 and at most {_LARGEST_DOSE:g}, got {self.doses!r}; "
                "dose 0 is always measured."
            )


@dataclass(frozen=True, kw_only=True)
class PublishSettings(_Settings):
    """What a snapshot holds and how long it is kept.

    Attributes:
        include_source: Source rows are part of the snapshot, told apart by `_is_synthetic`.
        keep_snapshots: Older snapshots are removed after a publish; the one that `_latest.json` names never is.
    """

    include_source: bool = True
    keep_snapshots: int = 7

    def __post_init__(self) -> None:
        """Checks the ranges."""
        _check_range(self, "keep_snapshots", 1)


@dataclass(frozen=True, kw_only=True)
class RunSettings(_Settings):
    """All choices of one run: what `augment` and the Airflow task group take.

    Attributes:
        read: How the source is read.
        train: How the model is trained.
        refresh: When the model of an earlier night goes on.
        generate: How many rows are drawn.
        gate: What the gate lets through.
        utility: Which column the rows should help to learn.
        publish: What a snapshot holds.
    """

    read: ReadSettings = field(default_factory=ReadSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    refresh: RefreshSettings = field(default_factory=RefreshSettings)
    generate: GenerateSettings = field(default_factory=GenerateSettings)
    gate: GateSettings = field(default_factory=GateSettings)
    utility: UtilitySettings = field(default_factory=UtilitySettings)
    publish: PublishSettings = field(default_factory=PublishSettings)

    def __post_init__(self) -> None:
        """Checks what sections say together."""
        target = self.utility.target
        if target in self.read.exclude:
            raise SettingsError(f"The target {target!r} is excluded from the table: take it out of read.exclude.")
        if self.picks_dose and not self.publish.include_source:
            raise SettingsError(
                'ratio="auto" picks how many rows to add to the source, but publish.include_source leaves the source '
                "out: give a number of rows or a ratio."
            )

    @property
    def picks_dose(self) -> bool:
        """Whether the number of synthetic rows follows from a dose curve."""
        return self.generate.ratio == "auto" and self.utility.target is not None
