"""What the metrics see of a table: each column as numbers or as category codes, told apart by its semantic type.

`fidelity.py` compares encoded columns, `privacy.py` whole rows; what a column means is decided by `vae_ops/schema.py`.
Encodings here serve comparison only and are never decoded, unlike those of `vae_ops/encoding/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vae_ops.errors import SchemaError
from vae_ops.schema import SemanticType

__all__ = [
    "MISSING_CODES",
    "CategoryColumn",
    "Column",
    "EncodedTable",
    "NumberColumn",
    "align_table",
    "encode_tables",
    "joint_codes",
    "quoted",
    "row_count",
    "take_rows",
]

MISSING_CODES = {"present": 0, "null": 1, "nan": 2}
_NUMBER_TYPES = frozenset(
    {SemanticType.NUMERIC, SemanticType.DATETIME, SemanticType.DATE, SemanticType.TIME, SemanticType.DURATION}
)
_EXACT_IN_FLOAT64 = 2**53
_LONGEST_LABEL = 200
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_WIDEST_DECIMAL = 75  # one digit less than decimal256 holds, so that a difference still fits


@dataclass(frozen=True)
class NumberColumn:
    """A numeric, date or time column.

    Attributes:
        values: float64 `(rows,)`, NaN where missing: the stored value less `origin`, which is the first table's least
            value where float64 would merge neighbours, else 0.
        missing: int8 `(rows,)`: 0 present, 1 null, 2 NaN.
        origin: Stored value at which `values` is 0.
        unit: Seconds in one stored step of a date or time; 1 for numbers.
    """

    values: NDArray[np.float64]
    missing: NDArray[np.int8]
    origin: float = 0.0
    unit: float = 1.0

    def take(self, rows: NDArray[np.int64]) -> "NumberColumn":
        """The column at these row numbers."""
        return NumberColumn(self.values[rows], self.missing[rows], self.origin, self.unit)

    @property
    def finite(self) -> NDArray[np.float64]:
        """The values that are present and finite."""
        return self.values[np.isfinite(self.values)]

    def in_units(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turns values of this encoding into the column's units: dates and times as seconds."""
        return (values + self.origin) * self.unit


@dataclass(frozen=True)
class CategoryColumn:
    """A column whose values are only equal or different; null is a value of its own.

    Attributes:
        codes: int64 `(rows,)`, from 0 to `size - 1`; equal values have equal codes in all tables encoded together.
        size: Distinct values over all tables encoded together.
        values: Arrow array `(size,)`: what each code stands for; None where only equality matters.
    """

    codes: NDArray[np.int64]
    size: int
    values: pa.Array | None = None

    def take(self, rows: NDArray[np.int64]) -> "CategoryColumn":
        """The column at these row numbers."""
        return CategoryColumn(self.codes[rows], self.size, self.values)

    def label(self, code: int) -> str:
        """A category as text, cut when very long."""
        value = self.values[code].as_py() if self.values is not None else code
        if value is None:
            return "(null)"
        text = value.hex() if isinstance(value, bytes) else str(value)
        return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


Column = NumberColumn | CategoryColumn
EncodedTable = Mapping[str, Column]


def row_count(table: EncodedTable) -> int:
    """Rows of an encoded table; 0 where it has no columns."""
    for column in table.values():
        return len(column.values if isinstance(column, NumberColumn) else column.codes)
    return 0


def take_rows(table: EncodedTable, rows: NDArray[np.int64]) -> EncodedTable:
    """The encoded table at these row numbers."""
    return {name: column.take(rows) for name, column in table.items()}


def encode_tables(tables: Sequence[pa.Table], semantic_types: Mapping[str, SemanticType]) -> list[EncodedTable]:
    """Encodes the same columns of several aligned tables so that they can be compared.

    Args:
        tables: Tables of one schema, as `align_table` gives them.
        semantic_types: The columns to encode and their semantic types; identifiers are left out, because values that
            never repeat have neither a shape nor a trend.

    Returns:
        One encoded table per table, columns in the order of `semantic_types`.
    """
    encoded: list[dict[str, Column]] = [{} for _ in tables]
    for name, semantic_type in semantic_types.items():
        if semantic_type is SemanticType.IDENTIFIER:
            continue
        columns = [table.column(name) for table in tables]
        for target, column in zip(encoded, _encode_column(columns, semantic_type), strict=True):
            target[name] = column
    return list(encoded)


def _encode_column(columns: Sequence[pa.ChunkedArray], semantic_type: SemanticType) -> Sequence[Column]:
    if semantic_type in _NUMBER_TYPES:
        plain = [_as_arithmetic(column) for column in columns]
        origin = _origin(plain[0])
        return [_number_column(column, origin, _unit_seconds(columns[0].type)) for column in plain]
    codes, values = _joint_values(columns)
    return [CategoryColumn(part, len(values), values) for part in codes]


def joint_codes(columns: Sequence[pa.ChunkedArray]) -> tuple[list[NDArray[np.int64]], int]:
    """Numbers the distinct values of several columns of one type; equal values get equal codes.

    Null has a code of its own, and so has NaN; 0.0 and -0.0 share one.

    Returns:
        The codes, int64 `(rows,)` per column, and the number of distinct values.
    """
    codes, values = _joint_values(columns)
    return codes, len(values)


def _joint_values(columns: Sequence[pa.ChunkedArray]) -> tuple[list[NDArray[np.int64]], pa.Array]:
    chunks = [chunk for column in columns for chunk in column.chunks]
    joined = pa.chunked_array(chunks, type=columns[0].type)
    if pa.types.is_floating(joined.type):
        joined = pc.add(joined, pa.scalar(0.0, joined.type))  # turns -0.0 into 0.0
    parts = joined.dictionary_encode(null_encoding="encode").chunks
    codes = np.concatenate([part.indices.to_numpy(zero_copy_only=False) for part in parts] or [np.empty(0)])
    ends = np.cumsum([len(column) for column in columns])[:-1]
    values = parts[0].dictionary if parts else pa.array([], joined.type)
    return np.split(codes.astype(np.int64), ends), values


def align_table(table: pa.Table, schema: pa.Schema, role: str) -> pa.Table:
    """Brings a table to the columns and plain types of another's schema; columns beyond the schema are dropped.

    Args:
        table: The table to bring into line.
        schema: Schema of the table it is compared with.
        role: What the table is, for the error: `synthetic`, `holdout`.

    Raises:
        SchemaError: A column is missing, or its values do not fit the type of its counterpart.
    """
    return pa.table([_align_column(table, field, role) for field in schema], names=schema.names)


def _align_column(table: pa.Table, field: pa.Field, role: str) -> pa.ChunkedArray:
    if table.schema.get_field_index(field.name) < 0:
        raise SchemaError(
            f"The {role} rows lack column {quoted(field.name)} of the training rows; "
            "compare tables that have the same columns."
        )
    column, target = table.column(field.name), _plain_type(field.type)
    try:
        return column if column.type == target else column.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(
            f"Column {quoted(field.name)} of the {role} rows should hold {field.type} like the training rows, "
            f"but its {column.type} values do not fit: {error}."
        ) from error


def _plain_type(arrow_type: pa.DataType) -> pa.DataType:
    """The type with the same values that Arrow's take, hash and arithmetic kernels accept."""
    if pa.types.is_dictionary(arrow_type):
        return _plain_type(arrow_type.value_type)
    if pa.types.is_string_view(arrow_type):
        return pa.large_string()
    if pa.types.is_binary_view(arrow_type):
        return pa.large_binary()
    if pa.types.is_float16(arrow_type):
        return pa.float32()
    if pa.types.is_decimal(arrow_type) and arrow_type.bit_width < 128:
        return pa.decimal128(arrow_type.precision, arrow_type.scale)
    return arrow_type


def _as_arithmetic(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dates and times as the integers they are stored as; everything else as it is."""
    if not pa.types.is_temporal(column.type):
        return column
    return column.cast(pa.int32()).cast(pa.int64()) if column.type.bit_width == 32 else column.cast(pa.int64())


def _origin(column: pa.ChunkedArray) -> Any:
    """Least value of a column that float64 would blur, as a decimal scalar; None where float64 is exact enough."""
    if column.null_count == len(column) or pa.types.is_floating(column.type):
        return None
    bounds = pc.min_max(column)
    if pa.types.is_decimal(column.type):
        wide = 15 < column.type.precision <= _WIDEST_DECIMAL
    else:
        wide = max(abs(bounds["min"].as_py()), abs(bounds["max"].as_py())) > _EXACT_IN_FLOAT64
    return bounds["min"].cast(_wide_decimal(column.type)) if wide else None


def _wide_decimal(arrow_type: pa.DataType) -> pa.DataType:
    return pa.decimal256(_WIDEST_DECIMAL, arrow_type.scale if pa.types.is_decimal(arrow_type) else 0)


def _unit_seconds(arrow_type: pa.DataType) -> float:
    """Seconds in one step of a date or time as it is stored, 1 for any other type."""
    if pa.types.is_date(arrow_type):
        return 86_400.0 if pa.types.is_date32(arrow_type) else 1e-3
    return _SECONDS[arrow_type.unit] if pa.types.is_temporal(arrow_type) else 1.0


def _number_column(column: pa.ChunkedArray, origin: Any, unit: float) -> NumberColumn:
    if origin is not None:
        column = pc.subtract(column.cast(_wide_decimal(column.type)), origin)
    floats = column.cast(pa.float64(), safe=False)
    null = floats.is_null().to_numpy()
    values = np.array(floats.to_numpy(), dtype=np.float64)
    missing = np.where(null, MISSING_CODES["null"], np.where(np.isnan(values), MISSING_CODES["nan"], 0))
    start = 0.0 if origin is None else float(origin.as_py())
    return NumberColumn(values, missing.astype(np.int8), start, unit)


def quoted(name: str, longest: int = 60) -> str:
    """A column name for a sentence: quoted, control characters escaped, cut when very long. A name is data."""
    return repr(name if len(name) <= longest else f"{name[: longest - 1]}…")
