"""What every encoding offers: the codes a column becomes, and the way there and back.

The network sees a row as a sequence of tokens, small whole numbers, some of which apply only beside others (the time of
day of a date that is not null). Where a token is a bin, a fraction says where inside it the value lies. A kind of
column lives in one file beside this one; `row.py` joins the columns.
"""

import base64
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "NOT_APPLICABLE",
    "NO_VALUE",
    "Carried",
    "Codes",
    "Encoding",
    "Fractions",
    "Token",
    "Tokens",
    "array_from_text",
    "array_to_text",
    "unordered",
    "without_view",
]

Tokens = NDArray[np.int32]
Fractions = NDArray[np.float32]

# Stands where a token does not apply: no embedding, no loss, nothing sampled.
NOT_APPLICABLE = -1

# For each value of a token, the value of an earlier fit that it goes on from, or `NO_VALUE`.
Carried = NDArray[np.int64]
NO_VALUE = -1


@dataclass(frozen=True)
class Token:
    """One discrete variable of a row.

    Attributes:
        size: Vocabulary: the token is 0 … size − 1, or `NOT_APPLICABLE`.
        spans: From where to where each value reaches on a roughly standard-normal axis, so that neighbours look alike
            to the network; shape (size, 2), zeros for unordered values.
        first_bin: Values from here on are bins, which differ from each other in nothing but where they lie.
        parent: Index, within the column, of the earlier token that decides whether this one applies; None: always.
        parent_from: It applies where the parent is at least this.
        blocked: Values that are never sampled, such as the one that stands for protected categories.
    """

    size: int
    spans: NDArray[np.float32]
    first_bin: int
    parent: int | None = None
    parent_from: int = 0
    blocked: tuple[int, ...] = ()

    @property
    def is_ordered(self) -> bool:
        """Whether its values have an order."""
        return bool(np.any(self.spans))


def unordered(size: int, *, parent: int | None = None, blocked: tuple[int, ...] = ()) -> Token:
    """A token whose values are only equal or different."""
    return Token(size, np.zeros((size, 2), dtype=np.float32), size, parent, blocked=blocked)


@dataclass(frozen=True)
class Codes:
    """Rows as the network sees them, without loss up to the resolution of a quantile curve.

    Attributes:
        tokens: int32, shape (rows, tokens).
        fractions: Where inside its bin each value lies, from 0 to 1, float32, shape (rows, tokens); ½ elsewhere.
    """

    tokens: Tokens
    fractions: Fractions

    @classmethod
    def of(cls, tokens: NDArray[Any], fractions: NDArray[Any] | None = None) -> Self:
        """Joins tokens of shape (rows, tokens) or (rows,) and, where some are bins, the fractions."""
        wide = (tokens[:, None] if tokens.ndim == 1 else tokens).astype(np.int32)
        inside = np.full(wide.shape, 0.5) if fractions is None else fractions.reshape(wide.shape)
        return cls(wide, inside.astype(np.float32))

    @classmethod
    def none(cls, rows: int) -> Self:
        """Codes of a column without tokens."""
        return cls.of(np.zeros((rows, 0), dtype=np.int32))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tokens)

    def columns(self, chosen: NDArray[np.bool_]) -> "Codes":
        """The chosen tokens of every row."""
        return Codes(self.tokens[:, chosen], self.fractions[:, chosen])


class Encoding(ABC):
    """One column: fitted on the training rows, then codes from values and values from codes.

    Attributes:
        kind: Name under which a saved encoding is found again.
        field: The column's Arrow field; decoded arrays have exactly its type.
        tokens: The tokens a value becomes; empty for columns that cost the network nothing.
    """

    kind: ClassVar[str]
    field: pa.Field
    tokens: tuple[Token, ...]

    @abstractmethod
    def encode(self, array: pa.Array) -> Codes:
        """Codes of shape (len(array), len(self.tokens))."""

    @abstractmethod
    def decode(self, codes: Codes, first_row: int) -> pa.Array:
        """Values of exactly `field.type`.

        Args:
            codes: What `encode` gives, or what the decoder sampled; they decide the result.
            first_row: Index of the first row in the whole synthetic table, for values that must not repeat.
        """

    @abstractmethod
    def carried_from(self, earlier: Self) -> tuple[Carried, ...]:
        """What each value of each token goes on from in an earlier fit of the same column and kind."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain JSON values and NumPy arrays from which `from_state` rebuilds the encoding."""

    @classmethod
    @abstractmethod
    def from_state(cls, field: pa.Field, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""


def array_to_text(array: pa.Array) -> str:
    """An array of any type as base64 text, by way of Arrow's stream format: the one form that keeps every type."""
    batch = pa.record_batch([array], names=["values"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue().to_pybytes()).decode("ascii")


def array_from_text(text: str) -> pa.Array:
    """The inverse of `array_to_text`.

    Raises:
        pyarrow.ArrowInvalid: The text is no such array; Arrow itself would read beyond the buffers of a made-up one.
    """
    with pa.ipc.open_stream(base64.b64decode(text)) as reader:
        array = reader.read_next_batch().column(0)
    array.validate(full=True)
    return array


def without_view(kind: pa.DataType) -> pa.DataType:
    """The plain type beside a string or binary view: Arrow computes little on views."""
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)
