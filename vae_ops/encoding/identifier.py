"""Identifiers: unique strings or integers that name a row and say nothing about it.

They are recognised so that the network does not learn them, and regenerated so that no real one is repeated: integers
count on beyond the largest seen, strings follow the column's pattern. Each synthetic row's identifier follows from its
row number, so that shards never collide.
"""

from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from vae_ops.encoding.base import Carried, Codes, Encoding
from vae_ops.encoding.lattice import from_numbers, to_numbers
from vae_ops.encoding.pattern import StringPattern

__all__ = ["IdentifierEncoding"]

# A place of an identifier may show a literal only if this many identifiers share its shape.
_SHARED_BY = 20


class IdentifierEncoding(Encoding):
    """A column of unique strings, binary values or integers."""

    kind: ClassVar[str] = "identifier"

    def __init__(self, field: pa.Field, *, last: int | None, step: int, pattern: StringPattern | None) -> None:
        """Assembles a fitted encoding; use `fit`.

        Args:
            field: The column's Arrow field.
            last: Largest integer seen (on the lattice of `lattice.py`); None for strings.
            step: Gap between generated integers.
            pattern: Pattern of the strings; None for integers.
        """
        self.field = field
        self.tokens = ()
        self._last = last
        self._step = step
        self._pattern = pattern

    @classmethod
    def fit(cls, field: pa.Field, array: pa.Array) -> Self:
        """Fits on the training values, which are all different."""
        if pa.types.is_integer(field.type):
            numbers = to_numbers(array.drop_null()).numbers
            return cls(field, last=int(numbers.max()), step=1, pattern=None)
        strings = [_text(value) for value in array.drop_null().to_pylist()]
        return cls(field, last=None, step=1, pattern=StringPattern.fit(strings, shared_by=_SHARED_BY))

    def encode(self, array: pa.Array) -> Codes:
        """No tokens: shape (n, 0)."""
        return Codes.none(len(array))

    def decode(self, codes: Codes, first_row: int) -> pa.Array:
        """Identifiers for rows `first_row` … `first_row + n − 1` of the synthetic table, all different."""
        rows = range(first_row, first_row + len(codes))
        if self._pattern is not None:
            return _strings([self._pattern.string(row) for row in rows], self.field.type)
        assert self._last is not None
        low, high = _bounds(self.field.type)
        numbers = np.array(
            [low + (self._last + self._step * (row + 1) - low) % (high - low + 1) for row in rows], dtype=np.int64
        )
        present = np.zeros(len(numbers), dtype=bool)
        return from_numbers(numbers, present, present, self.field.type)

    def carried_from(self, earlier: Self) -> tuple[Carried, ...]:
        """Nothing, as there are no tokens."""
        return ()

    def state(self) -> dict[str, Any]:
        """The last integer, or the pattern."""
        pattern = None if self._pattern is None else self._pattern.state()
        return {"last": self._last, "step": self._step, "pattern": pattern}

    @classmethod
    def from_state(cls, field: pa.Field, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        pattern = None if state["pattern"] is None else StringPattern.from_state(state["pattern"])
        return cls(field, last=state["last"], step=state["step"], pattern=pattern)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _strings(strings: list[str], kind: pa.DataType) -> pa.Array:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain):
        return pa.array(strings, type=plain).cast(kind)
    width = plain.byte_width if pa.types.is_fixed_size_binary(plain) else None
    return pa.array([string.encode("latin-1", "replace")[:width] for string in strings], type=plain).cast(kind)


def _bounds(kind: pa.DataType) -> tuple[int, int]:
    if pa.types.is_uint64(kind):
        return -(2**63), 2**63 - 1
    low = 0 if pa.types.is_unsigned_integer(kind) else -(2 ** (kind.bit_width - 1))
    return low, low + 2**kind.bit_width - 1
