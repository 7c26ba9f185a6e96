"""One number per row that its values alone decide, the same on every night, in every file and on every machine.

`holdout.py` decides with it which rows are held out. `validation/row_hashes.py` compares the rows of tables at hand
with each other, which is quicker and need not outlive the process.
"""

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["content_hashes", "mix_hashes"]

_TEXT_BYTES = 1024**2


def content_hashes(table: pa.Table) -> NDArray[np.uint64]:
    """Hashes whole rows so that equal rows have equal hashes, wherever and whenever they are read.

    What the values mean counts, not how they are stored: width of integers and floats, dictionaries, chunks and the
    order of columns make no difference. A null adds nothing, so that a column of nulls, new in the table, leaves all
    hashes as they were. All NaN are equal, and so are both zeros.

    The result must not change with a version of vae-ops: rows that a model has learned would be held out from the next.

    Args:
        table: Scalar columns only.

    Returns:
        uint64 `(rows,)`.
    """
    hashes = np.zeros(table.num_rows, dtype=np.uint64)
    for name, column in zip(table.column_names, table.columns, strict=True):
        salt = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), dtype="<u8").astype(np.uint64)
        begin = 0
        for chunk in column.chunks:
            hashes[begin : begin + len(chunk)] += _value_hashes(_encoded(chunk), salt)
            begin += len(chunk)
    return hashes


def mix_hashes(state: NDArray[np.uint64], code: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) per column; a bijection of `state` for each code."""
    mixed = state * np.uint64(0x9E3779B97F4A7C15) + code + np.uint64(1)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _encoded(array: pa.Array) -> pa.Array:
    """Text and bytes as a dictionary, so that each value is hashed once; all else as it is."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return _plain_binary(array).dictionary_encode() if _is_binary(array.type) else array


def _value_hashes(array: pa.Array, salt: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """uint64 `(n,)`, 0 where null."""
    if pa.types.is_dictionary(array.type):
        known = np.append(_value_hashes(array.dictionary, salt), np.uint64(0))
        positions: NDArray[np.int64] = array.indices.cast(pa.int64()).fill_null(len(known) - 1).to_numpy()
        found: NDArray[np.uint64] = known[positions]
        return found
    hashes = mix_hashes(salt, _codes(array))
    if array.null_count:
        hashes[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return hashes


def _codes(array: pa.Array) -> NDArray[np.uint64]:
    """The value as 64 bits, exactly where it has no more of them; anything where it is null."""
    type_ = array.type
    if pa.types.is_null(type_):
        return np.zeros(len(array), dtype=np.uint64)
    if _is_binary(type_):
        return _text_codes(_plain_binary(array))
    if pa.types.is_decimal(type_):
        return _decimal_codes(array)
    if pa.types.is_floating(type_):
        numbers = np.asarray(array.to_numpy(zero_copy_only=False), dtype=np.float64) + 0.0
        numbers[np.isnan(numbers)] = np.nan
        return numbers.view(np.uint64)
    if pa.types.is_boolean(type_):
        array = array.cast(pa.int8())
    elif pa.types.is_temporal(type_):
        array = array.view(pa.int32() if type_.bit_width == 32 else pa.int64())
    integers: NDArray[np.integer] = array.fill_null(0).to_numpy(zero_copy_only=False)
    return integers.astype(np.uint64)


def _decimal_codes(array: pa.Array) -> NDArray[np.uint64]:
    type_ = array.type
    if type_.bit_width < 128:
        type_ = pa.decimal128(type_.precision, type_.scale)
        array = array.cast(type_)
    if not len(array):
        return np.zeros(0, dtype=np.uint64)
    words = np.frombuffer(array.buffers()[1], dtype="<u8").reshape(-1, type_.bit_width // 64)
    words = words[array.offset : array.offset + len(array)].astype(np.uint64)
    codes: NDArray[np.uint64] = words[:, 0]
    for word in words.T[1:]:
        codes = mix_hashes(codes, word)
    return codes


def _is_binary(type_: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    other = pa.types.is_fixed_size_binary(type_) or type_ in (pa.string_view(), pa.binary_view())
    return other or any(test(type_) for test in tests)


def _plain_binary(array: pa.Array) -> pa.Array:
    if array.type == pa.string_view():
        array = array.cast(pa.large_string())
    return array.cast(pa.large_binary())


def _text_codes(array: pa.Array) -> NDArray[np.uint64]:
    """A multilinear hash of the bytes (Lemire and Kaser, The Computer Journal 2014), with one weight per position."""
    codes = np.zeros(len(array), dtype=np.uint64)
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return codes
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    values = np.frombuffer(data, dtype=np.uint8)
    begin = 0
    # A number per byte takes eight times the text, so it is taken in pieces; a long value is a piece of its own.
    while begin < len(array):
        end = max(int(np.searchsorted(ends, ends[begin] + _TEXT_BYTES, side="right")) - 1, begin + 1)
        piece = ends[begin : end + 1]
        codes[begin:end] = _weighted_sums(values[piece[0] : piece[-1]], np.asarray(piece - piece[0]))
        begin = end
    return codes


def _weighted_sums(values: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    positions = np.arange(len(values), dtype=np.int64) - np.repeat(ends[:-1], np.diff(ends))
    weights = mix_hashes(np.arange(np.diff(ends).max(), dtype=np.uint64), np.zeros(1, dtype=np.uint64))
    terms = (values + np.uint64(1)) * weights[positions]
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(terms, dtype=np.uint64)])
    return np.diff(sums[ends])
