"""Whole rows: every column's encoding side by side, a table to tokens and tokens to a table.

`fit_row_encoding` picks one encoding per column by its semantic type. `TokenLayout` tells the network, which knows
nothing of columns, what the tokens of a row look like.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.encoding.base import NOT_APPLICABLE, Encoding, Token, Tokens
from vae_ops.encoding.categorical import CategoricalEncoding
from vae_ops.encoding.identifier import IdentifierEncoding
from vae_ops.encoding.numeric import NumericEncoding
from vae_ops.encoding.temporal import TemporalEncoding, has_calendar
from vae_ops.encoding.trivial import ConstantEncoding, NullEncoding
from vae_ops.errors import BundleError
from vae_ops.schema import SemanticType

__all__ = ["ENCODINGS", "RowEncoding", "TokenLayout", "fit_encoding", "fit_row_encoding"]

ENCODINGS: Mapping[str, type[Encoding]] = {
    encoding.kind: encoding
    for encoding in (
        NumericEncoding,
        CategoricalEncoding,
        TemporalEncoding,
        IdentifierEncoding,
        ConstantEncoding,
        NullEncoding,
    )
}


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of a row, in the order in which the decoder predicts them.

    Attributes:
        tokens: Each token, with `parent` counted within the row rather than within its column.
        column_of: Index of the column that each token belongs to.
    """

    tokens: tuple[Token, ...]
    column_of: tuple[int, ...]

    @classmethod
    def of(cls, encodings: tuple[Encoding, ...]) -> Self:
        """Joins the tokens of the columns."""
        tokens: list[Token] = []
        column_of: list[int] = []
        for column, encoding in enumerate(encodings):
            first = len(tokens)
            for token in encoding.tokens:
                parent = None if token.parent is None else token.parent + first
                tokens.append(Token(token.size, token.positions, parent, token.parent_from, token.blocked))
                column_of.append(column)
        return cls(tuple(tokens), tuple(column_of))

    def __len__(self) -> int:
        """Number of tokens of a row."""
        return len(self.tokens)

    @cached_property
    def sizes(self) -> NDArray[np.int32]:
        """Vocabulary of each token, shape (tokens,)."""
        return np.array([token.size for token in self.tokens], dtype=np.int32)

    @cached_property
    def offsets(self) -> NDArray[np.int32]:
        """Where each token's values begin in one table of all values, shape (tokens,)."""
        return (np.cumsum(self.sizes) - self.sizes).astype(np.int32)

    def positions(self, tokens: Tokens) -> NDArray[np.float32]:
        """Place of every value on its column's axis; shape (n, tokens) in and out."""
        if not len(self):
            return np.zeros(tokens.shape, dtype=np.float32)
        return np.column_stack([self.position(index, tokens) for index in range(len(self))])

    def position(self, index: int, tokens: Tokens) -> NDArray[np.float32]:
        """Place of the values of one token, shape (n,); 0 where it does not apply."""
        token, values = self.tokens[index], tokens[:, index]
        safe = np.maximum(values, 0)
        if token.positions.ndim == 1:
            places = token.positions[safe]
        else:
            places = token.positions[np.maximum(tokens[:, token.parent], 0), safe]
        return np.where(values == NOT_APPLICABLE, 0, places).astype(np.float32)

    def applies(self, index: int, tokens: Tokens) -> NDArray[np.bool_]:
        """Whether one token applies beside the tokens before it, shape (n,)."""
        token = self.tokens[index]
        if token.parent is None:
            return np.ones(len(tokens), dtype=bool)
        return np.asarray(tokens[:, token.parent] >= token.parent_from)


class RowEncoding:
    """The encodings of all columns of a table.

    Attributes:
        schema: The Arrow schema that decoded tables have, metadata included.
        encodings: One per column, in the schema's order.
        layout: The tokens of a row.
    """

    def __init__(self, schema: pa.Schema, encodings: tuple[Encoding, ...]) -> None:
        """Joins fitted encodings; use `fit_row_encoding`."""
        self.schema = schema
        self.encodings = encodings
        self.layout = TokenLayout.of(encodings)

    def encode(self, table: pa.Table) -> Tokens:
        """Tokens of shape (rows, tokens), int32."""
        parts = [encoding.encode(_one_array(table[encoding.field.name])) for encoding in self.encodings]
        return np.concatenate([np.zeros((len(table), 0), dtype=np.int32), *parts], axis=1)

    def decode(self, tokens: Tokens, rng: np.random.Generator, first_row: int) -> pa.Table:
        """A table with exactly the schema; see `Encoding.decode` for the arguments."""
        columns = np.asarray(self.layout.column_of)
        generators = rng.spawn(len(self.encodings))
        arrays = [
            encoding.decode(tokens[:, columns == index] if len(columns) else tokens, generator, first_row)
            for index, (encoding, generator) in enumerate(zip(self.encodings, generators, strict=True))
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def state(self) -> dict[str, Any]:
        """Kind and state of every encoding, in the schema's order."""
        return {"columns": [{"kind": encoding.kind, "state": encoding.state()} for encoding in self.encodings]}

    @classmethod
    def from_state(cls, schema: pa.Schema, state: dict[str, Any]) -> Self:
        """The inverse of `state`.

        Raises:
            BundleError: The state names an encoding that this version does not know.
        """
        encodings = []
        for field, column in zip(schema, state["columns"], strict=True):
            if column["kind"] not in ENCODINGS:
                raise BundleError(
                    f"Column {field.name!r} was saved with the encoding {column['kind']!r}, which this version of "
                    "vae-ops does not know; load the model with the version that wrote it, or newer."
                )
            encodings.append(ENCODINGS[column["kind"]].from_state(field, column["state"]))
        return cls(schema, tuple(encodings))


def fit_row_encoding(table: pa.Table, semantic_types: Mapping[str, SemanticType], *, rare_rows: int) -> RowEncoding:
    """Fits one encoding per column.

    Args:
        table: Training rows.
        semantic_types: What each column means, by name.
        rare_rows: Categories in fewer rows than this are protected.
    """
    encodings = tuple(
        fit_encoding(field, _one_array(table[field.name]), semantic_types[field.name], rare_rows=rare_rows)
        for field in table.schema
    )
    return RowEncoding(table.schema, encodings)


def fit_encoding(field: pa.Field, array: pa.Array, semantic_type: SemanticType, *, rare_rows: int) -> Encoding:
    """Picks and fits the encoding of one column."""
    if array.null_count == len(array):
        return NullEncoding(field)
    if semantic_type is SemanticType.CONSTANT:
        return ConstantEncoding.fit(field, array)
    if semantic_type is SemanticType.IDENTIFIER and array.null_count == 0:
        return IdentifierEncoding.fit(field, array)
    is_text = semantic_type is SemanticType.IDENTIFIER and not pa.types.is_integer(field.type)
    if semantic_type is SemanticType.CATEGORICAL or is_text:
        return CategoricalEncoding.fit(field, array, rare_rows=rare_rows)
    if semantic_type in (SemanticType.DATE, SemanticType.DATETIME) and has_calendar(field, array):
        return TemporalEncoding.fit(field, array)
    return NumericEncoding.fit(field, array)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined
