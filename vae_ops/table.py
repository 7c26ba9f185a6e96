"""A table in: its schema, its rows in bounded memory, a fixed-seed sample, a digest, and what makes it unfit.

`open_source` reads footers only and refuses what cannot be learned. `parquet_files.py` finds and reads the files behind
a path, `holdout.py` holds rows back; what the columns mean is decided by `schema.py`, what their values look like by
`profiling.py`.
"""

import difflib
import hashlib
import io
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vae_ops.errors import ContentError, SchemaError, SourceError
from vae_ops.parquet_files import open_files, reading, simple_array, simple_schema
from vae_ops.storage import locate

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds

__all__ = [
    "SYNTHETIC_COLUMN",
    "SourceLike",
    "SourceTable",
    "check_not_all_null",
    "check_values",
    "filter_rows",
    "open_source",
]

SourceLike: TypeAlias = "str | PathLike[str] | pa.Table | ds.Dataset | pd.DataFrame"

SYNTHETIC_COLUMN = "_is_synthetic"

_BATCH_ROWS = 65_536


class _Rows(Protocol):
    """Where rows come from: files, a table in memory, or a dataset."""

    schema: pa.Schema
    num_rows: int
    uri: str | None
    files: tuple[str, ...]

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]: ...

    def digest(self) -> str: ...


class SourceTable:
    """A table that was found fit to learn from, read in source order and bounded memory.

    Attributes:
        schema: Columns without the excluded ones; hive partition columns come last. Extension types appear as their
            storage type with the Arrow extension keys in the field metadata, so that a written file restores them.
        num_rows: Rows of the whole source.
        uri: Where the source lies; None in memory.
        files: URIs of the files, in reading order; none in memory.
        excluded: Columns left out on request.
        synthetic_rows: Rows left out because they are labelled synthetic.
    """

    def __init__(self, rows: _Rows, excluded: tuple[str, ...]) -> None:
        """Wraps rows that `open_source` has checked."""
        kept = [field for field in rows.schema if field.name not in excluded]
        self.schema: pa.Schema = pa.schema(kept, metadata=rows.schema.metadata)
        self.num_rows = rows.num_rows
        self.uri = rows.uri
        self.files = rows.files
        self.excluded = excluded
        self.synthetic_rows = 0
        self._rows = rows
        self._fingerprint: str | None = None

    def fingerprint(self) -> str:
        """Digest of the content, 32 hex digits: the same wherever the source lies and whenever it was copied."""
        if self._fingerprint is None:
            self._fingerprint = self._rows.digest()
        return self._fingerprint

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Streams the rows in source order.

        Args:
            columns: Names to read, in this order; None reads all.

        Raises:
            SourceError: A file is damaged behind its footer.
        """
        schema = self.schema
        if columns is not None:
            schema = pa.schema([self.schema.field(name) for name in columns], metadata=self.schema.metadata)
        return self._rows.batches(schema)

    def sample(self, max_rows: int, seed: int, *, to_learn: bool = True) -> pa.Table:
        """Reads all rows, or a uniform sample without replacement when there are more than `max_rows`.

        The sample keeps source order and depends on the row count and the seed only, not on the layout of the files.

        Args:
            max_rows: Most rows to read.
            seed: Decides which.
            to_learn: Whether rows that cannot be learned from are refused.

        Raises:
            ContentError: Every value is null, or a column holds an infinity or text that is not UTF-8.
            SourceError: A file is damaged behind its footer.
        """
        batches: Iterable[pa.RecordBatch] = self.batches()
        if self.num_rows > max_rows:
            batches = _pick(batches, _chosen_rows(self.num_rows, max_rows, seed))
        # Each row group may bring its own dictionary; those who encode want one per column.
        table = pa.Table.from_batches(batches, schema=self.schema).unify_dictionaries()
        check_values(table)
        if to_learn:
            check_not_all_null([column.null_count for column in table.columns], table.num_rows)
        return table


def open_source(
    source: SourceLike, *, exclude: Sequence[str] = (), allow_synthetic: bool = False, min_rows: int = 2
) -> SourceTable:
    """Opens a table and refuses at once what cannot be learned; reads footers only.

    Args:
        source: A Parquet file, a directory (recursive, hive partitions too; names starting with `_` or `.` are
            ignored), a glob pattern, any fsspec URI of these, or a pyarrow or pandas object.
        exclude: Columns to leave out.
        allow_synthetic: Whether the table may carry the column that labels synthetic rows.
        min_rows: Fewer rows than this are refused.

    Raises:
        SourceError: Missing, not Parquet, truncated, or made of files that do not fit together.
        SchemaError: No columns, duplicate names, nested columns, an unknown excluded column, or labelled rows.
        ContentError: Too few rows.
    """
    if isinstance(exclude, str):
        exclude = (exclude,)
    rows = _open_rows(source, frozenset(exclude))
    where = repr(rows.uri) if rows.uri else "the table in memory"
    _check_names(rows.schema, exclude, where)
    if SYNTHETIC_COLUMN in rows.schema.names and not allow_synthetic:
        raise SchemaError(
            f"Expected rows from the real world, but {where} has the column {SYNTHETIC_COLUMN!r}, so vae-ops wrote it; "
            "point at the original source."
        )
    table = SourceTable(rows, tuple(dict.fromkeys(exclude)))
    _check_columns(table.schema, where)
    if table.num_rows < min_rows:
        raise ContentError(
            f"Expected at least {min_rows} rows, but {where} has {table.num_rows}; point at a fuller table."
        )
    return table


def filter_rows(rows: Any, mask: npt.NDArray[np.bool_]) -> Any:
    """Keeps the rows of a table or record batch where the mask is true."""
    # Arrow has no filter kernel for view types: https://github.com/apache/arrow/issues/43010
    plain = _plain_schema(rows.schema)
    if plain.equals(rows.schema):
        return rows.filter(pa.array(mask))
    return rows.cast(plain).filter(pa.array(mask)).cast(rows.schema)


def check_values(rows: Any) -> None:
    """Refuses values in a table or record batch that have no place in a distribution.

    Raises:
        ContentError: A floating-point column holds an infinity, or a string column bytes that are not UTF-8.
    """
    for field in rows.schema:
        column = rows.column(field.name)
        if pa.types.is_floating(field.type) and pc.any(pc.is_inf(column)).as_py():
            raise _unfit(field.name, "infinities, but only finite numbers, NaN and null can be learned", "them by null")
        try:
            # Parquet readers trust the writer; text of another encoding would only fail when it is printed.
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise _unfit(field.name, f"broken values ({error})", "them, or store them as binary") from error


def _unfit(name: str, found: str, remedy: str) -> ContentError:
    return ContentError(
        f"Column {name!r} holds {found}; replace {remedy}, or leave the column out with exclude={name!r} (--exclude)."
    )


def check_not_all_null(null_counts: Sequence[int], num_rows: int) -> None:
    """Refuses a table in which no value at all is known.

    Raises:
        ContentError: Every column is null in every row.
    """
    if all(count == num_rows for count in null_counts):
        raise ContentError(
            f"Every value in all {num_rows} rows of {len(null_counts)} columns is null, so there is nothing to learn; "
            "point at a table with at least one known value."
        )


def _check_names(schema: pa.Schema, exclude: Sequence[str], where: str) -> None:
    for name in exclude:
        if name not in schema.names:
            near = difflib.get_close_matches(name, schema.names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {_listed(schema.names)}."
            raise SchemaError(f"exclude names the column {name!r}, which {where} does not have; {hint}")
    for name, times in Counter(schema.names).items():
        if times > 1 and name not in exclude:
            raise SchemaError(
                f"Expected unique column names, but {name!r} appears {times} times in {where}; rename the columns."
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (", …" if len(names) > 8 else "")


def _check_columns(schema: pa.Schema, where: str) -> None:
    if not schema.names:
        raise SchemaError(
            f"Expected at least one column to learn, but {where} has none; check the source and exclude=."
        )
    for field in schema:
        if not _is_scalar(field.type):
            kind = "the nested type" if pa.types.is_nested(field.type) else "the type"
            raise SchemaError(
                f"Column {field.name!r} has {kind} {field.type}, but only scalar columns can be learned; "
                f"leave it out with exclude={field.name!r} (--exclude) or flatten it."
            )


def _is_scalar(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_scalar(type_.value_type)
    return not (pa.types.is_nested(type_) or pa.types.is_interval(type_))


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_type(_without_view(field.type)) for field in schema], metadata=schema.metadata)


def _without_view(type_: pa.DataType) -> pa.DataType:
    if type_ == pa.string_view():
        return pa.large_string()
    return pa.large_binary() if type_ == pa.binary_view() else type_


def _chosen_rows(num_rows: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    generator = np.random.default_rng(seed)
    if num_rows <= 4 * count:
        return np.sort(generator.permutation(num_rows)[:count])
    # Drawing until enough are distinct takes memory by the sample, where a permutation takes it by the table.
    chosen = np.empty(0, dtype=np.int64)
    while len(chosen) < count:
        drawn = np.concatenate([chosen, generator.integers(0, num_rows, size=count)])
        first = np.sort(np.unique(drawn, return_index=True)[1])
        chosen = drawn[first][:count]
    return np.sort(chosen)


def _pick(batches: Iterable[pa.RecordBatch], chosen: npt.NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in batches:
        low, high = np.searchsorted(chosen, [start, start + batch.num_rows])
        if high > low:
            mask = np.zeros(batch.num_rows, dtype=np.bool_)
            mask[chosen[low:high] - start] = True
            yield filter_rows(batch, mask)
        start += batch.num_rows


def _open_rows(source: Any, exclude: frozenset[str]) -> _Rows:
    if isinstance(source, str | PathLike):
        return open_files(locate(source), exclude)
    if _is_dataset(source):
        return _DatasetRows(source)
    return _MemoryRows(_as_table(source))


def _is_dataset(source: Any) -> bool:
    # pyarrow.dataset drags in pandas; whoever holds a Dataset has paid for that already.
    module = sys.modules.get("pyarrow.dataset")
    return module is not None and isinstance(source, module.Dataset)


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


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [simple_array(batch.column(field.name), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


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
    sink, plain = _HashingSink(), _plain_schema(schema)
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), plain) as writer:
        # How the bytes of a view are spread over buffers follows its history, not its values.
        for batch in _even_batches((batch.cast(plain) for batch in batches), plain):
            writer.write_batch(batch)
    return sink.hash.hexdigest()


class _MemoryRows:
    """Rows of a pyarrow Table."""

    uri: str | None = None
    files: tuple[str, ...] = ()

    def __init__(self, table: pa.Table) -> None:
        self.schema = simple_schema(table.schema)
        self.num_rows: int = table.num_rows
        self._table = table

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for batch in self._table.select(schema.names).to_batches(max_chunksize=_BATCH_ROWS):
            yield _conform(batch, schema)

    def digest(self) -> str:
        return _stream_digest(self._table.to_batches(), self._table.schema)


class _DatasetRows:
    """Rows of a pyarrow Dataset, in the order of its fragments."""

    uri: str | None = None

    def __init__(self, dataset: "ds.Dataset") -> None:
        self.schema = simple_schema(dataset.schema)
        self.files = tuple(getattr(dataset, "files", ()))
        self._dataset = dataset
        with reading("a pyarrow dataset"):
            self.num_rows: int = dataset.count_rows()

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        with reading("a pyarrow dataset"):
            for batch in self._dataset.to_batches(columns=schema.names, batch_size=_BATCH_ROWS, batch_readahead=1):
                yield _conform(batch, schema)

    def digest(self) -> str:
        with reading("a pyarrow dataset"):
            return _stream_digest(self._dataset.to_batches(batch_readahead=1), self._dataset.schema)
