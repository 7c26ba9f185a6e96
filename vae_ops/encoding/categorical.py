"""Categories: strings, binary values and dictionaries of anything.

Categories seen in few rows are protected. Where they are a small part of the column they are simply never sampled;
where they are much of it, pseudonyms stand for them, made to look alike by `pattern.py`. A vocabulary too large for one
token becomes two, in lexicographic order, so that codes with a common beginning share their first token.
"""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vae_ops.encoding.base import (
    NO_VALUE,
    NOT_APPLICABLE,
    Carried,
    Codes,
    Encoding,
    Token,
    array_from_text,
    array_to_text,
    unordered,
    without_view,
)
from vae_ops.encoding.pattern import StringPattern

__all__ = ["CategoricalEncoding"]

_MAX_ONE_TOKEN = 256
# Two tokens of 256 values each hold these, null, and the one value for all others.
_MAX_CATEGORIES = 2**16 - 2
# Protected categories that hold at most this share of the rows are left out rather than replaced.
_NEGLIGIBLE_SHARE = 0.05
_MAX_PSEUDONYMS = 1000
_MAX_INVENTED_BYTES = 64


class CategoricalEncoding(Encoding):
    """A column of unordered values: null, the kept categories, and one value for all protected ones."""

    kind: ClassVar[str] = "categorical"

    def __init__(
        self, field: pa.Field, *, has_null: bool, categories: pa.Array, protects: bool, pseudonyms: pa.Array
    ) -> None:
        """Assembles a fitted encoding; use `fit`.

        Args:
            field: The column's Arrow field.
            has_null: Whether null is one of the values.
            categories: Kept categories, in the order of their tokens.
            protects: Whether one more value stands for categories that are not kept.
            pseudonyms: What is emitted in their place; without any, the protected value is never sampled.
        """
        self.field = field
        self.has_null = has_null
        self.categories = categories
        self.protects = protects
        self.pseudonyms = pseudonyms
        self.size = has_null + len(categories) + protects
        self.fine = 1 if self.size <= _MAX_ONE_TOKEN else int(np.ceil(np.sqrt(self.size)))
        self.tokens = self._tokens()

    def _tokens(self) -> tuple[Token, ...]:
        blocked = (self.size - 1,) if self.protects and not len(self.pseudonyms) else ()
        if self.fine == 1:
            return (unordered(self.size, blocked=blocked),)
        return unordered(-(-self.size // self.fine)), unordered(self.fine, parent=0)

    @classmethod
    def fit(cls, field: pa.Field, array: pa.Array, *, rare_rows: int, known: pa.Array | None = None) -> Self:
        """Fits on the training values.

        Args:
            field: The column's Arrow field.
            array: Training values, with at least one that is not null.
            rare_rows: Categories in fewer rows than this are protected.
            known: Categories that an earlier fit kept; they are kept again, however rare they have become.
        """
        values = _plain(array)
        has_null = values.null_count > 0
        categories, rows = _counted(values.drop_null(), known)
        is_known = _are_among(categories, known)
        order = np.argsort(-rows, kind="stable")[:_MAX_CATEGORIES]
        kept = np.sort(order[(rows[order] >= rare_rows) | is_known[order]])
        protected = int(rows.sum() - rows[kept].sum())
        pseudonyms = categories.slice(0, 0)
        if protected > _NEGLIGIBLE_SHARE * rows.sum():
            pseudonyms = _pseudonyms(field.type, categories, kept, rare_rows)
        if not len(kept) and not len(pseudonyms):
            # Nothing else could be emitted: of numbers and of very short bytes there are no pseudonyms.
            kept, protected = np.sort(order[:_MAX_ONE_TOKEN]), 0
        chosen = categories.take(pa.array(kept))
        chosen = chosen.take(pc.array_sort_indices(_sortable(chosen)))
        return cls(field, has_null=has_null, categories=chosen, protects=protected > 0, pseudonyms=pseudonyms)

    def extended(self, array: pa.Array, *, rare_rows: int) -> Self:
        """A later fit that keeps these categories and takes up new ones; itself where they do not fit one token."""
        fitted = type(self).fit(self.field, array, rare_rows=rare_rows, known=self.categories)
        return fitted if self.fine == fitted.fine == 1 else self

    def carried_from(self, earlier: Self) -> tuple[Carried, ...]:
        """Categories from themselves, null from null, protected from protected; of two tokens, equal vocabularies."""
        if self.fine > 1:
            return tuple(np.arange(token.size) for token in self.tokens)
        carried = np.full(self.size, NO_VALUE, dtype=np.int64)
        if self.has_null and earlier.has_null:
            carried[0] = 0
        if self.protects and earlier.protects:
            carried[-1] = earlier.size - 1
        index = pc.index_in(self.categories, value_set=earlier.categories).fill_null(-1).to_numpy(zero_copy_only=False)
        begin = int(self.has_null)
        own = carried[begin : begin + len(index)]
        own[index >= 0] = index[index >= 0] + int(earlier.has_null)
        return (carried,)

    def encode(self, array: pa.Array) -> Codes:
        """Codes of shape (n, 1 or 2); a category never seen counts as protected, or as the first where none is."""
        values = _plain(array)
        index = pc.index_in(values, value_set=self.categories)
        flat = index.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        unknown = self.size - 1 if self.protects else int(self.has_null)
        flat = np.where(flat >= 0, flat + self.has_null, unknown)
        if self.has_null:
            flat[values.is_null().to_numpy(zero_copy_only=False)] = 0
        if self.fine == 1:
            return Codes.of(flat)
        return Codes.of(np.column_stack([flat // self.fine, flat % self.fine]))

    def decode(self, codes: Codes, first_row: int) -> pa.Array:
        """Categories; a protected one becomes a pseudonym, or a kept category where the column has none."""
        tokens, instead_of = codes.tokens, codes.fractions[:, -1].astype(np.float64)
        flat = tokens[:, 0].astype(np.int64)
        if self.fine > 1:
            flat = np.minimum(
                flat * self.fine + np.where(tokens[:, 1] == NOT_APPLICABLE, 0, tokens[:, 1]), self.size - 1
            )
        index = flat - self.has_null
        if self.protects:
            first, count = (
                (len(self.categories), len(self.pseudonyms)) if len(self.pseudonyms) else (0, len(self.categories))
            )
            instead = first + np.minimum((instead_of * count).astype(np.int64), count - 1)
            index = np.where(flat == self.size - 1, instead, index)
        missing = index < 0
        dictionary = pa.concat_arrays([self.categories, self.pseudonyms])
        return _of_type(pa.array(np.where(missing, 0, index), mask=missing), dictionary, self.field.type)

    def state(self) -> dict[str, Any]:
        """Flags, and the categories as Arrow arrays in text."""
        return {
            "has_null": self.has_null,
            "categories": array_to_text(self.categories),
            "protects": self.protects,
            "pseudonyms": array_to_text(self.pseudonyms),
        }

    @classmethod
    def from_state(cls, field: pa.Field, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        return cls(
            field,
            has_null=state["has_null"],
            categories=array_from_text(state["categories"]),
            protects=state["protects"],
            pseudonyms=array_from_text(state["pseudonyms"]),
        )


def _counted(values: pa.Array, known: pa.Array | None) -> tuple[pa.Array, NDArray[np.int64]]:
    """Distinct values and their rows; known ones that are missing now stand at the end, with none."""
    counts = pc.value_counts(values)
    found, rows = counts.field(0), counts.field(1).to_numpy(zero_copy_only=False)
    if known is None:
        return found, rows
    missing = known.filter(pc.invert(pc.is_in(known, value_set=found)))
    return pa.concat_arrays([found, missing]), np.concatenate([rows, np.zeros(len(missing), dtype=np.int64)])


def _are_among(categories: pa.Array, known: pa.Array | None) -> NDArray[np.bool_]:
    if known is None:
        return np.zeros(len(categories), dtype=bool)
    return np.asarray(pc.is_in(categories, value_set=known).to_numpy(zero_copy_only=False), dtype=bool)


def _plain(array: pa.Array) -> pa.Array:
    """The values without dictionary or view, for which Arrow has no compute kernels."""
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    return array.cast(without_view(kind))


def _sortable(categories: pa.Array) -> pa.Array:
    return categories.cast(pa.string()) if pa.types.is_boolean(categories.type) else categories


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _of_type(indices: pa.Array, dictionary: pa.Array, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(kind):
        return dictionary.take(indices).cast(kind)
    return pa.DictionaryArray.from_arrays(indices.cast(kind.index_type), dictionary, ordered=kind.ordered)


def _pseudonyms(kind: pa.DataType, categories: pa.Array, kept: NDArray[np.int64], rare_rows: int) -> pa.Array:
    """Values that look like the categories that are not kept, none of them real; without a way to invent any, none."""
    most = _MAX_PSEUDONYMS
    if pa.types.is_dictionary(kind) and kind.index_type.bit_width == 8:
        most = max(127 - len(kept), 0)
    hidden = categories.filter(pa.array(np.isin(np.arange(len(categories)), kept, invert=True)))
    invented: Iterator[bytes | str] = iter(())
    if _is_binary(hidden.type):
        invented = _invented_bytes(hidden)
    elif pa.types.is_string(hidden.type) or pa.types.is_large_string(hidden.type):
        invented = map(StringPattern.fit(hidden.to_pylist(), shared_by=rare_rows).string, itertools.count())
    real = set(categories.to_pylist())
    chosen = itertools.islice((value for value in invented if value not in real), min(most, len(hidden)))
    return pa.array(list(chosen), type=hidden.type)


def _invented_bytes(hidden: pa.Array) -> Iterator[bytes]:
    """Random values of the hidden ones' lengths; they end, because of short ones there are few."""
    rng = np.random.default_rng(0)
    fixed = hidden.type.byte_width if pa.types.is_fixed_size_binary(hidden.type) else None
    seen: set[bytes] = set()
    for value in hidden.to_pylist():
        invented = rng.bytes(fixed or min(len(value), _MAX_INVENTED_BYTES))
        if invented not in seen:
            seen.add(invented)
            yield invented
