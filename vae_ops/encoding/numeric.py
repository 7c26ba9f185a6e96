"""Numbers, booleans, times of day and durations: anything whose order is all there is to know.

Nulls and NaN are tokens of their own, so that their pattern is learned like any value. The rest is the business of
`quantile.py`; calendars are that of `temporal.py`.
"""

from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from vae_ops.encoding.base import NO_VALUE, Carried, Codes, Encoding, Token
from vae_ops.encoding.lattice import from_numbers, relative_error, to_numbers
from vae_ops.encoding.quantile import QuantileCoder

__all__ = ["NumericEncoding"]


class NumericEncoding(Encoding):
    """A column of ordered values: null, NaN, then the values of a `QuantileCoder`."""

    kind: ClassVar[str] = "numeric"

    def __init__(self, field: pa.Field, *, has_null: bool, has_nan: bool, coder: QuantileCoder | None) -> None:
        """Assembles a fitted encoding; use `fit`."""
        self.field = field
        self.has_null = has_null
        self.has_nan = has_nan
        self.coder = coder
        self._specials = has_null + has_nan
        own = np.zeros((0, 2), dtype=np.float32) if coder is None else coder.spans
        spans = np.concatenate([np.zeros((self._specials, 2), dtype=np.float32), own])
        exact = 0 if coder is None else len(coder.exact)
        self.tokens = (Token(len(spans), spans, first_bin=self._specials + exact),)

    @classmethod
    def fit(cls, field: pa.Field, array: pa.Array) -> Self:
        """Fits on the training values, which hold no infinity."""
        lattice = to_numbers(array)
        ordinary = ~(lattice.null | lattice.nan)
        coder = None
        if ordinary.any():
            coder = QuantileCoder.fit(lattice.numbers[ordinary], relative_error=relative_error(field.type))
        return cls(field, has_null=bool(lattice.null.any()), has_nan=bool(lattice.nan.any()), coder=coder)

    def encode(self, array: pa.Array) -> Codes:
        """Codes of shape (n, 1); a null or NaN never seen in training becomes an ordinary value."""
        lattice = to_numbers(array)
        tokens, fractions = np.zeros(len(array), dtype=np.int32), None
        if self.coder is not None:
            tokens, fractions = self.coder.encode(lattice.numbers)
            tokens, fractions = tokens + np.int32(self._specials), np.where(lattice.null | lattice.nan, 0.5, fractions)
        if self.has_nan:
            tokens[lattice.nan] = int(self.has_null)
        if self.has_null:
            tokens[lattice.null] = 0
        return Codes.of(tokens, fractions)

    def decode(self, codes: Codes, first_row: int) -> pa.Array:
        """Values inside the observed range, on the column's grid."""
        flat = codes.tokens[:, 0]
        null = (flat == 0) if self.has_null else np.zeros(len(flat), dtype=bool)
        nan = (flat == self._specials - 1) if self.has_nan else np.zeros(len(flat), dtype=bool)
        numbers = np.zeros(len(flat), dtype=np.int64)
        if self.coder is not None:
            numbers = self.coder.decode(np.maximum(flat - self._specials, 0), codes.fractions[:, 0])
        return from_numbers(numbers, null, nan, self.field.type)

    def carried_from(self, earlier: Self) -> tuple[Carried, ...]:
        """Null from null, NaN from NaN, numbers as the coder says."""
        carried = np.full(self.tokens[0].size, NO_VALUE, dtype=np.int64)
        if self.has_null and earlier.has_null:
            carried[0] = 0
        if self.has_nan and earlier.has_nan:
            carried[self._specials - 1] = earlier._specials - 1
        if self.coder is not None and earlier.coder is not None:
            carried[self._specials :] = earlier._specials + self.coder.carried_from(earlier.coder)
        return (carried,)

    def state(self) -> dict[str, Any]:
        """Flags, and the coder's state."""
        coder = None if self.coder is None else self.coder.state()
        return {"has_null": self.has_null, "has_nan": self.has_nan, "coder": coder}

    @classmethod
    def from_state(cls, field: pa.Field, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        coder = None if state["coder"] is None else QuantileCoder.from_state(state["coder"])
        return cls(field, has_null=state["has_null"], has_nan=state["has_nan"], coder=coder)
