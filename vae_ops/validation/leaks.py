"""Single values that give a person away: rare categories and extremes that reached the synthetic rows verbatim.

`privacy.py` judges how many there are; whole rows are its own business. What the encodings protect is decided in
`vae_ops/encoding/`, here it is only looked at from outside.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vae_ops.schema import SemanticType
from vae_ops.validation.columns import CategoryColumn, NumberColumn, encode_tables
from vae_ops.validation.evidence import Leak, LeakCount

__all__ = ["EXTREME", "RARE_CATEGORY", "find_leaks"]

RARE_CATEGORY, EXTREME = "rare category", "extreme"
MAX_LISTED = 50
LONGEST_VALUE = 200
SIGMAS = 2.0


@dataclass(frozen=True)
class _AtRisk:
    """A value that few training rows hold.

    Attributes:
        kind: As in `Leak`.
        column: Where.
        text: The value for a person.
        training: Training rows that hold it.
        synthetic: Synthetic rows that hold it.
        chance: That at least one of as many fresh real rows would hold it, at most.
    """

    kind: str
    column: str
    text: str
    training: int
    synthetic: int
    chance: float


def find_leaks(
    training: pa.Table, synthetic: pa.Table, semantic_types: Mapping[str, SemanticType], *, rare_rows: int
) -> tuple[tuple[Leak, ...], tuple[LeakCount, ...]]:
    """Looks for categories of fewer than `rare_rows` training rows, and for extremes of one row, in synthetic rows.

    Args:
        training: All training rows.
        synthetic: Synthetic rows of the same schema.
        semantic_types: Columns to look at; categories and numbers, dates and times are.
        rare_rows: A category of this many training rows is not rare.

    Returns:
        What leaked, the rarest first and at most 50, and the counts of both kinds of all that was at risk.
    """
    values = [
        value
        for name, semantic_type in semantic_types.items()
        for value in _values_at_risk(training, synthetic, name, semantic_type, rare_rows)
    ]
    leaked = sorted(
        (value for value in values if value.synthetic), key=lambda value: (value.training, -value.synthetic)
    )
    leaks = (Leak(value.column, value.kind, value.text, value.training, value.synthetic) for value in leaked)
    counts = tuple(_count(kind, [value for value in values if value.kind == kind]) for kind in (RARE_CATEGORY, EXTREME))
    return tuple(leaks)[:MAX_LISTED], counts


def _count(kind: str, values: list[_AtRisk]) -> LeakCount:
    chances = np.array([value.chance for value in values])
    expected = chances.sum() + SIGMAS * math.sqrt((chances * (1 - chances)).sum())
    noise = min(100.0, 100 * float(expected) / max(len(values), 1))
    return LeakCount(kind, len(values), sum(value.synthetic > 0 for value in values), noise)


def _values_at_risk(
    training: pa.Table, synthetic: pa.Table, name: str, semantic_type: SemanticType, rare_rows: int
) -> Iterator[_AtRisk]:
    if semantic_type in (SemanticType.IDENTIFIER, SemanticType.BOOLEAN):
        return iter(())  # an identifier is invented anew and never compared; True and False tell nothing by themselves
    real, drawn = (table[name] for table in encode_tables([training, synthetic], {name: semantic_type}))
    if isinstance(real, CategoryColumn) and isinstance(drawn, CategoryColumn):
        return _rare_categories(name, real, drawn, rare_rows)
    if isinstance(real, NumberColumn) and isinstance(drawn, NumberColumn):
        return _extremes(training.column(name), name, real, drawn)
    return iter(())


def _rare_categories(name: str, real: CategoryColumn, drawn: CategoryColumn, rare_rows: int) -> Iterator[_AtRisk]:
    counts, emitted = (np.bincount(column.codes, minlength=real.size) for column in (real, drawn))
    if real.values is not None:
        counts[pc.is_null(real.values).to_numpy(zero_copy_only=False)] = 0
    chances = _chances(counts, int(counts.sum()), len(drawn.codes), rare_rows)
    for code in np.flatnonzero((counts > 0) & (counts < rare_rows)):
        count = int(counts[code])
        # Text is made for what is shown, not for a hundred thousand categories at risk.
        text = _text(real.values[int(code)]) if emitted[code] and real.values is not None else ""
        yield _AtRisk(RARE_CATEGORY, name, text, count, int(emitted[code]), chances[count])


def _extremes(column: pa.ChunkedArray, name: str, real: NumberColumn, drawn: NumberColumn) -> Iterator[_AtRisk]:
    present = np.flatnonzero(real.missing == 0)
    if not len(present):
        return
    values = real.values[present]
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < 2:
        return
    chance = _chances(counts, len(values), int((drawn.missing == 0).sum()), 2)[1]
    for position in (0, -1):
        if counts[position] == 1:
            row = present[int(np.argmax(values == distinct[position]))]
            text = _text(column[int(row)])
            yield _AtRisk(EXTREME, name, text, 1, int((drawn.values == distinct[position]).sum()), chance)


def _text(value: pa.Scalar) -> str:
    """A value as text, cut when very long; by Arrow, because Python's dates end where Arrow's do not."""
    plain = value.as_py().hex() if _is_binary(value.type) else value.cast(pa.string()).as_py()
    text = str(plain)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _is_binary(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(is_kind(type_) for is_kind in kinds)


def _chances(counts: NDArray[np.int64], rows: int, fresh: int, rare_rows: int) -> list[float]:
    """Chance, by count, that a value held by so many training rows is held by one of `fresh` further real rows.

    A value's share among further rows is not its share among the training rows: where every name occurs once, none of
    them comes again. Good and Turing's estimate (Good, Biometrika 40, 1953) puts it at (c + 1) N(c + 1) / N(c) / rows,
    with N(c) values of count c; for N(c + 1), twice its standard error more is allowed.
    """
    alike = np.bincount(counts[counts <= rare_rows], minlength=rare_rows + 1)
    chances = [0.0]
    for count in range(1, rare_rows):
        next_alike = alike[count + 1] + SIGMAS * math.sqrt(alike[count + 1] + 1) + 1
        share = min(1.0, (count + 1) * next_alike / max(alike[count], 1) / max(rows, 1))
        chances.append(1.0 - (1.0 - share) ** fresh)
    return chances
