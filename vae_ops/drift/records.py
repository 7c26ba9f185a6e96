"""What was found to have moved, as records with a JSON round trip; and what a distance beyond its noise amounts to.

`columns.py`, `pairs.py` and `measuring.py` fill the records, `decision.py` and the report read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from vae_ops.settings import RefreshSettings

__all__ = ["CALMEST_FIRST", "ColumnDrift", "Drift", "Movement", "PairDrift", "movement_of", "percent"]

Movement = Literal["quiet", "moved", "large", "schema", "broken"]
CALMEST_FIRST: tuple[Movement, ...] = ("quiet", "moved", "large", "schema", "broken")


@dataclass(frozen=True)
class ColumnDrift:
    """What moved most in one column.

    Attributes:
        column: Its name.
        aspect: `new`, `gone`, `retyped`, `nulls`, `categories` or `quantiles`.
        distance: 0 (equal) to 1.
        noise: The distance that chance alone may cause at these sizes.
        movement: What it amounts to.
        sentence: The same for a person.
    """

    column: str
    aspect: Literal["new", "gone", "retyped", "nulls", "categories", "quantiles"]
    distance: float
    noise: float
    movement: Movement
    sentence: str

    @property
    def weight(self) -> tuple[int, float]:
        """Sorts by movement, then by how far the distance is beyond chance; what is quiet, by how near to it."""
        return _weight(self.movement, self.distance, self.noise)


@dataclass(frozen=True)
class PairDrift:
    """How far the dependence of two columns moved, beyond what either column did alone.

    Attributes:
        first: A column.
        second: Another.
        distance: 0 (equal) to 1.
        noise: The distance that chance alone may cause at these sizes.
        movement: What it amounts to.
        sentence: The same for a person.
    """

    first: str
    second: str
    distance: float
    noise: float
    movement: Movement
    sentence: str

    @property
    def weight(self) -> tuple[int, float]:
        """Sorts by movement, then by how far the distance is beyond chance; what is quiet, by how near to it."""
        return _weight(self.movement, self.distance, self.noise)


@dataclass(frozen=True)
class Drift:
    """What moved between two profiles.

    Attributes:
        movement: The worst of all columns and pairs.
        rows_reference: Rows of the earlier table.
        rows: Rows of the later one.
        columns: Every column, the worst first.
        pairs: The pairs that were looked at, the worst first; of many only the first hundred.
    """

    movement: Movement
    rows_reference: int
    rows: int
    columns: tuple[ColumnDrift, ...]
    pairs: tuple[PairDrift, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What moved, the worst first; empty where nothing did."""
        moved: list[ColumnDrift | PairDrift] = [*self.columns, *self.pairs]
        moved = [part for part in moved if part.movement != "quiet"]
        moved.sort(key=lambda part: CALMEST_FIRST.index(part.movement), reverse=True)
        return tuple(part.sentence for part in moved)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values, as `asdict` and JSON leave them."""
        columns = tuple(ColumnDrift(**column) for column in values["columns"])
        return cls(**{**values, "columns": columns, "pairs": tuple(PairDrift(**pair) for pair in values["pairs"])})


def _weight(movement: Movement, distance: float, noise: float) -> tuple[int, float]:
    near = distance / noise if noise else distance
    return CALMEST_FIRST.index(movement), near if movement == "quiet" else distance - noise


def movement_of(distance: float, noise: float, settings: RefreshSettings) -> Movement:
    """What a distance amounts to that chance brings up to `noise`."""
    beyond = distance - noise
    if beyond > settings.retrain_drift:
        return "large"
    return "moved" if beyond > settings.max_drift else "quiet"


def percent(share: float) -> str:
    """A share from 0 to 1 as a person reads it."""
    return f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.1f} %"
