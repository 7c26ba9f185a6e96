"""Whole rows: every column's encoding side by side, a table to tokens and tokens to a table.

`fit_row_encoding` picks one encoding per column by its semantic type. `TokenLayout` tells the network, which knows
nothing of columns, what the tokens of a row look like.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import ndtr

from vae_ops.encoding.base import NOT_APPLICABLE, Carried, Codes, Encoding, Fractions, Token, Tokens
from vae_ops.encoding.categorical import CategoricalEncoding
from vae_ops.encoding.identifier import IdentifierEncoding
from vae_ops.encoding.numeric import NumericEncoding
from vae_ops.encoding.temporal import TemporalEncoding, has_calendar
from vae_ops.encoding.trivial import ConstantEncoding, NullEncoding
from vae_ops.errors import BundleError, CannotRefreshError
from vae_ops.schema import SemanticType

__all__ = [
    "ENCODINGS",
    "LOG_SIGMA_RANGE",
    "WAVE_HEIGHT",
    "WAVE_NUMBERS",
    "RowEncoding",
    "TokenLayout",
    "extend_row_encoding",
    "fit_encoding",
    "fit_row_encoding",
]

# Network and sampler have to agree on these.
# Wider than any useful posterior; beyond it e^{2s} overflows or the posterior is a point.
LOG_SIGMA_RANGE = (-7.0, 2.0)
# An ordered value reaches the network as a few cosine waves of its rank, beside its position. More waves tell values
# apart more sharply and are learned by heart sooner.
WAVE_NUMBERS = np.pi * np.arange(1, 4, dtype=np.float32)
WAVE_HEIGHT = 0.5

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
                tokens.append(replace(token, parent=parent))
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

    @cached_property
    def ordered(self) -> NDArray[np.float32]:
        """1 for tokens whose values have an order, 0 for others; shape (tokens,)."""
        return np.array([token.is_ordered for token in self.tokens], dtype=np.float32)

    @cached_property
    def embedded(self) -> NDArray[np.float32]:
        """1 for values that the network learns one by one, 0 for bins, in one column for all values of all tokens."""
        kept = [np.arange(token.size) < token.first_bin for token in self.tokens]
        return np.concatenate([np.zeros(0, dtype=bool), *kept]).astype(np.float32)[:, None]

    def positions(self, codes: Codes) -> NDArray[np.float32]:
        """Where every value lies on its column's axis, shape (n, tokens)."""
        found = np.zeros(codes.tokens.shape, dtype=np.float32)
        for index in range(len(self)):
            found[:, index] = self.position(index, codes.tokens[:, index], codes.fractions[:, index])
        return found

    def position(self, index: int, values: Tokens, fractions: Fractions) -> NDArray[np.float32]:
        """Where the values of one token lie on its axis, shape (n,); 0 where it does not apply."""
        low, high = self.tokens[index].spans[np.maximum(values, 0)].T
        return np.where(values == NOT_APPLICABLE, np.float32(0), low + fractions * (high - low))

    def waves(self, index: int, positions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine waves of the ranks of one token's values, shape (n, waves); zeros where they have no order."""
        waves = np.cos(ndtr(positions)[:, None] * WAVE_NUMBERS) * (WAVE_HEIGHT * self.ordered[index])
        return np.asarray(waves, dtype=np.float32)

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

    def encode(self, table: pa.Table) -> Codes:
        """Codes of shape (rows, tokens)."""
        none = Codes.none(len(table))
        parts = [none, *(encoding.encode(_one_array(table[encoding.field.name])) for encoding in self.encodings)]
        return Codes(
            np.concatenate([part.tokens for part in parts], axis=1),
            np.concatenate([part.fractions for part in parts], axis=1),
        )

    def decode(self, codes: Codes, first_row: int) -> pa.Table:
        """A table with exactly the schema; see `Encoding.decode` for the arguments."""
        columns = np.asarray(self.layout.column_of, dtype=np.int64)
        arrays = [
            encoding.decode(codes.columns(columns == index), first_row) for index, encoding in enumerate(self.encodings)
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
        rows = cls(schema, tuple(encodings))
        rows.decode(rows._ends(), 0)
        return rows

    def _ends(self) -> Codes:
        """Two rows, with the first and the last value of every token: what can decode them can decode all."""
        tokens = np.column_stack([np.zeros(len(self.layout), dtype=np.int32), self.layout.sizes - 1]).T
        for index in range(len(self.layout)):
            tokens[~self.layout.applies(index, tokens), index] = NOT_APPLICABLE
        return Codes.of(tokens)


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


def extend_row_encoding(
    earlier: RowEncoding, table: pa.Table, semantic_types: Mapping[str, SemanticType], *, rare_rows: int
) -> tuple[RowEncoding, tuple[Carried, ...]]:
    """Fits the columns of an earlier encoding anew: new ranges and new categories, but the same tokens.

    Args:
        earlier: What the model to go on from was trained with.
        table: Training rows of the same schema.
        semantic_types: What each column meant then, by name.
        rare_rows: Categories in fewer rows than this are protected, unless they are known already.

    Returns:
        The encodings, and for each token what its values go on from.

    Raises:
        CannotRefreshError: A column needs other tokens than before.
    """
    encodings: list[Encoding] = []
    carried: list[Carried] = []
    for field, known in zip(table.schema, earlier.encodings, strict=True):
        array = _one_array(table[field.name])
        if isinstance(known, CategoricalEncoding) and array.null_count < len(array):
            fitted: Encoding = known.extended(array, rare_rows=rare_rows)
        else:
            fitted = fit_encoding(field, array, semantic_types[field.name], rare_rows=rare_rows)
        if fitted.kind != known.kind:
            raise CannotRefreshError(
                f"Column {field.name!r} was learned as {known.kind}, and is {fitted.kind} now: train from nothing."
            )
        encodings.append(fitted)
        carried += fitted.carried_from(known)
    return RowEncoding(table.schema, tuple(encodings)), tuple(carried)


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
