"""Arrow numbers, dates and times as plain int64 or float64 arrays, and back to exactly the same Arrow type.

Everything with a finite grid is an integer underneath: decimals become their unscaled digits, times and timestamps
their ticks, unsigned integers are shifted into the signed range. Nothing passes through pandas, or through floats.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vae_ops.encoding.quantile import Numbers

__all__ = ["LatticeArray", "from_numbers", "relative_error", "to_numbers"]

_TICKS = {pa.types.is_date32: pa.int32(), pa.types.is_time32: pa.int32()}
_INT64_TICKS = (pa.types.is_date64, pa.types.is_time64, pa.types.is_timestamp, pa.types.is_duration)
_INT64_LIMIT = 2**63


@dataclass(frozen=True)
class LatticeArray:
    """Numbers of a column; entries that are null or NaN hold 0 in `numbers`.

    Attributes:
        numbers: int64 or float64, shape (n,).
        null: bool, shape (n,).
        nan: bool, shape (n,); always False for integers.
    """

    numbers: Numbers
    null: NDArray[np.bool_]
    nan: NDArray[np.bool_]


def relative_error(kind: pa.DataType) -> float:
    """Half the relative spacing of the floats of an Arrow type; that of float64 for all others."""
    if pa.types.is_float16(kind):
        return float(2.0**-11)
    return float(2.0**-24) if pa.types.is_float32(kind) else float(2.0**-53)


def to_numbers(array: pa.Array) -> LatticeArray:
    """Converts a boolean, integer, float, decimal, date, time, timestamp or duration array of length n."""
    null = np.asarray(pc.is_null(array).to_numpy(zero_copy_only=False), dtype=bool)
    kind = array.type
    if pa.types.is_floating(kind):
        numbers = np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64)
        nan = np.isnan(numbers) & ~null
        return LatticeArray(np.where(null | nan, 0.0, numbers), null, nan)
    return LatticeArray(_integers(array, null), null, np.zeros(len(array), dtype=bool))


def _integers(array: pa.Array, null: NDArray[np.bool_]) -> Numbers:
    kind = array.type
    if pa.types.is_decimal(kind):
        return _unscaled(array, null)
    for is_kind, ticks in _TICKS.items():
        if is_kind(kind):
            array = array.cast(ticks)
    if any(is_kind(kind) for is_kind in _INT64_TICKS):
        array = array.cast(pa.int64()) if not pa.types.is_date64(kind) else array.view(pa.int64())
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    filled = array.fill_null(0).to_numpy(zero_copy_only=False)
    if pa.types.is_uint64(kind):
        return np.asarray(filled.astype(np.uint64) ^ np.uint64(_INT64_LIMIT)).view(np.int64)
    return np.asarray(filled, dtype=np.int64)


def _unscaled(array: pa.Array, null: NDArray[np.bool_]) -> Numbers:
    scale = array.type.scale
    with localcontext() as context:
        context.prec = 100
        digits = [0 if value is None else int(value.scaleb(scale)) for value in array.to_pylist()]
    if all(-_INT64_LIMIT <= d < _INT64_LIMIT for d in digits):
        return np.array(digits, dtype=np.int64)
    # Wider than 64 bits: the leading 53 bits of each number are what can be learned.
    return np.array(digits, dtype=np.float64)


def from_numbers(numbers: Numbers, null: NDArray[np.bool_], nan: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """The inverse of `to_numbers`: an array of exactly type `kind`, shape (n,)."""
    if pa.types.is_floating(kind):
        return _floats(np.where(nan, np.nan, numbers.astype(np.float64)), null, kind)
    if pa.types.is_decimal(kind):
        return _decimals(numbers, null, kind)
    integers = numbers.astype(np.int64)
    if pa.types.is_uint64(kind):
        return pa.array(integers.view(np.uint64) ^ np.uint64(_INT64_LIMIT), mask=null, type=kind)
    if pa.types.is_boolean(kind):
        return pa.array(integers != 0, mask=null)
    if pa.types.is_date32(kind) or pa.types.is_time32(kind):
        return pa.array(integers.astype(np.int32), mask=null).cast(kind)
    if any(is_kind(kind) for is_kind in _INT64_TICKS):
        ticks = pa.array(integers, mask=null)
        return ticks.view(kind) if pa.types.is_date64(kind) else ticks.cast(kind)
    return pa.array(integers, mask=null).cast(kind)


def _floats(values: NDArray[np.float64], null: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    dtype = kind.to_pandas_dtype()
    limit = np.finfo(dtype).max
    return pa.array(np.clip(values, -float(limit), float(limit)).astype(dtype), mask=null, type=kind)


def _decimals(numbers: Numbers, null: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    limit = 10**kind.precision - 1
    with localcontext() as context:
        context.prec = 100
        values = [
            None if missing else Decimal(max(-limit, min(limit, int(number)))).scaleb(-kind.scale)
            for number, missing in zip(numbers.tolist(), null.tolist(), strict=True)
        ]
    return pa.array(values, type=kind)
