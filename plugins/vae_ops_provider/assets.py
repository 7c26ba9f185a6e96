"""The event that a published snapshot sends to the DAGs that train on it.

`VaePublishOperator` writes it through `announce`, a consumer reads it through `PublishedSnapshot.from_events`; the keys
of the event's `extra` stand here and nowhere else.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from airflow.sdk import Asset, Context

__all__ = ["PublishedSnapshot", "announce"]


@dataclass(frozen=True)
class PublishedSnapshot:
    """What a consumer learns of a snapshot: the `extra` of the asset event.

    Attributes:
        snapshot_path: Directory of the immutable Parquet snapshot.
        model_version: Model that drew the synthetic rows.
        verdict: `pass` or `borderline`; nothing else is published.
        rows_source: Real rows in the snapshot's source.
        rows_synthetic: Synthetic rows in the snapshot.
        report_path: What the gate measured.
    """

    snapshot_path: str
    model_version: str
    verdict: str
    rows_source: int
    rows_synthetic: int
    report_path: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Picks the event's keys out of the publish step's record."""
        return cls(**{key.name: record[key.name] for key in dataclasses.fields(cls)})

    @classmethod
    def from_events(cls, triggering_asset_events: Mapping[Any, Iterable[Any]]) -> Self | None:
        """The newest snapshot among the events that started a DAG run; None when it was not started by one."""
        extras = [event.extra for events in triggering_asset_events.values() for event in events]
        return cls.from_record(extras[-1]) if extras else None

    def to_extra(self) -> dict[str, Any]:
        """The event's `extra`."""
        return dataclasses.asdict(self)


def announce(snapshot: PublishedSnapshot, outlets: Iterable[object], context: Context) -> None:
    """Puts the snapshot into the events that the running task will send to its outlet assets."""
    for outlet in outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra = snapshot.to_extra()
