"""Numbers, booleans, times of day and durations: anything whose order is all there is to know.

Nulls and NaN are tokens of their own, so that their pattern is learned like any value. The rest is the business of
`quantile.py`; calendars are that of `temporal.py`.
"""

from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from vae_ops.encoding.base import NOT_APPLICABLE, Encoding, Token, Tokens
from vae_ops.encoding.lattice import from_numbers, relative_error, to_numbers
from vae_ops.encoding.quantile import QuantileCoder

__all__ = ["NumericEncoding", "coder_tokens"]


def coder_tokens(coder: QuantileCoder | None, specials: int, first: int = 0) -> tuple[Token, ...]:
    """The tokens of a quantile coder that has `specials` values (null, NaN) before its own.

    Args:
        coder: None where a column has no ordinary values.
        specials: Number of leading values of the first token that are not the coder's.
        first: Index, within the column, of the first of these tokens.
    """
    zeros = np.zeros(specials, dtype=np.float32)
    if coder is None:
        return (Token(specials, zeros),)
    if not coder.bins:
        return (Token(specials + len(coder.exact), np.concatenate([zeros, coder.exact_positions])),)
    fine = coder.fine
    filled = np.resize(coder.bin_positions[-1], -(-coder.bins // fine) * fine)
    filled[: coder.bins] = coder.bin_positions
    by_coarse = filled.reshape(-1, fine)
    gate = specials + len(coder.exact)
    coarse = Token(gate + len(by_coarse), np.concatenate([zeros, coder.exact_positions, by_coarse.mean(axis=1)]))
    padding = np.zeros((gate, fine), dtype=np.float32)
    return coarse, Token(fine, np.concatenate([padding, by_coarse]), parent=first, parent_from=gate)


class NumericEncoding(Encoding):
    """A column of ordered values: null, NaN, then the values of a `QuantileCoder`."""

    kind: ClassVar[str] = "numeric"

    def __init__(self, field: pa.Field, *, has_null: bool, has_nan: bool, coder: QuantileCoder | None) -> None:
        """Assembles a fitted encoding; use `fit`."""
        self.field = field
        self.has_null = has_null
        self.has_nan = has_nan
        self.coder = coder
        self.tokens = coder_tokens(coder, has_null + has_nan)

    @classmethod
    def fit(cls, field: pa.Field, array: pa.Array) -> Self:
        """Fits on the training values, which hold no infinity."""
        lattice = to_numbers(array)
        ordinary = ~(lattice.null | lattice.nan)
        coder = None
        if ordinary.any():
            coder = QuantileCoder.fit(lattice.numbers[ordinary], relative_error=relative_error(field.type))
        return cls(field, has_null=bool(lattice.null.any()), has_nan=bool(lattice.nan.any()), coder=coder)

    def encode(self, array: pa.Array) -> Tokens:
        """Tokens of shape (n, 1 or 2); a null or NaN never seen in training becomes an ordinary value."""
        lattice = to_numbers(array)
        specials = self.has_null + self.has_nan
        tokens = np.full((len(array), 2), NOT_APPLICABLE, dtype=np.int32)
        if self.coder is not None:
            tokens = self.coder.encode(lattice.numbers)
            tokens[:, 0] += specials
        if self.has_null:
            tokens[lattice.null] = (0, NOT_APPLICABLE)
        if self.has_nan:
            tokens[lattice.nan] = (int(self.has_null), NOT_APPLICABLE)
        return np.maximum(tokens[:, :1], 0) if len(self.tokens) == 1 else tokens

    def decode(self, tokens: Tokens, rng: np.random.Generator, first_row: int) -> pa.Array:
        """Values inside the observed range, on the column's grid."""
        specials = self.has_null + self.has_nan
        null = (tokens[:, 0] == 0) if self.has_null else np.zeros(len(tokens), dtype=bool)
        nan = (tokens[:, 0] == specials - 1) if self.has_nan else np.zeros(len(tokens), dtype=bool)
        if self.coder is None:
            return from_numbers(np.zeros(len(tokens), dtype=np.int64), null, nan, self.field.type)
        fine = tokens[:, 1] if len(self.tokens) > 1 else np.zeros(len(tokens), dtype=np.int32)
        numbers = self.coder.decode(np.maximum(tokens[:, 0] - specials, 0), np.maximum(fine, 0), rng)
        return from_numbers(numbers, null, nan, self.field.type)

    def state(self) -> dict[str, Any]:
        """Flags, and the coder's state."""
        coder = None if self.coder is None else self.coder.state()
        return {"has_null": self.has_null, "has_nan": self.has_nan, "coder": coder}

    @classmethod
    def from_state(cls, field: pa.Field, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        coder = None if state["coder"] is None else QuantileCoder.from_state(state["coder"])
        return cls(field, has_null=state["has_null"], has_nan=state["has_nan"], coder=coder)
