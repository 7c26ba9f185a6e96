"""What must hold after a fault, whatever it was: each check returns the violations it finds, as sentences.

Readers keep a whole snapshot; no row is lost or doubled; whatever points at something finds it; nothing lies about that
nobody needs. How the faults are made is no matter here: see `cases.py`.
"""

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vae_ops.registry import Registry
from vae_ops.storage import Location
from vae_ops.store import Output, Store
from vae_ops.table import SYNTHETIC_COLUMN

__all__ = ["latest_id", "names_below", "published_rows", "violations_among_models", "violations_for_readers"]


def names_below(location: Location) -> set[str]:
    """Every file below a place, by its path relative to it; directories too where the filesystem has them."""
    root = location.path.rstrip("/")
    found = location.fs.find(root, withdirs=location.is_local)
    return {path[len(root) + 1 :] for path in found} - {""}


def latest_id(output: Location) -> str:
    """Snapshot that readers follow; empty when nothing has been published."""
    pointer = Output(output).latest
    return str(pointer.read_json()["snapshot_id"]) if pointer.exists() else ""


def violations_for_readers(output: Location, allowed: Collection[str]) -> list[str]:
    """Checks the pointer, the snapshot it names, and every other snapshot that a reader may have open.

    Args:
        output: Root of the output.
        allowed: Snapshot ids that may be the latest; the empty text if there may be none.
    """
    try:
        latest = latest_id(output)
        snapshots = [name for name in Output(output).snapshots.list() if not name.startswith(".")]
        found = (
            [f"the latest snapshot is {latest!r}, expected one of {sorted(allowed)}"] if latest not in allowed else []
        )
        if latest and latest not in snapshots:
            found.append(f"_latest.json names {latest}, which is not there")
        for name in snapshots:
            found += [f"snapshot {name}: {fault}" for fault in _faults_of(Output(output).snapshot(name))]
    except Exception as error:  # noqa: BLE001 - a reader must not fail, whatever the reason
        return [f"readers fail: {type(error).__name__}: {error}"]
    return found


def _faults_of(snapshot: Location) -> Iterator[str]:
    manifest = json.loads(Output.manifest(snapshot).read_bytes())
    names = {file["name"] for file in manifest["files"]}
    others = {location(snapshot).name for location in (Output.manifest, Output.report, Output.page)}
    if set(snapshot.list()) != names | others:
        yield f"holds {snapshot.list()}, expected {sorted(names | others)}"
    for file in manifest["files"]:
        if hashlib.sha256(snapshot.child(file["name"]).read_bytes()).hexdigest() != file["sha256"]:
            yield f"{file['name']} is not what was published"
    json.loads(Output.report(snapshot).read_bytes())
    if not Output.page(snapshot).read_bytes().rstrip().endswith(b"</html>"):
        yield "the report is cut short"
    rows = published_rows(snapshot)
    if rows.num_rows != manifest["rows_source"] + manifest["rows_synthetic"]:
        yield f"holds {rows.num_rows} rows, which is not what its manifest says"
    if rows.filter(rows[SYNTHETIC_COLUMN]).num_rows != manifest["rows_synthetic"]:
        yield "holds another number of synthetic rows than its manifest says"


def published_rows(snapshot: Location, *, synthetic: bool | None = None) -> pa.Table:
    """Rows of a snapshot in order: all, or without the label only the synthetic or only the source's."""
    names = [name for name in snapshot.list() if name.endswith(".parquet")]
    tables = [pq.read_table(pa.BufferReader(snapshot.child(name).read_bytes())) for name in names]
    rows = pa.concat_tables(tables)
    if synthetic is None:
        return rows
    label = rows[SYNTHETIC_COLUMN]
    return rows.filter(label if synthetic else pc.invert(label)).drop_columns([SYNTHETIC_COLUMN])


def violations_among_models(output: Location, store: Location) -> list[str]:
    """Checks that the champion is the model behind the latest snapshot, and that its bundle is whole."""
    registry = Registry(Store(store), Store(store).line_of(Output(output)))
    found = registry.champion()
    if found is None:
        return ["there is no champion"]
    champion = found.version
    latest = Output(output).snapshot(latest_id(output))
    drawn_by = Output.manifest(latest).read_json()["model_version"]
    lost = [model for model in {champion, drawn_by} if not Store(store).has_model(model)]
    violations = [f"the bundle of model {model} is not there" for model in lost]
    if champion != drawn_by:
        violations.append(f"the champion is {champion}, the latest snapshot comes from {drawn_by}")
    return violations


def violations_of_tidiness(found: Collection[str], expected: Collection[str] | None) -> list[str]:
    """Checks what lies about after gc: nothing hidden, no run of the command line, and just what is expected.

    Args:
        found: Names below output and store.
        expected: The same after a walk that nothing disturbed; None where that is not known.
    """
    hidden = [name for name in found if any(part.startswith(".") for part in PurePosixPath(name).parts)]
    litter = [f"orphaned: {name}" for name in hidden]
    litter += [f"orphaned: {name}" for name in found if "runs/cli-" in name and name not in hidden]
    if expected is not None:
        litter += [f"orphaned: {name}" for name in sorted(set(found) - set(expected)) if name not in hidden]
        litter += [f"lost: {name}" for name in sorted(set(expected) - set(found))]
    return litter
