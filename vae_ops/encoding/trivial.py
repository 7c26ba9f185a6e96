"""Columns that need no learning: one value throughout, or nothing but nulls. They cost the network nothing."""

from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from vae_ops.encoding.base import Carried, Codes, Encoding, array_from_text, array_to_text, without_view

__all__ = ["ConstantEncoding", "NullEncoding"]


class NullEncoding(Encoding):
    """A column of nulls."""

    kind: ClassVar[str] = "null"

    def __init__(self, field: pa.Field) -> None:
        """Keeps the field."""
        self.field = field
        self.tokens = ()

    def encode(self, array: pa.Array) -> Codes:
        """No tokens: shape (n, 0)."""
        return Codes.none(len(array))

    def decode(self, codes: Codes, first_row: int) -> pa.Array:
        """Nulls of the column's type."""
        return pa.nulls(len(codes), self.field.type)

    def carried_from(self, earlier: Self) -> tuple[Carried, ...]:
        """Nothing, as there are no tokens."""
        return ()

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    @classmethod
    def from_state(cls, field: pa.Field, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        return cls(field)


class ConstantEncoding(Encoding):
    """A column with one value and no nulls."""

    kind: ClassVar[str] = "constant"

    def __init__(self, field: pa.Field, value: pa.Array) -> None:
        """Keeps the field and an array of length one."""
        self.field = field
        self.tokens = ()
        self._value = value

    @classmethod
    def fit(cls, field: pa.Field, array: pa.Array) -> Self:
        """Takes the first value."""
        return cls(field, array.slice(0, 1))

    def encode(self, array: pa.Array) -> Codes:
        """No tokens: shape (n, 0)."""
        return Codes.none(len(array))

    def decode(self, codes: Codes, first_row: int) -> pa.Array:
        """The value, n times."""
        plain = self._value.cast(without_view(self.field.type))
        return plain.take(pa.array(np.zeros(len(codes), dtype=np.int64))).cast(self.field.type)

    def carried_from(self, earlier: Self) -> tuple[Carried, ...]:
        """Nothing, as there are no tokens."""
        return ()

    def state(self) -> dict[str, Any]:
        """The value, as an Arrow record batch in base64: the one form that keeps every type exactly."""
        return {"value": array_to_text(self._value)}

    @classmethod
    def from_state(cls, field: pa.Field, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        return cls(field, array_from_text(state["value"]))
