"""The Parquet files behind one path: which they are, their footers, hive partitions, one joint schema, their batches.

A file is read as it was found, or not at all: one that changes meanwhile is refused. `table.py` decides whether the
table they make can be learned from; `storage.py` opens the files; `python_rows.py` does the same for what is no file.
Extension types are shown as Arrow shows those that nobody registered: the storage type, and two keys in the field
metadata.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from vae_ops.errors import SourceError
from vae_ops.plain_arrow import filter_rows, simple_array, simple_schema
from vae_ops.storage import Location, has_wildcard
from vae_ops.synthetic_marks import SYNTHETIC_COLUMN, is_marked, real_mask, without_label

__all__ = ["FileRows", "changed", "open_files", "reading"]

_BATCH_ROWS = 65_536
_BATCH_BYTES = 32 * 1024**2
_SUFFIXES = (".parquet", ".parq", ".pq")
_MAGIC = b"PAR1"
_SMALLEST_BYTES = 12
# What filesystems of fsspec call the version of a file, or the time at which it was written.
_VERSION_KEYS = (
    "ETag",
    "etag",
    "generation",
    "md5Hash",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "created",
)
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class _Part:
    """One file with what its footer says.

    Attributes:
        location: Where it lies.
        name: Its path relative to the source.
        stamp: What changes when the file does, taken before anything of it was read.
        schema: Columns that are shown.
        num_rows: Rows that are shown.
        row_bytes: Mean bytes of a row, uncompressed.
        partition: Keys of the path.
        is_marked: Whether the metadata say that vae-ops wrote it.
        is_thinned: Whether rows labelled synthetic are passed over.
    """

    location: Location
    name: str
    stamp: tuple[object, ...]
    schema: pa.Schema
    num_rows: int
    row_bytes: float
    partition: dict[str, str | None]
    is_marked: bool
    is_thinned: bool = False

    @property
    def is_labelled(self) -> bool:
        """Whether a column tells synthetic rows from real ones."""
        return SYNTHETIC_COLUMN in self.schema.names

    def partition_keys(self) -> tuple[str, ...]:
        """Keys of the path that become columns: a column inside the file wins over its name in the path."""
        return tuple(key for key in self.partition if key not in self.schema.names)

    @cached_property
    def digest(self) -> str:
        """Digest of the bytes, and of the partition, whose keys are columns too."""
        whole = hashlib.blake2b(json.dumps(sorted(self.partition.items())).encode(), digest_size=16)
        with _steady(self), self.location.open_input() as file:
            while block := file.read(1024**2):
                whole.update(block)
        return whole.hexdigest()


class FileRows:
    """Rows of Parquet files, one file after the other.

    Attributes:
        num_rows: Rows of all files.
        uri: Where the source lies.
        files: URIs of the files, in reading order.
    """

    def __init__(
        self, uri: str, parts: Sequence[_Part], exclude: frozenset[str], *, found: Sequence[_Part] = ()
    ) -> None:
        """Joins files; `found` are all files of the source, where `parts` are only some of them."""
        self.uri: str | None = uri
        self.files = tuple(part.location.uri for part in parts)
        self.num_rows = sum(part.num_rows for part in parts)
        self._parts = parts
        self._found = found or parts
        self._exclude = exclude

    @cached_property
    def schema(self) -> pa.Schema:
        """Joint schema of the files, of the last one where none is to be read; hive partition columns come last.

        Raises:
            SourceError: Two files disagree on a column that is not excluded.
        """
        return _joint_schema(self._parts or self._found[-1:], self._exclude, self._found)

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Streams the columns of `schema` in source order."""
        for part in self._parts:
            if part.num_rows:
                yield from _part_batches(part, schema)

    def digest(self) -> str:
        """Digest of the bytes and relative names of the files."""
        parts = [(part.name, part.digest) for part in self._parts]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def signs_of_synthetic(self) -> tuple[str, ...]:
        """What says that there are synthetic rows, one phrase a file."""
        labelled = f"has the column {SYNTHETIC_COLUMN!r}, so vae-ops wrote it"
        marked = "says in its metadata that vae-ops wrote it"
        return tuple(
            f"{part.location.uri!r} {labelled if part.is_labelled else marked}"
            for part in self._parts
            if part.is_labelled or part.is_marked
        )

    def real(self) -> tuple["FileRows", int]:
        """The rows that are not labelled synthetic, and the number of those that are; reads the labels."""
        thinned = [_without_synthetic(part) for part in self._parts]
        # A file without a real row must not count for what the source holds, nor have the columns of the others.
        kept = [now for now, before in zip(thinned, self._parts, strict=True) if now.num_rows or not before.num_rows]
        rows = FileRows(self.uri or "", kept, self._exclude, found=kept or thinned)
        return rows, self.num_rows - rows.num_rows

    def files_seen(self) -> dict[str, str]:
        """Digest of each file of the source by its relative name, whether its rows are read or were seen before."""
        return {part.location.name if part.name == "." else part.name: part.digest for part in self._found}

    def unseen(self, digests: Collection[str]) -> "FileRows":
        """The rows of the files whose digest is not among those given; which must be read to know."""
        fresh = [part for part in self._parts if part.digest not in digests]
        return FileRows(self.uri or "", fresh, self._exclude, found=self._found)


def open_files(location: Location, exclude: frozenset[str]) -> FileRows:
    """Finds the Parquet files at a path and reads their footers.

    Args:
        location: A file, a directory or a glob pattern.
        exclude: Columns on which the files need not agree.

    Raises:
        SourceError: Nothing is there, or it is not Parquet, truncated, or does not fit together.
    """
    with reading(location.uri):
        base, found = _find(location)
        parts = [part for path in sorted(found) if (part := _read_part(location.at(path), base, found)) is not None]
    if not parts:
        others = f"only {PurePosixPath(found[0]).name!r} and the like" if found else "none"
        raise SourceError(f"Expected Parquet files below {location.uri!r}, found {others}; check the path.")
    return FileRows(location.uri, parts, exclude)


def changed(uri: str) -> SourceError:
    """What to say of a file that is no longer the one that was opened."""
    return SourceError(
        f"Expected {uri!r} to stay as it was when the source was opened, but it has been changed, replaced or removed "
        "meanwhile: run again, and let nothing write to the source until the run is over."
    )


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Turns what Arrow, the operating system and object stores raise while reading into a `SourceError`."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        lines = str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__]
        reason = lines[0].rstrip(".")
        raise SourceError(f"Cannot read {uri!r}: {reason}; write the file again or check its permissions.") from error


# --- which files ---------------------------------------------------------------------------------------------------


def _find(location: Location) -> tuple[str, list[str]]:
    fs, path = location.fs, location.path
    if location.is_dir():
        return path, _visible(path, fs.find(path))
    if location.exists():
        if not fs.isfile(path):
            raise SourceError(f"Expected a Parquet file or a directory, but {location.uri!r} is neither.")
        return path, [path]
    if not has_wildcard(path):
        raise SourceError(f"Expected a Parquet file, a directory or a pattern, but {location.uri!r} does not exist.")
    base = _fixed_base(path)
    matches = _visible(base, fs.glob(path))
    below = [found for match in matches for found in (_visible(match, fs.find(match)) if fs.isdir(match) else [match])]
    if not below:
        raise SourceError(f"Expected Parquet files, but nothing matches {location.uri!r}; check the pattern.")
    return base, sorted(set(below))


def _fixed_base(pattern: str) -> str:
    parts = PurePosixPath(pattern).parts
    fixed = next(depth for depth, part in enumerate(parts) if has_wildcard(part))
    return str(PurePosixPath(*parts[:fixed]))


def _visible(base: str, paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not any(part[0] in "_." for part in _relative(base, path).parts)]


def _relative(base: str, path: str) -> PurePosixPath:
    return PurePosixPath(path).relative_to(PurePosixPath(base))


# --- footers -------------------------------------------------------------------------------------------------------


def _read_part(location: Location, base: str, found: Sequence[str]) -> _Part | None:
    """None for a file of another kind that merely lies in the same directory, such as a README."""
    with reading(location.uri):
        stamp = _stamp(location)
    named = location.path == base or location.name.lower().endswith(_SUFFIXES)
    if not _looks_like_parquet(location, required=named):
        return None
    with reading(location.uri), _open_parquet(location) as file:
        footer, schema = file.metadata, simple_schema(file.schema_arrow)
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    _check_length(location, groups)
    row_bytes = sum(group.total_byte_size for group in groups) / max(footer.num_rows, 1)
    relative = _relative(base, location.path)
    return _Part(
        location,
        name=str(relative),
        stamp=stamp,
        schema=schema,
        num_rows=footer.num_rows,
        row_bytes=row_bytes,
        partition=_partition_of(relative),
        is_marked=is_marked(footer.metadata),
    )


def _open_parquet(location: Location) -> pq.ParquetFile:
    # Without a buffered, page-wise stream the whole row group would be held in memory, however large it is; over a
    # network the fewer, larger requests are worth that memory.
    local = location.is_local
    return pq.ParquetFile(
        location.path,
        filesystem=location.arrow_filesystem(),
        pre_buffer=not local,
        buffer_size=64 * 1024 if local else 0,
    )


def _looks_like_parquet(location: Location, *, required: bool) -> bool:
    size = location.size()
    with location.open_input() as file:
        head = file.read(len(_MAGIC))
        file.seek(max(size - len(_MAGIC), 0))
        tail = file.read(len(_MAGIC))
    if head != _MAGIC and not required:
        return False
    if head == b"PARE":
        raise SourceError(f"Expected plain Parquet, but {location.uri!r} is encrypted; write it without encryption.")
    if head != _MAGIC:
        raise SourceError(
            f"Expected Parquet, but {location.uri!r} ({size} bytes) is something else; convert it to Parquet first."
        )
    if tail != _MAGIC or size < _SMALLEST_BYTES:
        raise _truncated(location)
    return True


def _check_length(location: Location, groups: Sequence[pq.RowGroupMetaData]) -> None:
    columns = (group.column(index) for group in groups for index in range(group.num_columns))
    if sum(column.total_compressed_size for column in columns) > location.size():
        raise _truncated(location)


def _truncated(location: Location) -> SourceError:
    return SourceError(
        f"Expected a whole Parquet file, but {location.uri!r} is truncated at {location.size()} bytes; write it again."
    )


def _partition_of(relative: PurePosixPath) -> dict[str, str | None]:
    pairs = (part.split("=", 1) for part in relative.parts[:-1] if "=" in part[1:])
    return {unquote(key): None if value == _NULL_PARTITION else unquote(value) for key, value in pairs}


# --- one schema ----------------------------------------------------------------------------------------------------


def _joint_schema(parts: Sequence[_Part], exclude: frozenset[str], found: Sequence[_Part]) -> pa.Schema:
    """Columns of `parts`; what type a partition has is decided by all that were found, and so stays from day to day."""
    first = parts[0]
    fields = {field.name: (field, first) for field in first.schema}
    for part in parts[1:]:
        _check_same_names(first, part, exclude)
        for field in part.schema:
            known, owner = fields.setdefault(field.name, (field, part))
            if field.name not in exclude:
                fields[field.name] = _joint_field(known, owner, field, part)
    # Repeated names are kept as they are: table.py refuses them, unless they are excluded.
    columns = [fields[field.name][0] for field in first.schema]
    columns += [field for name, (field, _) in fields.items() if name not in first.schema.names]
    keys = dict.fromkeys(key for part in parts for key in part.partition_keys() if key not in fields)
    partitions = [pa.field(key, _partition_type([part.partition.get(key) for part in found])) for key in keys]
    return pa.schema(columns + partitions, metadata=first.schema.metadata)


def _check_same_names(first: _Part, part: _Part, exclude: frozenset[str]) -> None:
    for kind, ours, theirs in (
        ("column", first.schema.names, part.schema.names),
        ("hive partition", first.partition_keys(), part.partition_keys()),
    ):
        differing = sorted(set(ours).symmetric_difference(theirs) - exclude)
        if differing:
            name = differing[0]
            having, lacking = (first, part) if name in ours else (part, first)
            raise SourceError(
                f"Expected the same columns in every file, but {having.location.uri!r} has the {kind} {name!r} and "
                f"{lacking.location.uri!r} has not; write the files alike or exclude={name!r} (--exclude)."
            )


def _joint_field(known: pa.Field, owner: _Part, field: pa.Field, part: _Part) -> tuple[pa.Field, _Part]:
    joint = _joint_type(known.type, field.type)
    if joint is None:
        raise SourceError(
            f"Expected one type per column, but {known.name!r} is {known.type} in {owner.location.uri!r} and "
            f"{field.type} in {part.location.uri!r}; write the files alike or exclude={known.name!r} (--exclude)."
        )
    # Writers such as pandas give a column of nulls only the null type, so its owner is the file that knows better.
    wider = known.with_type(joint).with_nullable(known.nullable or field.nullable)
    return wider, part if pa.types.is_null(known.type) else owner


def _joint_type(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    if pa.types.is_dictionary(left) and pa.types.is_dictionary(right) and left.value_type == right.value_type:
        return max(left, right, key=lambda type_: type_.index_type.bit_width)
    return None


def _partition_type(values: Sequence[str | None]) -> pa.DataType:
    known = [value for value in values if value is not None]
    integers = all(re.fullmatch(r"-?\d{1,10}", value) and -(2**31) <= int(value) < 2**31 for value in known)
    return pa.int32() if known and integers else pa.string()


# --- rows ----------------------------------------------------------------------------------------------------------


def _part_batches(part: _Part, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    stored = [name for name in schema.names if name in part.schema.names]
    stored += [SYNTHETIC_COLUMN] if part.is_thinned else []
    batch_rows = int(min(max(_BATCH_BYTES / max(part.row_bytes, 1.0), 256), _BATCH_ROWS))
    with _steady(part), _open_parquet(part.location) as file:
        for batch in file.iter_batches(batch_size=batch_rows, columns=stored, use_threads=False):
            rows = pa.RecordBatch.from_arrays([_column(part, batch, field) for field in schema], schema=schema)
            yield filter_rows(rows, real_mask(batch.column(SYNTHETIC_COLUMN))) if part.is_thinned else rows


def _column(part: _Part, batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    if field.name in part.schema.names:
        return simple_array(batch.column(field.name), field.type)
    value = part.partition[field.name]
    return pa.nulls(batch.num_rows, field.type) if value is None else _repeat(value, field.type, batch.num_rows)


def _repeat(value: str, type_: pa.DataType, times: int) -> pa.Array:
    return pa.repeat(pa.scalar(value).cast(type_), times)


def _without_synthetic(part: _Part) -> _Part:
    """The part without what vae-ops made: a column tells rows apart, and a mark without one means all of them."""
    if not part.is_labelled:
        return replace(part, num_rows=0) if part.is_marked else part
    with _steady(part), _open_parquet(part.location) as file:
        labels = (batch.column(SYNTHETIC_COLUMN) for batch in file.iter_batches(columns=[SYNTHETIC_COLUMN]))
        real = sum(int(real_mask(column).sum()) for column in labels)
    return replace(part, schema=without_label(part.schema), num_rows=real, is_thinned=True)


# --- files that change ---------------------------------------------------------------------------------------------


@contextmanager
def _steady(part: _Part) -> Iterator[None]:
    """Makes sure that the file is the one that was found, before and after it is read, whatever is found inside."""
    _check_stamp(part)
    try:
        with reading(part.location.uri):
            yield
    except SourceError as error:
        _check_stamp(part, error)
        raise
    _check_stamp(part)


def _check_stamp(part: _Part, cause: SourceError | None = None) -> None:
    try:
        with reading(part.location.uri):
            now = _stamp(part.location)
    except SourceError as error:
        raise changed(part.location.uri) from cause or error
    if now != part.stamp:
        raise changed(part.location.uri) from cause


def _stamp(location: Location) -> tuple[object, ...]:
    """What changes when a file is written again: on a local disk also when another file takes its name."""
    if location.is_local:
        status = os.stat(location.path)
        return status.st_size, status.st_mtime_ns, status.st_ino
    info = location.fs.info(location.path)
    return tuple(str(info.get(key)) for key in ("size", *_VERSION_KEYS))
