"""What people do to a store between nights: collect garbage, and roll back.

`retention.py` and `registry.py` do it; here a path is turned into a store and one of its lines of champions, and after
a roll back readers of that line's output are turned to the newest snapshot that no withdrawn model has drawn.
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
from vae_ops.store import OWN_LINE, Output, Store

__all__ = ["RollbackRecord", "collect_garbage", "find_store", "roll_back"]


@dataclass(frozen=True)
class RollbackRecord:
    """What a roll back changed.

    Attributes:
        version: The champion now.
        withdrawn: Versions that no run promotes again.
        snapshots: The snapshot that readers of the output find now, if that has changed.
        unchanged: The output, if its newest snapshot comes from a withdrawn model, as there is no other left.
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
        keep: How many runs of a scheduler, and how many champions a line, stay though nothing else points at them.
        dry_run: Only look.
        forget: Outputs that are gone for good, so that models need not be kept for their snapshots.

    Raises:
        UsageError: There is no store.
    """
    store = find_store(path)
    for uri in () if dry_run else forget:
        store.forget(uri)
    return gc(store, keep=keep, dry_run=dry_run)


def roll_back(
    path: str | PathLike[str], to: str | None = None, *, output: str | PathLike[str] | None = None
) -> RollbackRecord:
    """Makes an earlier version champion of an output again, and turns its readers away from what is withdrawn.

    Args:
        path: The store, or the output that it lies in, whose champion is then meant.
        to: Any version that the store still has, but for those of other outputs; by default the champion before this
            one.
        output: Whose champion is meant; needed for a store that feeds several outputs.

    Raises:
        UsageError: There is no store, no champion, no earlier one, or no such version; or it is unclear which output
            is meant.
    """
    store = find_store(path)
    if output is None and locate(path).uri != store.root.uri:
        output = path
    line = _line_meant(store, output)
    move = Registry(store, line).rollback(to)
    snapshots: dict[str, str] = {}
    unchanged: list[str] = []
    for fed in (known for known in store.outputs() if store.line_of(known) == line):
        if not fed.latest.exists() or load_latest(fed.root.uri).model_version not in move.withdrawn:
            continue
        if newest := _newest_snapshot(fed, move.withdrawn):
            snapshots[fed.root.uri] = point_to(fed, newest).snapshot_path
        else:
            unchanged.append(fed.root.uri)
    return RollbackRecord(move.version, move.withdrawn, snapshots, tuple(unchanged))


def _line_meant(store: Store, output: str | PathLike[str] | None) -> str:
    """The line of the output that was named; if none was, the only one."""
    lines = store.lines()
    if output is None and len(lines) > 1:
        problem = f"has champions of {len(lines)} outputs"
    elif output is None or not lines:
        return lines[0] if lines else OWN_LINE
    elif (line := store.line_of(Output(locate(output)))) in lines:
        return line
    else:
        problem = f"has no champion of {locate(output).uri}"
    known = ", ".join(sorted(map(store.fed_by, lines)))
    raise UsageError(f"The store {store.root.uri} {problem}: name one of these with --output: {known}.")


def _newest_snapshot(output: Output, withdrawn: tuple[str, ...]) -> str | None:
    """The snapshot that was published last and comes from no withdrawn model."""
    manifests = {name: output.manifest(output.snapshot(name)) for name in output.snapshots.list() if name[0] != "."}
    facts = {name: manifest.read_json() for name, manifest in manifests.items() if manifest.exists()}
    left = [name for name in facts if facts[name]["model_version"] not in withdrawn]
    return max(left, key=lambda name: str(facts[name]["published_at"]), default=None)
