"""Hypothesis strategies for Arrow data: every scalar type of a Parquet table, with the values that break things.

Used wherever something must hold for any column: reading, profiling, and the contract of the encodings.
"""

import decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

NASTY_NAMES = ("a b", 'quo"te', "it's", "<script>alert(1)</script>", "naïve 🦊", "dots.in.name", "=1+1", "%20", " ", "")

INTEGER_TYPES = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
FLOAT_TYPES = (pa.float16(), pa.float32(), pa.float64())
DECIMAL_TYPES = (pa.decimal32(7, 2), pa.decimal64(15, 3), pa.decimal128(20, 4), pa.decimal128(10), pa.decimal256(50, 6))
TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view())
BINARY_TYPES = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3))
DICTIONARY_TYPES = (
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.string(), ordered=True),
    pa.dictionary(pa.int32(), pa.binary()),
    pa.dictionary(pa.int16(), pa.int64()),
)
DATE_TYPES = (pa.date32(), pa.date64())
TIME_TYPES = (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))
TIMESTAMP_TYPES = (
    pa.timestamp("s"),
    pa.timestamp("ms", tz="Europe/Vienna"),
    pa.timestamp("us"),
    pa.timestamp("us", tz="UTC"),
    pa.timestamp("ns", tz="+05:30"),
)
DURATION_TYPES = (pa.duration("s"), pa.duration("ms"), pa.duration("us"), pa.duration("ns"))

SCALAR_TYPES = (
    pa.null(),
    pa.bool_(),
    *INTEGER_TYPES,
    *FLOAT_TYPES,
    *DECIMAL_TYPES,
    *TEXT_TYPES,
    *BINARY_TYPES,
    *DICTIONARY_TYPES,
    *DATE_TYPES,
    *TIME_TYPES,
    *TIMESTAMP_TYPES,
    *DURATION_TYPES,
)

_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MS_PER_DAY = 86_400_000


def scalar_types() -> st.SearchStrategy[pa.DataType]:
    """Any scalar type of `SCALAR_TYPES`."""
    return st.sampled_from(SCALAR_TYPES)


def column_names() -> st.SearchStrategy[str]:
    """Names that break quoting, and ordinary ones."""
    plain = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
    return (st.sampled_from(NASTY_NAMES) | plain).filter(lambda name: name != "_is_synthetic")


def values(type_: pa.DataType) -> st.SearchStrategy[Any]:
    """Known values of a type as `arrays` wants them: temporal types as their underlying integer."""
    if pa.types.is_dictionary(type_):
        return values(type_.value_type)
    if pa.types.is_null(type_):
        return st.none()
    if pa.types.is_boolean(type_):
        return st.booleans()
    if pa.types.is_floating(type_):
        return st.floats(width=type_.bit_width, allow_infinity=False)
    if pa.types.is_decimal(type_):
        return _decimals(type_)
    if type_ in TEXT_TYPES:
        return st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["🦊" * 3, "é" * 5000, "NA", "null"])
    if type_ in BINARY_TYPES:
        fixed = type_.byte_width if pa.types.is_fixed_size_binary(type_) else None
        return st.binary(min_size=fixed or 0, max_size=fixed or 8)
    return _integers(type_)


def arrays(type_: pa.DataType, *, min_size: int = 0, max_size: int = 30, nullable: bool = True) -> st.SearchStrategy:
    """Arrays of a type, with nulls unless told otherwise (a null array has nothing else)."""
    drawn = st.none() | values(type_) if nullable else values(type_)
    return st.lists(drawn, min_size=min_size, max_size=max_size).map(lambda found: build(found, type_))


def build(found: list[Any], type_: pa.DataType) -> pa.Array:
    """The array of a type from values as `values` draws them."""
    if pa.types.is_dictionary(type_):
        return build(found, type_.value_type).dictionary_encode().cast(type_)
    if pa.types.is_temporal(type_):
        return pa.array(found, pa.int32() if type_.bit_width == 32 else pa.int64()).cast(type_)
    return pa.array(found, type_)


def exact(column: Any) -> list[str]:
    """The values of an array or column as text: NaN equals NaN, and no date is too far for Python's datetime."""
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    return [repr(value) for value in column.to_pylist()]


@st.composite
def tables(draw: st.DrawFn, *, min_rows: int = 2, max_rows: int = 30, max_columns: int = 5) -> pa.Table:
    """Tables of any columns, of which at least one value is known."""
    names = draw(st.lists(column_names(), min_size=1, max_size=max_columns, unique=True))
    rows = draw(st.integers(min_rows, max_rows))
    fields, columns = [], []
    for name in names:
        type_ = draw(scalar_types())
        nullable = pa.types.is_null(type_) or draw(st.booleans())
        columns.append(draw(arrays(type_, min_size=rows, max_size=rows, nullable=nullable)))
        fields.append(pa.field(name, type_, nullable=nullable, metadata=draw(st.sampled_from([None, {"unit": "µ"}]))))
    if all(column.null_count == rows for column in columns):
        fields.append(pa.field("known", pa.int64()))
        columns.append(pa.array(range(rows), pa.int64()))
    unique = {field.name: (field, column) for field, column in zip(fields, columns, strict=True)}
    kept_fields, kept_columns = zip(*unique.values(), strict=True)
    return pa.Table.from_arrays(list(kept_columns), schema=pa.schema(kept_fields, metadata={"made by": "hypothesis"}))


def _decimals(type_: pa.DataType) -> st.SearchStrategy[decimal.Decimal]:
    largest = 10**type_.precision - 1

    def scaled(unscaled: int) -> decimal.Decimal:
        # Arithmetic would round to the 28 digits of the default context.
        digits = tuple(map(int, str(abs(unscaled))))
        return decimal.Decimal((int(unscaled < 0), digits, -type_.scale))

    return st.integers(-largest, largest).map(scaled)


def _integers(type_: pa.DataType) -> st.SearchStrategy[int]:
    if type_ == pa.date64():
        return st.integers(-(2**31), 2**31 - 1).map(lambda day: day * _MS_PER_DAY)
    if pa.types.is_time(type_):
        return st.integers(0, 86_400 * _UNITS_PER_SECOND[type_.unit] - 1)
    bits = type_.bit_width
    low, high = (0, 2**bits - 1) if pa.types.is_unsigned_integer(type_) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if pa.types.is_timestamp(type_) and type_.unit == "s":
        # Parquet has no seconds: pyarrow stores milliseconds, and more than these would not fit.
        low, high = low // 1000 + 1, high // 1000
    return st.integers(low, high) | st.integers(-5, 5).map(lambda value: max(value, low))
