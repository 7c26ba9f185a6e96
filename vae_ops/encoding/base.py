"""What every encoding offers: the tokens a column becomes, and the way there and back.

The network sees a row as a sequence of tokens, small whole numbers, some of which apply only beside others (the fine
position of a number that is not null). A kind of column lives in one file beside this one; `row.py` joins the columns.
"""

import base64
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["NOT_APPLICABLE", "Encoding", "Token", "Tokens", "array_from_text", "array_to_text", "without_view"]

Tokens = NDArray[np.int32]

# Stands where a token does not apply: no embedding, no loss, nothing sampled.
NOT_APPLICABLE = -1


@dataclass(frozen=True)
class Token:
    """One discrete variable of a row.

    Attributes:
        size: Vocabulary: the token is 0 … size − 1, or `NOT_APPLICABLE`.
        positions: Where each value lies on a roughly standard-normal axis, so that neighbours look alike to the
            network; shape (size,), or (size of the parent, size) where the parent's value matters; zeros for unordered
            values.
        parent: Index, within the column, of the earlier token that decides whether this one applies; None: always.
        parent_from: It applies where the parent is at least this.
        blocked: Values that are never sampled, such as the one that stands for protected categories.
    """

    size: int
    positions: NDArray[np.float32]
    parent: int | None = None
    parent_from: int = 0
    blocked: tuple[int, ...] = ()


class Encoding(ABC):
    """One column: fitted on the training rows, then tokens from values and values from tokens.

    Attributes:
        kind: Name under which a saved encoding is found again.
        field: The column's Arrow field; decoded arrays have exactly its type.
        tokens: The tokens a value becomes; empty for columns that cost the network nothing.
    """

    kind: ClassVar[str]
    field: pa.Field
    tokens: tuple[Token, ...]

    @abstractmethod
    def encode(self, array: pa.Array) -> Tokens:
        """Tokens of shape (len(array), len(self.tokens)), int32."""

    @abstractmethod
    def decode(self, tokens: Tokens, rng: np.random.Generator, first_row: int) -> pa.Array:
        """Values of exactly `field.type` for tokens of shape (n, len(self.tokens)).

        Args:
            tokens: What `encode` gives, or what the decoder sampled.
            rng: Places values inside their bins; its state and the tokens decide the result.
            first_row: Index of the first row in the whole synthetic table, for values that must not repeat.
        """

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
    """The inverse of `array_to_text`."""
    with pa.ipc.open_stream(base64.b64decode(text)) as reader:
        return reader.read_next_batch().column(0)


def without_view(kind: pa.DataType) -> pa.DataType:
    """The plain type beside a string or binary view: Arrow computes little on views."""
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(kind, kind)
