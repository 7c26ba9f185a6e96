"""The event that a published snapshot sends to the DAGs that train on it.

`VaePublishOperator` writes it through `announce`, a consumer reads it through `PublishedSnapshot.from_events`; the keys
of the event's `extra` stand here and nowhere else. An alias among the outlets stands for an output that is only known
when the run starts, such as one that was typed into the trigger form.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from airflow.sdk import Asset, AssetAlias, Context

__all__ = ["PublishedSnapshot", "announce", "output_asset"]


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


def announce(snapshot: PublishedSnapshot, outlets: Iterable[object], context: Context, *, output: str) -> None:
    """Puts the snapshot into the events that the running task will send to its outlet assets.

    Args:
        snapshot: What was published.
        outlets: Of the task; an alias gets the output itself as an asset.
        context: Of the task.
        output: Path or URI of the directory that holds the snapshots.
    """
    for outlet in outlets:
        if isinstance(outlet, Asset):
            context["outlet_events"][outlet].extra = snapshot.to_extra()
        elif isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(output_asset(output), extra=snapshot.to_extra())


def output_asset(output: str) -> Asset:
    """The asset that an output directory is: its URI is its name, without the connection that leads there.

    Args:
        output: Path or URI; a relative path is taken from the working directory.
    """
    scheme, separator, rest = output.rstrip("/").partition("://")
    if not separator:
        return Asset(uri=Path(output).absolute().as_uri())
    bucket, slash, key = rest.partition("/")
    return Asset(uri=f"{scheme}://{bucket.rpartition('@')[2]}{slash}{key}")
