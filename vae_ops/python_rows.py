"""Rows of what Python holds: a pyarrow Table or Dataset, a data frame, or whatever Arrow can make a table of.

`parquet_files.py` does the same for files behind a path; `table.py` decides whether the rows can be learned from.
"""

import hashlib
import io
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from vae_ops.errors import SchemaError, SourceError
from vae_ops.parquet_files import changed, reading
from vae_ops.plain_arrow import filter_rows, simple_array, simple_schema, without_views
from vae_ops.synthetic_marks import SYNTHETIC_COLUMN, is_marked, real_mask, without_label

if TYPE_CHECKING:
    import pyarrow.dataset as ds

__all__ = ["DatasetRows", "MemoryRows", "open_object"]

_BATCH_ROWS = 65_536
# Objects have no name, and are one file to whoever keeps a list of the files that a model has seen.
_NAME = "."


class MemoryRows:
    """Rows of a pyarrow Table."""

    uri: str | None = None
    files: tuple[str, ...] = ()

    def __init__(self, table: pa.Table) -> None:
        """Shows a table as it is."""
        self.schema = simple_schema(table.schema)
        self.num_rows: int = table.num_rows
        self._table = table

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Streams the columns of `schema` in the order of the rows."""
        for batch in self._table.select(schema.names).to_batches(max_chunksize=_BATCH_ROWS):
            yield _conform(batch, schema)

    def digest(self) -> str:
        """Digest of the values, however they are batched."""
        return _stream_digest(self._table.to_batches(), self._table.schema)

    def signs_of_synthetic(self) -> tuple[str, ...]:
        """What says that there are synthetic rows."""
        return _sign_of_label(self.schema)

    def real(self) -> tuple["MemoryRows", int]:
        """The rows that are not labelled synthetic, and the number of those that are."""
        if SYNTHETIC_COLUMN not in self.schema.names:
            return self, 0
        table = self._table.drop_columns([SYNTHETIC_COLUMN])
        kept = MemoryRows(filter_rows(table, real_mask(self._table.column(SYNTHETIC_COLUMN))))
        return kept, self.num_rows - kept.num_rows

    def files_seen(self) -> dict[str, str]:
        """The table's digest."""
        return {_NAME: self.digest()}

    def unseen(self, digests: Collection[str]) -> "MemoryRows":
        """All rows or, if the table's digest is among those given, none."""
        return MemoryRows(self.schema.empty_table()) if self.digest() in digests else self


class DatasetRows:
    """Rows of a pyarrow Dataset, in the order of its fragments.

    Args:
        dataset: With or without a filter.
        real_only: Whether rows labelled synthetic are passed over.
    """

    uri: str | None = None

    def __init__(self, dataset: "ds.Dataset", *, real_only: bool = False) -> None:
        self.schema = without_label(simple_schema(dataset.schema)) if real_only else simple_schema(dataset.schema)
        self.files = tuple(getattr(dataset, "files", ()))
        self._dataset = dataset
        self._real_only = real_only and SYNTHETIC_COLUMN in dataset.schema.names
        self._stamps = self._file_stamps()
        with self._steady():
            self.num_rows = sum(self._real_counts()) if self._real_only else int(dataset.count_rows())

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Streams the columns of `schema` in the order of the rows."""
        names = [*schema.names, *([SYNTHETIC_COLUMN] if self._real_only else [])]
        with self._steady():
            for batch in self._dataset.to_batches(columns=names, batch_size=_BATCH_ROWS, batch_readahead=1):
                rows = _conform(batch, schema)
                yield filter_rows(rows, real_mask(batch.column(SYNTHETIC_COLUMN))) if self._real_only else rows

    def digest(self) -> str:
        """Digest of the values, however they are batched."""
        with self._steady():
            return _stream_digest(self._dataset.to_batches(batch_readahead=1), self._dataset.schema)

    def signs_of_synthetic(self) -> tuple[str, ...]:
        """What says that there are synthetic rows."""
        marked = [f"{path!r} says in its metadata that vae-ops wrote it" for path in self._marked_files()]
        return _sign_of_label(self.schema) or tuple(marked)

    def real(self) -> tuple["DatasetRows", int]:
        """The rows that are not labelled synthetic, and the number of those that are.

        Raises:
            SchemaError: Whole files are synthetic, but a filter hides which rows come from which file.
        """
        labelled, marked = SYNTHETIC_COLUMN in self.schema.names, frozenset(self._marked_files())
        if not labelled and not marked:
            return self, 0
        rows = DatasetRows(self._dataset, real_only=True) if labelled else DatasetRows(self._without(marked))
        return rows, self.num_rows - rows.num_rows

    def files_seen(self) -> dict[str, str]:
        """The digest of the dataset as a whole."""
        return {_NAME: self.digest()}

    def unseen(self, digests: Collection[str]) -> "DatasetRows | MemoryRows":
        """All rows or, if the dataset's digest is among those given, none."""
        return MemoryRows(self.schema.empty_table()) if self.digest() in digests else self

    def _real_counts(self) -> Iterator[int]:
        for batch in self._dataset.to_batches(columns=[SYNTHETIC_COLUMN], batch_readahead=1):
            yield int(real_mask(batch.column(SYNTHETIC_COLUMN)).sum())

    def _marked_files(self) -> list[str]:
        if not self.files or getattr(self._dataset.format, "default_extname", "") != "parquet":
            return []
        with self._steady():
            metadata = [(path, pq.read_metadata(path, filesystem=self._dataset.filesystem)) for path in self.files]
        return [path for path, footer in metadata if is_marked(footer.metadata)]

    def _without(self, marked: frozenset[str]) -> "ds.Dataset":
        dataset = self._dataset
        try:
            fragments = [fragment for fragment in dataset.get_fragments() if fragment.path not in marked]
        except ValueError as error:
            raise SchemaError(
                f"Expected a dataset without a filter, as {min(marked)!r} holds synthetic rows to be left out; filter "
                "a dataset of the other files."
            ) from error
        return type(dataset)(fragments, dataset.schema, dataset.format, dataset.filesystem)

    def _file_stamps(self) -> Sequence[tuple[object, ...]]:
        if not self.files:
            return ()
        with reading("a pyarrow dataset"):
            found = self._dataset.filesystem.get_file_info(list(self.files))
        return [(info.path, info.size, info.mtime_ns) for info in found]

    @contextmanager
    def _steady(self) -> Iterator[None]:
        """Makes sure that the files stay as they were found for as long as they are read."""
        try:
            with reading("a pyarrow dataset"):
                yield
        except SourceError as error:
            self._check_stamps(error)
            raise
        self._check_stamps()

    def _check_stamps(self, cause: SourceError | None = None) -> None:
        for before, now in zip(self._stamps, self._file_stamps(), strict=True):
            if before != now:
                raise changed(str(before[0])) from cause


def open_object(source: Any) -> MemoryRows | DatasetRows:
    """Shows an object as rows.

    Raises:
        SourceError: It is no table.
        SchemaError: A data frame repeats a column name.
    """
    # pyarrow.dataset drags in pandas; whoever holds a Dataset has paid for that already.
    module = sys.modules.get("pyarrow.dataset")
    if module is not None and isinstance(source, module.Dataset):
        return DatasetRows(source)
    return MemoryRows(_as_table(source))


def _as_table(source: Any) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    try:
        if type(source).__module__.partition(".")[0] == "pandas":
            return pa.Table.from_pandas(source, preserve_index=False)
        return pa.table(source)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(map(str, error.args)).rstrip(".")
        if "uplicate" in reason:
            raise SchemaError(f"Expected unique column names, but the data frame has {reason}; rename them.") from error
        raise SourceError(
            f"Expected a path, a pyarrow Table or Dataset, or a DataFrame of plain columns, but Arrow cannot take "
            f"this {type(source).__name__}: {reason}; convert what it names."
        ) from error


def _sign_of_label(schema: pa.Schema) -> tuple[str, ...]:
    return (f"the table has the column {SYNTHETIC_COLUMN!r}",) if SYNTHETIC_COLUMN in schema.names else ()


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [simple_array(batch.column(field.name), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _HashingSink(io.RawIOBase):
    """A file that keeps only the digest of what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.hash = hashlib.blake2b(digest_size=16)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return len(data)


def _stream_digest(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> str:
    sink, plain = _HashingSink(), without_views(schema)
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), plain) as writer:
        # How the bytes of a view are spread over buffers follows its history, not its values.
        for batch in _even_batches((batch.cast(plain) for batch in batches), plain):
            writer.write_batch(batch)
    return sink.hash.hexdigest()


def _even_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    pending: list[pa.RecordBatch] = []
    waiting = 0
    for batch in batches:
        while batch.num_rows:
            part = batch.slice(0, _BATCH_ROWS - waiting)
            batch = batch.slice(part.num_rows)
            pending.append(part)
            waiting += part.num_rows
            if waiting == _BATCH_ROWS:
                yield from pa.Table.from_batches(pending, schema).combine_chunks().to_batches()
                pending, waiting = [], 0
    yield from pa.Table.from_batches(pending, schema).combine_chunks().to_batches()
