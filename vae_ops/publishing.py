"""From rows to something a reader may trust: Parquet files, snapshots, the manifest and `_latest.json`.

A snapshot is written where nobody looks, read back, named after its content and only then made visible; the pointer to
it is replaced in one go. The names come from `store.py`; which rows go in, and whether the gate let them through, is
decided by `steps.py`.
"""

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vae_ops.errors import OutputError, SourceError
from vae_ops.storage import Location, locate
from vae_ops.store import Output
from vae_ops.synthetic_marks import MARK_PREFIX, SYNTHETIC_COLUMN
from vae_ops.trees import move_tree

__all__ = [
    "LatestSnapshot",
    "PartFile",
    "Provenance",
    "commit_snapshot",
    "digest_file",
    "load_latest",
    "part_provenance",
    "point_to",
    "published_schema",
    "read_rows",
    "stage_snapshot",
    "verify_part",
    "write_parquet",
    "write_parts",
    "write_rows",
]

FORMAT_VERSION = 1

_GROUP_ROWS = 131_072
_GROUP_BYTES = 64 * 2**20
_STEP_ROWS = 1_024
_FILE_GROUPS = 32


@dataclass(frozen=True)
class Provenance:
    """Where rows come from, as written into every Parquet file. Nothing here depends on when or where a run ran.

    Attributes:
        model_version: Content-derived version of the model.
        seed: Seed of the synthetic rows.
        source_fingerprint: Digest of the source's content; empty when the source is unknown.
        recipe: Digest of source, settings and code version; empty when there was no run.
        partition: Key of the partition that the rows belong to; empty when the table has none.
    """

    model_version: str
    seed: int
    source_fingerprint: str = ""
    recipe: str = ""
    partition: str = ""

    def key_values(self) -> dict[str, str]:
        """Entries of the Parquet key-value metadata."""
        values = {**asdict(self), "format_version": FORMAT_VERSION}
        if not self.partition:
            del values["partition"]
        return {f"{MARK_PREFIX}{key}": str(values[key]) for key in sorted(values)}


@dataclass(frozen=True)
class PartFile:
    """One verified Parquet file of a snapshot."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class LatestSnapshot:
    """The snapshot that `_latest.json` names.

    Attributes:
        snapshot_path: Directory of Parquet files, as a path or URI that a Parquet reader takes.
        snapshot_id: Name derived from the content.
        model_version: Version of the model that drew the synthetic rows.
        verdict: What the gate said: `pass` or `borderline`.
        rows_source: Source rows in the snapshot; 0 when they were left out.
        rows_synthetic: Synthetic rows in the snapshot.
        report_path: What the gate found, as an HTML page; its JSON lies beside it.
        published_at: UTC time at which this snapshot became the latest, ISO 8601.
    """

    snapshot_path: str
    snapshot_id: str
    model_version: str
    verdict: str
    rows_source: int
    rows_synthetic: int
    report_path: str
    published_at: str


def published_schema(source: pa.Schema, *, include_source: bool) -> pa.Schema:
    """Schema of a snapshot: the source's own, and a label at the end when source rows are part of it."""
    if not include_source:
        return source
    return source.append(pa.field(SYNTHETIC_COLUMN, pa.bool_(), nullable=False))


def write_parquet(
    directory: Location, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], provenance: Provenance
) -> int:
    """Writes one Parquet file, whole or not at all.

    Row groups are cut at fixed rows of the stream, so that equal rows give equal bytes however they were batched.

    Returns:
        Number of rows written.
    """
    return _write_groups(directory, name, schema, _row_groups(batches, schema), provenance)


def write_parts(
    directory: Location, prefix: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], provenance: Provenance
) -> list[str]:
    """Writes a stream of rows into as many files as its size asks for, at least one, and returns their names."""
    groups = _row_groups(batches, schema)
    names: list[str] = []
    while True:
        first = next(groups, None)
        if first is None and names:
            return names
        head = [] if first is None else [first]
        name = f"{prefix}-{len(names):05d}.parquet"
        _write_groups(
            directory, name, schema, itertools.chain(head, itertools.islice(groups, _FILE_GROUPS - 1)), provenance
        )
        names.append(name)


def _write_groups(
    directory: Location, name: str, schema: pa.Schema, groups: Iterable[pa.Table], provenance: Provenance
) -> int:
    rows = 0
    with _whole_file(directory, name) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group, row_group_size=_GROUP_ROWS)
            rows += group.num_rows
        writer.add_key_value_metadata(provenance.key_values())
    return rows


@contextlib.contextmanager
def _whole_file(directory: Location, name: str) -> Iterator[str]:
    """A local path to write to; the file appears under its name when the block ends well, and not otherwise."""
    directory.make_dirs()
    target = directory.child(name)
    if not directory.is_local:
        # A file without a name cannot outlive a kill.
        with tempfile.TemporaryFile() as scratch:
            path = f"/proc/self/fd/{scratch.fileno()}"
            yield path
            directory.fs.put_file(path, target.path)
        return
    staged = directory.child(f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        yield staged.path
        _sync_file(staged.path)
        staged.move_to(target)
    finally:
        staged.remove()


def _sync_file(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    pending: list[pa.RecordBatch] = []
    rows = weight = 0
    for piece in _aligned(batches):
        pending.append(piece)
        rows += piece.num_rows
        weight += _weight(piece)
        if rows % _STEP_ROWS == 0 and (rows >= _GROUP_ROWS or weight >= _GROUP_BYTES):
            yield _one_group(pending, schema)
            pending, rows, weight = [], 0, 0
    if pending:
        yield _one_group(pending, schema)


def _aligned(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, cut wherever a multiple of `_STEP_ROWS` is reached."""
    filled = 0
    for batch in batches:
        start = 0
        while start < batch.num_rows:
            piece = batch.slice(start, _STEP_ROWS - filled)
            start += piece.num_rows
            filled = (filled + piece.num_rows) % _STEP_ROWS
            yield piece


def _weight(batch: pa.RecordBatch) -> int:
    """Bytes of the values alone: Arrow's own count also depends on how the rows were batched."""
    texts = [column for column in batch.columns if _is_text(column.type)]
    return 8 * int(batch.num_rows * batch.num_columns) + sum(
        pc.sum(pc.binary_length(text)).as_py() or 0 for text in texts
    )


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _one_group(pieces: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    # Shards and row groups may each bring their own dictionary; one per group keeps the file the same for all of them.
    return pa.Table.from_batches(pieces, schema).unify_dictionaries().combine_chunks()


def part_provenance(location: Location) -> Provenance:
    """What a written file says about where its rows come from; nothing that holds, if vae-ops did not write it."""
    with location.open_input() as stream, pq.ParquetFile(stream) as file:
        found = file.metadata.metadata or {}
    names = [field.name for field in fields(Provenance)]
    values = {name: found.get(f"{MARK_PREFIX}{name}".encode(), b"").decode() for name in names}
    return Provenance(**{**values, "seed": int(values["seed"] or -1)})


def write_rows(directory: Location, name: str, rows: pa.Table) -> None:
    """Writes an Arrow IPC file, which unlike Parquet keeps every Arrow type, whole or not at all."""
    options = pa.ipc.IpcWriteOptions(compression="lz4", unify_dictionaries=True)
    with _whole_file(directory, name) as path, pa.ipc.new_file(path, rows.schema, options=options) as writer:
        writer.write_table(rows)


def read_rows(location: Location) -> pa.Table:
    """Reads what `write_rows` wrote."""
    with location.open_input() as stream, pa.ipc.open_file(stream) as file:
        return file.read_all()


def digest_file(location: Location) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with location.open_input() as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def verify_part(location: Location, schema: pa.Schema) -> PartFile:
    """Reads a written file back, every value of it.

    Raises:
        OutputError: The file is not what was written: unreadable, of another schema, or short of rows.
    """
    try:
        with location.open_input() as stream, pq.ParquetFile(stream) as file:
            found, promised = file.schema_arrow, file.metadata.num_rows
            rows = sum(batch.num_rows for batch in file.iter_batches())
    except (OSError, pa.ArrowException) as error:
        raise OutputError(
            f"{location.uri} cannot be read back after writing ({error}); nothing was published."
        ) from error
    if not found.equals(_as_parquet_keeps_it(schema)) or rows != promised:
        raise OutputError(f"{location.uri} reads back with another schema or row count; nothing was published.")
    return PartFile(location.name, rows, location.size(), digest_file(location))


def _as_parquet_keeps_it(schema: pa.Schema) -> pa.Schema:
    """The schema after a trip through Parquet, which has no second-resolution time; a Parquet source never differs."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return pq.read_schema(pa.BufferReader(sink.getvalue()))


def stage_snapshot(
    staging: Location,
    schema: pa.Schema,
    *,
    source: Iterable[pa.RecordBatch] | None,
    synthetic: Iterable[pa.RecordBatch],
    provenance: Provenance,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> tuple[PartFile, ...]:
    """Writes and verifies the files of a snapshot where no reader looks.

    Args:
        staging: Empty directory.
        schema: Schema of the snapshot, as `published_schema` gives it.
        source: Source rows without label, or None to leave them out.
        synthetic: Synthetic rows without label.
        provenance: Goes into the metadata of every file.
        on_rows: Told how many rows have been written since it was last told.

    Raises:
        OutputError: A file did not read back as written.
    """
    streams = [("source", source, False), ("synthetic", synthetic, True)]
    names: list[str] = []
    for prefix, batches, is_synthetic in streams:
        if batches is not None:
            labelled = _labelled(batches, schema, is_synthetic, on_rows)
            names += write_parts(staging, prefix, schema, labelled, provenance)
    return tuple(verify_part(staging.child(name), schema) for name in names)


def _labelled(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, is_synthetic: bool, on_rows: Callable[[int], None]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        columns = list(batch.columns)
        if schema.names[-1:] == [SYNTHETIC_COLUMN]:
            columns.append(pa.repeat(pa.scalar(is_synthetic), batch.num_rows))
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        on_rows(batch.num_rows)


def commit_snapshot(
    output: Output,
    staging: Location,
    files: tuple[PartFile, ...],
    *,
    schema: pa.Schema,
    provenance: Provenance,
    record: Mapping[str, Any],
    report: Mapping[str, Any],
    page: bytes,
    keep_snapshots: int,
    before_pointer: Callable[[], object] = lambda: None,
) -> LatestSnapshot:
    """Makes a staged snapshot the latest one.

    The snapshot gets its name in one rename, then `_latest.json` is replaced in one go; a reader finds the old snapshot
    or the new one, both whole. A snapshot of the same content that is there already is left as it is.

    Args:
        output: Where snapshots live.
        staging: Directory that `stage_snapshot` filled.
        files: What it wrote.
        schema: Schema of the files.
        provenance: As written into the files.
        record: Facts for manifest and pointer: `verdict` and everything worth knowing about the run.
        report: What the gate measured.
        page: The same for people, HTML.
        keep_snapshots: Older snapshots are removed.
        before_pointer: Called once the snapshot has its name, before a reader can learn of it.
    """
    snapshot_id = _snapshot_id(files, schema)
    published_at = datetime.now(UTC).isoformat()
    manifest = {
        **record,
        **asdict(provenance),
        "format_version": FORMAT_VERSION,
        "snapshot_id": snapshot_id,
        "rows_source": _count(files, "source"),
        "rows_synthetic": _count(files, "synthetic"),
        "published_at": published_at,
        "schema": [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in schema],
        "files": [asdict(file) for file in files],
    }
    Output.report(staging).write_json(report)
    Output.page(staging).write_atomic(page)
    Output.manifest(staging).write_json(manifest)
    with output.committing() as lease:
        final = output.snapshot(snapshot_id)
        if not _is_whole(final):
            final.remove()
            move_tree(staging, final, last=Output.manifest(final).name)
        before_pointer()
        latest = _latest_of(final, manifest)
        lease.verify()
        output.latest.write_json(_pointer(latest))
        output.keep_newest(keep_snapshots, order=_publishing_times(output), named=snapshot_id)
    return latest


def point_to(output: Output, snapshot_id: str) -> LatestSnapshot:
    """Makes a snapshot that is already there the latest one.

    Raises:
        OutputError: It has been removed since, or damaged.
    """
    with output.committing() as lease:
        snapshot = output.snapshot(snapshot_id)
        if not _is_whole(snapshot):
            raise OutputError(f"Snapshot {snapshot.uri} is no longer whole: run generate, validate and publish again.")
        latest = _latest_of(snapshot, Output.manifest(snapshot).read_json())
        lease.verify()
        output.latest.write_json(_pointer(latest))
    return latest


def _snapshot_id(files: tuple[PartFile, ...], schema: pa.Schema) -> str:
    content = [[file.name, file.sha256] for file in files]
    digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=16)
    digest.update(schema.serialize().to_pybytes())
    return digest.hexdigest()


def _count(files: tuple[PartFile, ...], prefix: str) -> int:
    return sum(file.rows for file in files if file.name.startswith(f"{prefix}-"))


def _is_whole(snapshot: Location) -> bool:
    manifest = Output.manifest(snapshot)
    if not manifest.exists():
        return False
    files = ((snapshot.child(file["name"]), file["bytes"]) for file in manifest.read_json()["files"])
    return all(file.exists() and file.size() == size for file, size in files)


def _publishing_times(output: Output) -> dict[str, str]:
    manifests = {name: Output.manifest(output.snapshot(name)) for name in output.snapshots.list()}
    return {name: m.read_json()["published_at"] for name, m in manifests.items() if m.exists() and name[0] != "."}


def _latest_of(snapshot: Location, manifest: Mapping[str, Any]) -> LatestSnapshot:
    paths = {"snapshot_path": snapshot.uri, "report_path": Output.page(snapshot).uri}
    facts = {field.name: manifest[field.name] for field in fields(LatestSnapshot) if field.name not in paths}
    return LatestSnapshot(**{**facts, **paths})


def _pointer(latest: LatestSnapshot) -> dict[str, Any]:
    """What `_latest.json` holds; the relative paths outlive a move of the output, the absolute ones suit a person."""
    relative = f"snapshots/{latest.snapshot_id}"
    return {**asdict(latest), "snapshot": relative, "report": f"{relative}/{os.path.basename(latest.report_path)}"}


def load_latest(output: str | os.PathLike[str]) -> LatestSnapshot:
    """Finds the newest published snapshot of an output directory.

    Args:
        output: Path or URI that was given to `augment`.

    Raises:
        SourceError: Nothing has been published there.
    """
    found = Output(locate(output))
    try:
        pointer = found.latest.read_json()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(
            f"No snapshot has been published to {found.root.uri!r}: run `vae-ops augment SOURCE OUTPUT` first."
        ) from None
    return _latest_of(found.snapshot(pointer["snapshot_id"]), pointer)
