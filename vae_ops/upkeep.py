"""What people do to a store between nights: collect garbage, and roll back.

`retention.py` and `registry.py` do it; here a path is turned into a store, and after a roll back readers are turned to
the newest snapshot that no withdrawn model has drawn.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from vae_ops.errors import UsageError
from vae_ops.publishing import load_latest, point_to
from vae_ops.registry import Registry
from vae_ops.retention import GcRecord, gc
from vae_ops.storage import locate
from vae_ops.store import Output, Store

__all__ = ["RollbackRecord", "collect_garbage", "find_store", "roll_back"]


@dataclass(frozen=True)
class RollbackRecord:
    """What a roll back changed.

    Attributes:
        version: The champion now.
        withdrawn: Versions that no run promotes again.
        snapshots: The snapshot that readers of each output find now, where that has changed.
        unchanged: Outputs whose newest snapshot comes from a withdrawn model, as there is no other left.
    """

    version: str
    withdrawn: tuple[str, ...]
    snapshots: Mapping[str, str]
    unchanged: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


def find_store(path: str | PathLike[str]) -> Store:
    """The store at a path, or in the output at a path.

    Raises:
        UsageError: There is none.
    """
    place = locate(path)
    for store in (Store(place), Store(Output(place).default_store)):
        if any(part.exists() for part in (store.runs, store.models, store.champions)):
            return store
    raise UsageError(
        f"Expected a store, or an output with its store inside, at {place.uri!r}, found none; name the directory that "
        "was given as --store."
    )


def collect_garbage(
    path: str | PathLike[str], *, keep: int, dry_run: bool = False, forget: Iterable[str] = ()
) -> GcRecord:
    """Removes what nothing points at from a store.

    Args:
        path: The store, or the output that it lies in.
        keep: How many runs of a scheduler, and how many champions, stay though nothing else points at them.
        dry_run: Only look.
        forget: Outputs that are gone for good, so that models need not be kept for their snapshots.

    Raises:
        UsageError: There is no store.
    """
    store = find_store(path)
    for uri in forget:
        store.forget(uri)
    return gc(store, keep=keep, dry_run=dry_run)


def roll_back(path: str | PathLike[str], to: str | None = None) -> RollbackRecord:
    """Makes an earlier version champion again, and turns readers away from snapshots of what is withdrawn.

    Args:
        path: The store, or the output that it lies in.
        to: Any version that the store still has; by default the champion before this one.

    Raises:
        UsageError: There is no store, no champion, no earlier one, or no such version.
    """
    store = find_store(path)
    move = Registry(store).rollback(to)
    snapshots: dict[str, str] = {}
    unchanged: list[str] = []
    for output in store.outputs():
        if not output.latest.exists() or load_latest(output.root.uri).model_version not in move.withdrawn:
            continue
        if newest := _newest_snapshot(output, move.withdrawn):
            snapshots[output.root.uri] = point_to(output, newest).snapshot_path
        else:
            unchanged.append(output.root.uri)
    return RollbackRecord(move.version, move.withdrawn, snapshots, tuple(unchanged))


def _newest_snapshot(output: Output, withdrawn: tuple[str, ...]) -> str | None:
    """The snapshot that was published last and comes from no withdrawn model."""
    manifests = {name: output.manifest(output.snapshot(name)) for name in output.snapshots.list() if name[0] != "."}
    facts = {name: manifest.read_json() for name, manifest in manifests.items() if manifest.exists()}
    left = [name for name in facts if facts[name]["model_version"] not in withdrawn]
    return max(left, key=lambda name: str(facts[name]["published_at"]), default=None)
