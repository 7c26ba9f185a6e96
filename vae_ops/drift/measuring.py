"""Two profiles side by side: which columns came, went or changed their type, and the worst of what else moved.

`columns.py` and `pairs.py` measure what the two tables share; `records.py` holds what was found.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from vae_ops.drift.columns import column_drifts
from vae_ops.drift.pairs import pair_drifts
from vae_ops.drift.records import CALMEST_FIRST, ColumnDrift, Drift
from vae_ops.profiling import ColumnProfile, Profile
from vae_ops.schema import SemanticType
from vae_ops.settings import RefreshSettings

__all__ = ["measure_drift"]

# Of a hundred columns there are thousands of pairs, and a record is read by people.
_MOST_PAIRS = 100
_WITHOUT_DEPENDENCE = (SemanticType.IDENTIFIER, SemanticType.CONSTANT, SemanticType.NULL)


def measure_drift(reference: Profile, current: Profile, settings: RefreshSettings) -> Drift:
    """Measures what moved from one profile of a table to another.

    Noise is what two samples of one table, of these two sizes, exceed by chance in any column or pair in about one of a
    hundred nights.

    Args:
        reference: The earlier table, such as the one that a model learned.
        current: The later one.
        settings: What counts as moved, large or broken.

    Raises:
        BundleError: The sampled rows of a profile are damaged.
    """
    old = {column.name: column for column in reference.columns}
    shared = [(old[column.name], column) for column in current.columns if column.name in old]
    columns = _worst([*_schema_drifts(reference, current), *column_drifts(shared, current.schema, settings)])
    # What a broken column does to its pairs is no news.
    unfit = {column.column for column in columns if column.movement in ("broken", "schema")}
    paired = [new.name for _, new in shared if new.semantic_type not in _WITHOUT_DEPENDENCE and new.name not in unfit]
    pairs = pair_drifts(reference, current, paired, settings)
    movements = [*(column.movement for column in columns), *(pair.movement for pair in pairs)]
    return Drift(
        movement=max(movements, key=CALMEST_FIRST.index, default="quiet"),
        rows_reference=reference.rows,
        rows=current.rows,
        columns=tuple(columns),
        pairs=tuple(sorted(pairs, key=lambda pair: pair.weight, reverse=True)[:_MOST_PAIRS]),
    )


def _worst(found: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """The worst of each column, the worst first."""
    worst: dict[str, ColumnDrift] = {}
    for column in sorted(found, key=lambda column: column.weight, reverse=True):
        worst.setdefault(column.column, column)
    return list(worst.values())


def _schema_drifts(reference: Profile, current: Profile) -> Iterator[ColumnDrift]:
    old, new = ({column.name: column for column in profile.columns} for profile in (reference, current))
    for name, column in new.items():
        if name not in old:
            yield _schema_drift(name, "new", f"Column {name!r} is new: {_stored_as(column)}.")
        elif _stored_as(column) != _stored_as(old[name]):
            sentence = f"Column {name!r} was {_stored_as(old[name])} and is {_stored_as(column)} now."
            yield _schema_drift(name, "retyped", sentence)
    for name, column in old.items():
        if name not in new:
            yield _schema_drift(name, "gone", f"Column {name!r} is gone; it was {_stored_as(column)}.")
    yield from _misplaced([name for name in old if name in new], [name for name in new if name in old])


def _misplaced(before: Sequence[str], now: Sequence[str]) -> Iterator[ColumnDrift]:
    """Synthetic rows have the order of the columns that their model learned."""
    for place, name in enumerate(now):
        if before[place] != name:
            sentence = f"Column {name!r} stands in another place among the columns than before."
            yield _schema_drift(name, "retyped", sentence)


def _schema_drift(name: str, aspect: Literal["new", "gone", "retyped"], sentence: str) -> ColumnDrift:
    return ColumnDrift(name, aspect, distance=1.0, noise=0.0, movement="schema", sentence=sentence)


def _stored_as(column: ColumnProfile) -> str:
    # A model that learned nulls must not draw them for a column that allows none any more.
    return column.type if column.nullable else f"{column.type} without nulls"
