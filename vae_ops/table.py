"""A table in: its schema, its rows in bounded memory, a fixed-seed sample, a digest, and what makes it unfit.

`open_source` reads footers only and refuses what cannot be learned. `parquet_files.py` finds and reads the files behind
a path, `python_rows.py` what Python holds; `holdout.py` holds rows back; what the columns mean is decided by
`schema.py`, what their values look like by `profiling.py`.
"""

import difflib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vae_ops.errors import ContentError, SchemaError
from vae_ops.parquet_files import open_files
from vae_ops.plain_arrow import filter_rows
from vae_ops.python_rows import open_object
from vae_ops.storage import locate
from vae_ops.synthetic_marks import SYNTHETIC_COLUMN

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


class _Rows(Protocol):
    """Where rows come from: files, a table in memory, or a dataset."""

    num_rows: int
    uri: str | None
    files: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema: ...

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]: ...

    def digest(self) -> str: ...

    def signs_of_synthetic(self) -> tuple[str, ...]: ...

    def real(self) -> "tuple[_Rows, int]": ...

    def files_seen(self) -> dict[str, str]: ...

    def unseen(self, digests: Collection[str]) -> "_Rows": ...


class SourceTable:
    """A table that was found fit to learn from, read in source order and bounded memory.

    It is the table that was opened, or none: whatever reads a file that has changed since raises `SourceError`.

    Attributes:
        schema: Columns without the excluded ones; hive partition columns come last. Extension types appear as their
            storage type with the Arrow extension keys in the field metadata, so that a written file restores them.
        num_rows: Rows of the source, without those that are left out.
        uri: Where the source lies; None in memory.
        files: URIs of the files that are read, in this order; none in memory.
        excluded: Columns left out on request.
        synthetic_rows: Rows left out because they are labelled synthetic.
    """

    def __init__(self, rows: _Rows, excluded: tuple[str, ...], *, synthetic_rows: int = 0) -> None:
        """Wraps rows that `open_source` has checked."""
        kept = [field for field in rows.schema if field.name not in excluded]
        self.schema: pa.Schema = pa.schema(kept, metadata=rows.schema.metadata)
        self.num_rows = rows.num_rows
        self.uri = rows.uri
        self.files = rows.files
        self.excluded = excluded
        self.synthetic_rows = synthetic_rows
        self._rows = rows
        self._fingerprint: str | None = None

    def fingerprint(self) -> str:
        """Digest of the content, 32 hex digits: the same wherever the source lies and whenever it was copied."""
        if self._fingerprint is None:
            self._fingerprint = self._rows.digest()
        return self._fingerprint

    def files_seen(self) -> dict[str, str]:
        """Content digest by relative name of every file of the source, those left out as seen before among them.

        A later night that gives them as `unseen` to `open_source` reads only what has come since. What is no file has
        one entry.

        Raises:
            SourceError: A file has changed since it was opened.
        """
        return self._rows.files_seen()

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Streams the rows in source order.

        Args:
            columns: Names to read, in this order; None reads all.

        Raises:
            SourceError: A file is damaged behind its footer, or has changed since it was opened; that it changed
                while it was read shows after its last batch.
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
            SourceError: A file is damaged behind its footer, or has changed since it was opened.
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
    source: SourceLike,
    *,
    exclude: Sequence[str] = (),
    synthetic: Literal["refuse", "exclude", "keep"] = "refuse",
    unseen: Mapping[str, str] | None = None,
    min_rows: int = 2,
) -> SourceTable:
    """Opens a table and refuses at once what cannot be learned; reads footers only, unless rows are to be left out.

    Args:
        source: A Parquet file, a directory (recursive, hive partitions too; names starting with `_` or `.` are
            ignored), a glob pattern, any fsspec URI of these, or a pyarrow or pandas object.
        exclude: Columns to leave out.
        synthetic: What happens to rows that vae-ops made, known by a column, or by the metadata of a file without that
            column: `refuse` the source, `exclude` and count them, or `keep` them and their label.
        unseen: Digests of files, as `files_seen` gives them, that are left out; all rows may be. To tell, every file
            of the source is read.
        min_rows: Fewer rows than this are refused.

    Raises:
        SourceError: Missing, not Parquet, truncated, or made of files that do not fit together.
        SchemaError: No columns, duplicate names, nested columns, an unknown excluded column, or labelled rows.
        ContentError: Too few rows.
    """
    excluded = (exclude,) if isinstance(exclude, str) else tuple(dict.fromkeys(exclude))
    rows, left_out = _real_rows(_open_rows(source, frozenset(excluded)), synthetic)
    if unseen is not None:
        rows = rows.unseen(frozenset(unseen.values()))
    where = repr(rows.uri) if rows.uri else "the table in memory"
    _check_names(rows.schema, [name for name in excluded if name != SYNTHETIC_COLUMN], where)
    table = SourceTable(rows, excluded, synthetic_rows=left_out)
    _check_columns(table.schema, where)
    if table.num_rows < min_rows:
        beside = f" that are not labelled synthetic, beside {left_out} that are" if left_out else ""
        raise ContentError(
            f"Expected at least {min_rows} rows, but {where} has {table.num_rows}{beside}; point at a fuller table."
        )
    return table


def _open_rows(source: Any, exclude: frozenset[str]) -> _Rows:
    return open_files(locate(source), exclude) if isinstance(source, str | PathLike) else open_object(source)


def _real_rows(rows: _Rows, synthetic: Literal["refuse", "exclude", "keep"]) -> tuple[_Rows, int]:
    if synthetic == "keep":
        return rows, 0
    if synthetic == "exclude":
        return rows.real()
    signs = rows.signs_of_synthetic()
    if signs:
        others = f", and {len(signs) - 1} more files are like it" if len(signs) > 1 else ""
        raise SchemaError(
            f"Expected rows from the real world, but {signs[0]}{others}; point at the original source, or leave such "
            "rows out with read.synthetic=exclude (--set)."
        )
    return rows, 0


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
    if num_rows and all(count == num_rows for count in null_counts):
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


def _chosen_rows(num_rows: int, count: int, seed: int) -> NDArray[np.int64]:
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


def _pick(batches: Iterable[pa.RecordBatch], chosen: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in batches:
        low, high = np.searchsorted(chosen, [start, start + batch.num_rows])
        if high > low:
            mask = np.zeros(batch.num_rows, dtype=np.bool_)
            mask[chosen[low:high] - start] = True
            yield filter_rows(batch, mask)
        start += batch.num_rows
