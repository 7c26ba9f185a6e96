"""Which model drew the rows and why that one: the decision, what moved, and champion against challenger, as records.

`decision.py` decides, `drift/` says what moved and `trial.py` compares; the report shows these records.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from vae_ops.drift import Drift
from vae_ops.validation.evidence import Interval

__all__ = ["RefreshEvidence", "Trial", "TrialMetric"]


@dataclass(frozen=True)
class TrialMetric:
    """One metric of champion and challenger on the same real rows; lower is better.

    Attributes:
        metric: Its name, as in `Finding`.
        champion: Of rows drawn from the champion.
        challenger: Of as many rows drawn from the challenger.
        difference: Interval of challenger minus champion; with 95 % confidence those of all metrics hold at once.
        margin: By how much the challenger may be worse, because nobody would notice.
        columns: The columns it speaks of, where it does not speak of all.
    """

    metric: str
    champion: float
    challenger: float
    difference: Interval
    margin: float = 0.0
    columns: tuple[str, ...] = ()

    @property
    def is_worse(self) -> bool:
        """Whether the challenger is worse beyond chance, and by more than nobody would notice."""
        return self.difference.low > self.margin

    @property
    def is_better(self) -> bool:
        """Whether the challenger is better beyond chance."""
        return self.difference.high < 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values, as `asdict` and JSON leave them."""
        read = {"difference": Interval(**values["difference"]), "columns": tuple(values.get("columns", ()))}
        return cls(**{**values, **read})


@dataclass(frozen=True)
class Trial:
    """Champion against challenger on the same holdout.

    Attributes:
        challenger_wins: Whether the challenger is worse in nothing, so that it takes over.
        sentence: Why, for a person.
        metrics: What was compared, in the order in which a validation looks at it.
        rows: Rows that each of them drew.
        rows_real: Real rows they were compared with.
    """

    challenger_wins: bool
    sentence: str
    metrics: tuple[TrialMetric, ...] = ()
    rows: int = 0
    rows_real: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values, as `asdict` and JSON leave them."""
        return cls(**{**values, "metrics": tuple(map(TrialMetric.from_dict, values["metrics"]))})


@dataclass(frozen=True)
class RefreshEvidence:
    """Which model drew the rows, and why that one.

    Attributes:
        decision: `reuse`, `refresh` or `retrain`.
        reason: One sentence.
        model_version: The model that drew the rows.
        champion: The model that was in force before; empty on a first night.
        drift: What moved since the champion learned; None on a first night.
        trial: Champion against challenger; None where there was nothing to compare.
        lineage: Versions from the model that drew the rows back to the one trained from nothing.
    """

    decision: Literal["reuse", "refresh", "retrain"]
    reason: str
    model_version: str
    champion: str = ""
    drift: Drift | None = None
    trial: Trial | None = None
    lineage: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values, as `asdict` and JSON leave them."""
        drift, trial = values["drift"], values["trial"]
        return cls(
            **{
                **values,
                "drift": drift and Drift.from_dict(drift),
                "trial": trial and Trial.from_dict(trial),
                "lineage": tuple(values["lineage"]),
            }
        )
