"""Semantic types: what a column means, as opposed to how Arrow stores it.

Inference looks at the training sample that `table.py` read, and overrides from the settings have the last word.
`encoding/` picks one encoding per semantic type.
"""

import difflib
import math
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vae_ops.errors import SchemaError, SettingsError

__all__ = ["SemanticType", "check_overrides", "infer_semantic_types", "natural_type"]

# With fewer rows, all-different values say little: twenty prices may well differ.
_IDENTIFIER_ROWS = 50
_DENSE_SHARE = 0.95
# 1 % critical value of the Kolmogorov-Smirnov statistic, times √n.
_UNIFORM_BAND = 1.63


class SemanticType(StrEnum):
    """What a column means.

    The first seven follow from the Arrow type, the last three from the values.
    """

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    DATE = "date"
    TIME = "time"
    DURATION = "duration"
    IDENTIFIER = "identifier"
    CONSTANT = "constant"
    NULL = "null"


def natural_type(type_: pa.DataType) -> SemanticType:
    """The semantic type of an Arrow type when nothing is known about the values.

    Raises:
        SchemaError: The type is not one of the scalar types of a Parquet table.
    """
    tests = {
        SemanticType.NULL: (pa.types.is_null,),
        SemanticType.BOOLEAN: (pa.types.is_boolean,),
        SemanticType.NUMERIC: (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal),
        SemanticType.CATEGORICAL: (pa.types.is_dictionary, _is_text),
        SemanticType.DATE: (pa.types.is_date,),
        SemanticType.DATETIME: (pa.types.is_timestamp,),
        SemanticType.TIME: (pa.types.is_time,),
        SemanticType.DURATION: (pa.types.is_duration,),
    }
    for semantic, candidates in tests.items():
        if any(test(type_) for test in candidates):
            return semantic
    raise SchemaError(f"Expected a scalar column type, got {type_}; leave such a column out with exclude= (--exclude).")


def infer_semantic_types(
    table: pa.Table, overrides: Mapping[str, str] = MappingProxyType({})
) -> dict[str, SemanticType]:
    """Decides what each column means.

    A column of nulls only is `NULL` and a column of one repeated value is `CONSTANT`, whatever an override says: these
    are facts of the rows at hand and may change from night to night.

    Args:
        table: The training sample.
        overrides: Semantic type by column name.

    Returns:
        Column name to semantic type, in the order of the table.

    Raises:
        SchemaError: An override names an unknown column, or a type that the column's Arrow type cannot have.
        SettingsError: An override names an unknown semantic type.
    """
    chosen = check_overrides(table.schema, overrides)
    return {name: _infer(table.column(name), chosen.get(name)) for name in table.schema.names}


def check_overrides(schema: pa.Schema, overrides: Mapping[str, str]) -> dict[str, SemanticType]:
    """Checks overrides of semantic types against a schema, before any row is read.

    Raises:
        SchemaError: An override names an unknown column, or a type that the column's Arrow type cannot have.
        SettingsError: An override names an unknown semantic type.
    """
    return {name: _checked_override(schema, name, wanted) for name, wanted in overrides.items()}


def _infer(column: pa.ChunkedArray, override: SemanticType | None) -> SemanticType:
    if column.null_count == len(column):
        return SemanticType.NULL
    distinct = _count_distinct(column)
    if distinct == 1 and not column.null_count:
        return SemanticType.CONSTANT
    if override is not None:
        return override
    natural = natural_type(column.type)
    known = len(column) - column.null_count
    if known >= _IDENTIFIER_ROWS and distinct == known and _numbers_its_rows(column):
        return SemanticType.IDENTIFIER
    return natural


def _count_distinct(column: pa.ChunkedArray) -> int:
    type_ = column.type
    if pa.types.is_dictionary(type_):
        column = column.unify_dictionaries().cast(type_.value_type)
    elif pa.types.is_decimal(type_) and type_.bit_width < 128:
        # Arrow has no hash kernel for the narrow decimals.
        column = column.cast(pa.decimal128(type_.precision, type_.scale))
    return len(pc.unique(column)) - bool(column.null_count)


def _numbers_its_rows(column: pa.ChunkedArray) -> bool:
    """Whether all-different values look like names of rows rather than like quantities."""
    text = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if _is_text(text):
        return True
    if not pa.types.is_integer(column.type) or column.null_count:
        return False
    values = column.to_numpy()
    return _is_dense(values) or _counts_evenly(values)


def _is_dense(values: npt.NDArray[np.integer]) -> bool:
    return len(values) >= _DENSE_SHARE * (int(values.max()) - int(values.min()) + 1)


def _counts_evenly(values: npt.NDArray[np.integer]) -> bool:
    # Row numbers of a sampled table still rise, and their path strays from a straight line like sorted uniform draws.
    ordered = values if values[0] < values[-1] else values[::-1]
    if not np.all(ordered[1:] > ordered[:-1]):
        return False
    low, high = int(ordered[0]), int(ordered[-1])
    path = (ordered.astype(np.float64) - low) / (high - low)
    straight = np.linspace(0.0, 1.0, len(path))
    return bool(np.max(np.abs(path - straight)) < _UNIFORM_BAND / math.sqrt(len(path)))


def _is_text(type_: pa.DataType) -> bool:
    views = type_ in (pa.string_view(), pa.binary_view())
    return bool(views or _is_string_or_binary(type_))


def _is_string_or_binary(type_: pa.DataType) -> bool:
    is_string = pa.types.is_string(type_) or pa.types.is_large_string(type_)
    is_binary = pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_)
    return bool(is_string or is_binary)


def _checked_override(schema: pa.Schema, name: str, wanted: str) -> SemanticType:
    if name not in schema.names:
        near = difflib.get_close_matches(name, schema.names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "check the spelling."
        raise SchemaError(f"semantic_types names the column {name!r}, which the table does not have; {hint}")
    type_ = schema.field(name).type
    allowed = _possible_types(type_)
    if wanted not in list(SemanticType):
        raise SettingsError(
            f"semantic_types expects one of {', '.join(allowed)} for {name!r}, got {wanted!r}; correct the setting."
        )
    if wanted not in allowed:
        raise SchemaError(
            f"Column {name!r} is stored as {type_} and can be read as {' or '.join(allowed)}, but semantic_types says "
            f"{wanted}; correct the setting or cast the column."
        )
    return SemanticType(wanted)


def _possible_types(type_: pa.DataType) -> tuple[SemanticType, ...]:
    natural = natural_type(type_)
    possible = [natural]
    if natural is SemanticType.NUMERIC or natural is SemanticType.BOOLEAN:
        possible.append(SemanticType.CATEGORICAL)
    if natural is SemanticType.CATEGORICAL or pa.types.is_integer(type_):
        possible.append(SemanticType.IDENTIFIER)
    return tuple(possible)
