"""What the values of each column look like: counts, bounds, mergeable sketches and a few rows, in one streaming pass.

`table.py` streams the batches, `schema.py` names semantic types from rows in memory, `drift.py` compares two profiles.
Profiles of partitions merge into the profile of the whole, and equal rows in equal batches give equal bytes.
"""

import base64
import dataclasses
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Self, TypeAlias

import datasketches
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vae_ops.errors import BundleError, SourceError
from vae_ops.schema import SemanticType, natural_type
from vae_ops.table import SourceTable, check_not_all_null, check_values

__all__ = ["ColumnProfile", "Profile", "merge_profiles", "profile_source"]

Bound: TypeAlias = int | float | str | None

_FORMAT = 2
# Relative standard error of the distinct count is about 1.04 / sqrt(2 ** 11) = 2.3 %.
_LG_DISTINCT = 11
# Keeps the error in rank below half a percent in the middle and far smaller in the tails.
_QUANTILE_COMPRESSION = 300
# Counts are too low by at most one row in so many, so any more frequent item is found.
_FREQUENT_ITEMS = 256
# Of one batch no more candidates are looked at, as each costs a Python call.
_FREQUENT_PER_BATCH = 4096
_LONGEST_ITEM = 120
_IDENTIFIER_ROWS = 50
_DENSE_SHARE = 0.95
_UNIFORM_BAND = 1.63
# So many cells of the sampled rows are kept, as each costs eight bytes, within these numbers of rows.
_SAMPLED_CELLS = 200_000
_FEWEST_SAMPLED, _MOST_SAMPLED = 512, 4096
# Distinct texts stay distinct in a double, whose mantissa has so many bits.
_MANTISSA_BITS = 53


@dataclass(frozen=True)
class ColumnProfile:
    """One column; the two sketches are base64 of the Apache DataSketches formats.

    Attributes:
        name: Column name.
        type: Arrow type, as text.
        nullable: Whether the schema allows nulls.
        semantic_type: A guess from the sketches; `schema.py` decides from the rows.
        rows: All rows.
        nulls: Rows without a value.
        nans: Rows whose value is NaN.
        minimum: Smallest value, in the column's own unit as an integer for dates and times, as text for decimals;
            None for text and binary, and where nothing is known.
        maximum: Largest value, likewise.
        distinct: Estimated number of different values.
        repeats: Rows whose value stood earlier in the same batch; 0 means that no repetition was seen.
        rises: Whether these are integers without nulls, each greater than the one of the row before.
        frequent: The most frequent values as text, with their counts, most frequent first.
        frequent_error: Counts of `frequent` are at most this much too low; 0 means exact and complete.
        distinct_sketch: HyperLogLog.
        quantile_sketch: t-digest of the values as doubles; empty for text and binary.
    """

    name: str
    type: str
    nullable: bool
    semantic_type: str
    rows: int
    nulls: int
    nans: int
    minimum: Bound
    maximum: Bound
    distinct: int
    repeats: int
    rises: bool
    frequent: tuple[tuple[str, int], ...]
    frequent_error: int
    distinct_sketch: str
    quantile_sketch: str

    @property
    def known(self) -> int:
        """Rows with a value: neither null nor NaN."""
        return self.rows - self.nulls - self.nans

    def quantile(self, rank: float) -> float | None:
        """Value below which about `rank` (0 to 1) of the known values lie; None for text or without a value."""
        sketch = self._quantiles()
        return None if sketch is None else float(sketch.get_quantile(rank))

    def quantiles(self, ranks: Sequence[float]) -> npt.NDArray[np.float64]:
        """The same of several ranks; empty for text or without a value."""
        sketch = self._quantiles()
        return np.array([] if sketch is None else [sketch.get_quantile(rank) for rank in ranks], dtype=np.float64)

    def shares_below(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Shares of the known values that lie below points.

        Errors were at most 0.4 % on continuous and on rounded columns. Near a value that many rows share they may be
        4 %, as a t-digest spreads ties over their neighbourhood.

        Args:
            points: At least one, in any order.

        Returns:
            One share per point, 0 to 1; nothing for text or without a value.
        """
        sketch = self._quantiles()
        if sketch is None:
            return np.empty(0)
        distinct, places = np.unique(points, return_inverse=True)
        return np.array(sketch.get_cdf(distinct.tolist())[:-1])[places]

    def _quantiles(self) -> Any:
        if not self.quantile_sketch:
            return None
        return datasketches.tdigest_double.deserialize(base64.b64decode(self.quantile_sketch))


@dataclass(frozen=True)
class Profile:
    """A whole table.

    Attributes:
        rows: Rows of the source.
        fingerprint: Digest of the source's content.
        excluded: Columns that were left out.
        schema_ipc: The exact Arrow schema as a base64 IPC message.
        columns: One entry per column, in schema order.
        synthetic_rows: Rows that were left out because they are labelled synthetic.
        sample: A uniform sample of the rows, packed; `sampled_rows` unpacks it.
    """

    rows: int
    fingerprint: str
    excluded: tuple[str, ...]
    schema_ipc: str
    columns: tuple[ColumnProfile, ...]
    synthetic_rows: int
    sample: str

    @property
    def schema(self) -> pa.Schema:
        """The exact Arrow schema."""
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.schema_ipc)))

    def sampled_rows(self) -> npt.NDArray[np.float64]:
        """Rows drawn uniformly without replacement, for what no single column shows.

        Returns:
            `(rows, columns)` in schema order: all rows of a small table, else 512 to 4096 of them. Texts and bytes are
            hashed to numbers; NaN where no value is known.

        Raises:
            BundleError: The sample is damaged.
        """
        return _RowSample.unpack(self.sample, len(self.columns)).values

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` gives back an equal profile."""
        return {"format": _FORMAT, **json.loads(json.dumps(dataclasses.asdict(self)))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the profile from plain JSON values.

        Raises:
            BundleError: The values are not a profile of this format.
        """
        found = values.get("format")
        if found != _FORMAT:
            raise BundleError(f"Expected a profile of format {_FORMAT}, got {found!r}; profile the source again.")
        try:
            columns = tuple(_column_from(column) for column in values["columns"])
            fields = {key: value for key, value in values.items() if key != "format"}
            return cls(**{**fields, "columns": columns, "excluded": tuple(values["excluded"])})
        except (KeyError, TypeError) as error:
            raise BundleError(f"Expected a profile, but {error} is missing or unknown; profile it again.") from error


def profile_source(source: SourceTable) -> Profile:
    """Streams all rows once and describes every column.

    Raises:
        ContentError: Every value is null, a column holds an infinity, or text that is not UTF-8.
        SourceError: A file is damaged behind its footer.
    """
    sketches = {field.name: _Sketches(field) for field in source.schema}
    rows, sample = 0, _RowSample.empty(len(sketches))
    for batch in source.batches():
        check_values(batch)
        sample = sample.with_batch(batch, rows, source.fingerprint())
        rows += batch.num_rows
        for name, sketch in sketches.items():
            sketch.add(batch.column(name))
    check_not_all_null([sketch.nulls for sketch in sketches.values()], rows)
    return Profile(
        rows=rows,
        fingerprint=source.fingerprint(),
        excluded=source.excluded,
        schema_ipc=_text_of(source.schema.serialize().to_pybytes()),
        columns=tuple(sketch.freeze() for sketch in sketches.values()),
        synthetic_rows=source.synthetic_rows,
        sample=sample.pack(),
    )


def merge_profiles(profiles: Sequence[Profile]) -> Profile:
    """The profile of all partitions together.

    Args:
        profiles: At least one, in the order of the partitions.

    Raises:
        SourceError: The schemas differ, or there is no profile.
    """
    if not profiles:
        raise SourceError("Expected at least one profile to merge, got none; profile a partition first.")
    first = profiles[0]
    if len(profiles) == 1:
        return first
    for other in profiles[1:]:
        if not other.schema.equals(first.schema):
            raise SourceError(
                f"Expected profiles of one schema, but profile {other.fingerprint} differs from {first.fingerprint}; "
                "write the partitions alike."
            )
    digest = hashlib.blake2b("".join(profile.fingerprint for profile in profiles).encode(), digest_size=16)
    return Profile(
        rows=sum(profile.rows for profile in profiles),
        fingerprint=digest.hexdigest(),
        excluded=first.excluded,
        schema_ipc=first.schema_ipc,
        columns=tuple(
            reduce(_Sketches.merged, (_Sketches.thaw(field, profile.columns[index]) for profile in profiles)).freeze()
            for index, field in enumerate(first.schema)
        ),
        synthetic_rows=sum(profile.synthetic_rows for profile in profiles),
        sample=reduce(_RowSample.merged, (_RowSample.unpack(p.sample, len(p.columns)) for p in profiles)).pack(),
    )


class _Sketches:
    """The growing counterpart of a `ColumnProfile`."""

    def __init__(self, field: pa.Field) -> None:
        self.field = field
        self.rows = self.nulls = self.nans = self.repeats = 0
        self.rises = pa.types.is_integer(field.type)
        self.minimum: Any = None
        self.maximum: Any = None
        self.distinct = datasketches.hll_sketch(_LG_DISTINCT, datasketches.tgt_hll_type.HLL_8)
        self.quantiles = datasketches.tdigest_double(_QUANTILE_COMPRESSION)
        self.frequent = _FrequentItems()

    @classmethod
    def thaw(cls, field: pa.Field, profile: ColumnProfile) -> Self:
        sketches = cls(field)
        sketches.rows, sketches.nulls, sketches.nans = profile.rows, profile.nulls, profile.nans
        sketches.minimum, sketches.maximum = (_thaw_bound(v, field.type) for v in (profile.minimum, profile.maximum))
        sketches.distinct = datasketches.hll_sketch.deserialize(base64.b64decode(profile.distinct_sketch))
        sketches.repeats, sketches.frequent = profile.repeats, _FrequentItems(profile.frequent, profile.frequent_error)
        sketches.rises = profile.rises
        if profile.quantile_sketch:
            quantiles = base64.b64decode(profile.quantile_sketch)
            sketches.quantiles = datasketches.tdigest_double.deserialize(quantiles)
        return sketches

    def add(self, array: pa.Array) -> None:
        self.rows += len(array)
        self.nulls += array.null_count
        self.rises = self.rises and self._goes_on_rising(array)
        known = _plain(array).drop_null()
        if pa.types.is_floating(known.type):
            is_nan = pc.is_nan(known)
            self.nans += pc.sum(is_nan).as_py() or 0
            known = known.filter(pc.invert(is_nan))
        if len(known):
            self._add_known(known)

    def _add_known(self, known: pa.Array) -> None:
        counted = known.value_counts()
        values, counts = counted.field("values").to_pylist(), counted.field("counts").to_numpy()
        # The sketch of distinct values takes signed 64-bit integers, doubles and text; the rest goes in as text.
        hashable = values if pa.types.is_floating(known.type) else list(map(_hashable, values))
        for value in hashable:
            self.distinct.update(value)
        self.repeats += len(known) - len(values)
        kept, missed = _most_frequent(counts)
        self.frequent.add([(_item(values[index]), int(counts[index])) for index in kept], missed)
        if not _is_text(known.type):
            self._widen(*pc.min_max(known).as_py().values())
            # A copy, because the binding refuses the read-only view that Arrow hands out.
            self.quantiles.update(np.array(known.cast(pa.float64(), safe=False)))

    def _goes_on_rising(self, array: pa.Array) -> bool:
        if array.null_count or not len(array):
            return not array.null_count
        values = array.to_numpy(zero_copy_only=False)
        # What rises ends with its maximum.
        starts_higher = self.maximum is None or int(values[0]) > self.maximum
        return bool(starts_higher and np.all(values[1:] > values[:-1]))

    def _widen(self, low: Any, high: Any) -> None:
        self.minimum = low if self.minimum is None else min(self.minimum, low)
        self.maximum = high if self.maximum is None else max(self.maximum, high)

    def merged(self, other: "_Sketches") -> "_Sketches":
        self.rows += other.rows
        self.nulls += other.nulls
        self.nans += other.nans
        self.repeats += other.repeats
        follows = self.maximum is None or other.minimum is None or other.minimum > self.maximum
        self.rises = self.rises and other.rises and follows
        if other.minimum is not None:
            self._widen(other.minimum, other.maximum)
        union = datasketches.hll_union(_LG_DISTINCT)
        union.update(self.distinct)
        union.update(other.distinct)
        self.distinct = union.get_result(datasketches.tgt_hll_type.HLL_8)
        self.quantiles.merge(other.quantiles)
        self.frequent.add(other.frequent.ranked(), other.frequent.error)
        return self

    def freeze(self) -> ColumnProfile:
        return ColumnProfile(
            name=self.field.name,
            type=str(self.field.type),
            nullable=self.field.nullable,
            semantic_type=self._guess(),
            rows=self.rows,
            nulls=self.nulls,
            nans=self.nans,
            minimum=_freeze_bound(self.minimum),
            maximum=_freeze_bound(self.maximum),
            distinct=round(self.distinct.get_estimate()),
            repeats=self.repeats,
            rises=self.rises,
            frequent=tuple(self.frequent.ranked()),
            frequent_error=self.frequent.error,
            distinct_sketch=_text_of(self.distinct.serialize_compact()),
            quantile_sketch="" if self.quantiles.is_empty() else _text_of(self.quantiles.serialize()),
        )

    def _guess(self) -> SemanticType:
        known = self.rows - self.nulls
        natural = natural_type(self.field.type)
        if not known:
            return SemanticType.NULL
        counts = [count for _, count in self.frequent.ranked()]
        if not self.nulls and len(counts) <= 1 and known in (self.nans, *counts):
            return SemanticType.CONSTANT
        # The sketch's bound of three deviations, so that a key is not taken for something else every other month.
        all_differ = self.rises or (not self.repeats and self.distinct.get_upper_bound(3) >= known)
        if known >= _IDENTIFIER_ROWS and all_differ and (natural is SemanticType.CATEGORICAL or self._numbers_rows()):
            return SemanticType.IDENTIFIER
        return natural

    def _numbers_rows(self) -> bool:
        """Whether all-different integers are numbers of rows, as `schema.py` sees it."""
        if not pa.types.is_integer(self.field.type) or self.nulls:
            return False
        width = self.maximum - self.minimum + 1
        return bool(self.rows >= _DENSE_SHARE * width or (self.rises and self._is_even()))

    def _is_even(self) -> bool:
        ranks = np.linspace(0.0, 1.0, 101)
        path = np.array([self.quantiles.get_quantile(rank) for rank in ranks])
        straight = self.minimum + ranks * (self.maximum - self.minimum)
        # The band of `schema.py`, and the sketch's own error.
        band = _UNIFORM_BAND / np.sqrt(self.rows) + 0.01
        return bool(np.max(np.abs(path - straight)) < band * (self.maximum - self.minimum))


class _FrequentItems:
    """The Misra-Gries summary in the mergeable form of Agarwal et al., "Mergeable summaries" (PODS 2012)."""

    def __init__(self, counts: Iterable[tuple[str, int]] = (), error: int = 0) -> None:
        self.counts = dict(counts)
        self.error = error

    def add(self, found: Iterable[tuple[str, int]], missed: int) -> None:
        """Adds counts that are at most `missed` too low."""
        self.error += missed
        for item, count in found:
            self.counts[item] = self.counts.get(item, 0) + count
        if len(self.counts) > _FREQUENT_ITEMS:
            cut = sorted(self.counts.values(), reverse=True)[_FREQUENT_ITEMS]
            self.error += cut
            self.counts = {item: count - cut for item, count in self.counts.items() if count > cut}

    def ranked(self) -> list[tuple[str, int]]:
        return sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True)
class _RowSample:
    """The rows of smallest pseudo-random priority: a uniform sample, and so is that of any merged samples.

    Attributes:
        priorities: uint64 `(rows,)`, rising.
        values: float64 `(rows, columns)`.
    """

    priorities: npt.NDArray[np.uint64]
    values: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, columns: int) -> Self:
        return cls(np.empty(0, dtype=np.uint64), np.empty((0, columns)))

    @property
    def most_rows(self) -> int:
        return int(np.clip(_SAMPLED_CELLS // self.values.shape[1], _FEWEST_SAMPLED, _MOST_SAMPLED))

    def with_batch(self, batch: pa.RecordBatch, first_row: int, fingerprint: str) -> "_RowSample":
        """The sample after one more batch, whose first row has the number `first_row` in the source."""
        priorities = _priorities(fingerprint, first_row, batch.num_rows)
        chosen = np.argsort(priorities, kind="stable")[: self.most_rows]
        if len(self.priorities) == self.most_rows:
            chosen = chosen[priorities[chosen] < self.priorities[-1]]
        rows = pa.array(chosen)
        values = [_as_doubles(column.take(rows)) for column in map(_plain, batch.columns)]
        return self.merged(_RowSample(priorities[chosen], np.column_stack(values)))

    def merged(self, other: "_RowSample") -> "_RowSample":
        priorities = np.concatenate([self.priorities, other.priorities])
        kept = np.argsort(priorities, kind="stable")[: self.most_rows]
        return _RowSample(priorities[kept], np.concatenate([self.values, other.values])[kept])

    def pack(self) -> str:
        # Column by column, because values of one column look alike and so compress.
        data = self.priorities.astype("<u8").tobytes() + self.values.T.astype("<f8").tobytes()
        return _text_of(zlib.compress(data))

    @classmethod
    def unpack(cls, text: str, columns: int) -> Self:
        width, unpacker = 8 * (1 + columns), zlib.decompressobj()
        try:
            # Bounded, as a damaged text may promise gigabytes.
            data = unpacker.decompress(base64.b64decode(text), _MOST_SAMPLED * width + 1)
        except (ValueError, zlib.error) as error:
            raise BundleError(
                f"Expected sampled rows in the profile, but {error}; profile the source again."
            ) from error
        rows, rest = divmod(len(data), width)
        if rest or rows > _MOST_SAMPLED or not unpacker.eof:
            raise BundleError(
                f"Expected sampled rows of {columns} columns in the profile, got {len(data)} bytes; profile the source "
                "again."
            )
        values = np.frombuffer(data, dtype="<f8", offset=8 * rows).reshape(columns, rows).T
        return cls(np.frombuffer(data, dtype="<u8", count=rows).astype(np.uint64), values.astype(np.float64))


def _priorities(fingerprint: str, first_row: int, count: int) -> npt.NDArray[np.uint64]:
    """Pseudo-random numbers of rows: splitmix64 (Steele, Lea and Flood, OOPSLA 2014), seeded by the fingerprint."""
    seed = int.from_bytes(hashlib.blake2b(fingerprint.encode(), digest_size=8).digest(), "big")
    numbers = np.arange(first_row, first_row + count, dtype=np.uint64)
    mixed = np.uint64(seed) + (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _as_doubles(array: pa.Array) -> npt.NDArray[np.float64]:
    """The values as numbers, those of texts and bytes as hashes; NaN where there is none."""
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan)
    if not _is_text(array.type):
        return np.asarray(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    return np.array([np.nan if value is None else _text_number(value) for value in array.to_pylist()], dtype=np.float64)


def _text_number(value: str | bytes) -> float:
    data = value if isinstance(value, bytes) else value.encode()
    return float(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> (64 - _MANTISSA_BITS))


def _column_from(values: Mapping[str, Any]) -> ColumnProfile:
    return ColumnProfile(**{**values, "frequent": tuple((item, count) for item, count in values["frequent"])})


def _text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _plain(array: pa.Array) -> pa.Array:
    """The same values in a type that every Arrow kernel used here takes."""
    type_ = array.type
    if pa.types.is_dictionary(type_):
        return _plain(array.dictionary_decode())
    return array.cast(_plain_type(type_)) if _plain_type(type_) != type_ else array


def _plain_type(type_: pa.DataType) -> pa.DataType:
    # Days and clock times as integers: Python's datetime ends in 9999 and at microseconds, Arrow does not.
    if pa.types.is_date(type_) or pa.types.is_time(type_):
        return pa.int32() if type_.bit_width == 32 else pa.int64()
    if pa.types.is_timestamp(type_) or pa.types.is_duration(type_):
        return pa.int64()
    if pa.types.is_boolean(type_):
        return pa.int8()
    if pa.types.is_float16(type_):
        return pa.float32()
    if pa.types.is_decimal(type_) and type_.bit_width < 128:
        return pa.decimal128(type_.precision, type_.scale)
    if type_ == pa.string_view():
        return pa.large_string()
    is_binary = pa.types.is_fixed_size_binary(type_) or pa.types.is_binary(type_) or type_ == pa.binary_view()
    return pa.large_binary() if is_binary else type_


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_large_binary(type_))


def _most_frequent(counts: npt.NDArray[np.int64]) -> tuple[Iterable[int], int]:
    """Indices worth counting, and the largest count left out."""
    if len(counts) <= _FREQUENT_PER_BATCH:
        return range(len(counts)), 0
    order = np.argsort(-counts, kind="stable")
    kept = order[:_FREQUENT_PER_BATCH]
    kept = kept[counts[kept] > 1]
    return kept.tolist(), int(counts[order[len(kept)]])


def _hashable(value: Any) -> int | str:
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return value.hex() if isinstance(value, bytes) else str(value)


def _item(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    if len(text) <= _LONGEST_ITEM:
        return text
    # Long texts would fill the sketch's memory; the digest keeps those apart that begin alike.
    return f"{text[:_LONGEST_ITEM]}… {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def _freeze_bound(value: Any) -> Bound:
    return value if value is None or isinstance(value, int | float) else str(value)


def _thaw_bound(value: Bound, type_: pa.DataType) -> Any:
    plain = _plain_type(type_)
    if value is None or not pa.types.is_decimal(plain):
        return value
    return pa.scalar(value).cast(plain).as_py()
