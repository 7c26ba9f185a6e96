"""What the values of each column look like: counts, bounds and mergeable sketches, in one streaming pass.

`table.py` streams the batches and `schema.py` names semantic types from rows in memory; here no row is kept. Profiles
of partitions merge into the profile of the whole, and equal rows in equal batches give equal bytes.
"""

import base64
import dataclasses
import hashlib
import json
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

_FORMAT = 1
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
    frequent: tuple[tuple[str, int], ...]
    frequent_error: int
    distinct_sketch: str
    quantile_sketch: str

    def quantile(self, rank: float) -> float | None:
        """Value below which about `rank` (0 to 1) of the known values lie; None for text or without a value."""
        if not self.quantile_sketch:
            return None
        sketch = datasketches.tdigest_double.deserialize(base64.b64decode(self.quantile_sketch))
        return None if sketch.is_empty() else float(sketch.get_quantile(rank))


@dataclass(frozen=True)
class Profile:
    """A whole table.

    Attributes:
        rows: Rows of the source.
        fingerprint: Digest of the source's content.
        excluded: Columns that were left out.
        schema_ipc: The exact Arrow schema as a base64 IPC message.
        columns: One entry per column, in schema order.
    """

    rows: int
    fingerprint: str
    excluded: tuple[str, ...]
    schema_ipc: str
    columns: tuple[ColumnProfile, ...]

    @property
    def schema(self) -> pa.Schema:
        """The exact Arrow schema."""
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.schema_ipc)))

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
    rows = 0
    for batch in source.batches():
        check_values(batch)
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
    )


class _Sketches:
    """The growing counterpart of a `ColumnProfile`."""

    def __init__(self, field: pa.Field) -> None:
        self.field = field
        self.rows = self.nulls = self.nans = self.repeats = 0
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
        if profile.quantile_sketch:
            quantiles = base64.b64decode(profile.quantile_sketch)
            sketches.quantiles = datasketches.tdigest_double.deserialize(quantiles)
        return sketches

    def add(self, array: pa.Array) -> None:
        self.rows += len(array)
        self.nulls += array.null_count
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

    def _widen(self, low: Any, high: Any) -> None:
        self.minimum = low if self.minimum is None else min(self.minimum, low)
        self.maximum = high if self.maximum is None else max(self.maximum, high)

    def merged(self, other: "_Sketches") -> "_Sketches":
        self.rows += other.rows
        self.nulls += other.nulls
        self.nans += other.nans
        self.repeats += other.repeats
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
        all_differ = not self.repeats and self.distinct.get_upper_bound(2) >= known
        if natural is SemanticType.CATEGORICAL and known >= _IDENTIFIER_ROWS and all_differ:
            return SemanticType.IDENTIFIER
        return natural


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
