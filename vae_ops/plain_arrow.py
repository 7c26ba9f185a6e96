"""Arrow data made plain: out of extension types, and filtered also where Arrow lacks a kernel.

`parquet_files.py` and `python_rows.py` read with it, so that everybody after them meets storage types only.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["filter_rows", "simple_array", "simple_schema", "without_views"]


def simple_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with extension types replaced by their storage types."""
    return pa.schema([_simple_field(field) for field in schema], metadata=schema.metadata)


def simple_array(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """The array as `type_`, out of its extension type where it has one."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array if array.type == type_ else array.cast(type_)


def _simple_field(field: pa.Field) -> pa.Field:
    if not isinstance(field.type, pa.BaseExtensionType):
        return field
    serialise = getattr(field.type, "__arrow_ext_serialize__", bytes)
    keys = {b"ARROW:extension:name": field.type.extension_name, b"ARROW:extension:metadata": serialise()}
    return field.with_type(field.type.storage_type).with_metadata({**(field.metadata or {}), **keys})


def filter_rows(rows: Any, mask: NDArray[np.bool_]) -> Any:
    """Keeps the rows of a table or record batch where the mask is true."""
    # Arrow has no filter kernel for view types: https://github.com/apache/arrow/issues/43010
    plain = without_views(rows.schema)
    if plain.equals(rows.schema):
        return rows.filter(pa.array(mask))
    return rows.cast(plain).filter(pa.array(mask)).cast(rows.schema)


def without_views(schema: pa.Schema) -> pa.Schema:
    """The schema with view types replaced by the large types of the same values."""
    return pa.schema([field.with_type(_without_view(field.type)) for field in schema], metadata=schema.metadata)


def _without_view(type_: pa.DataType) -> pa.DataType:
    if type_ == pa.string_view():
        return pa.large_string()
    return pa.large_binary() if type_ == pa.binary_view() else type_
