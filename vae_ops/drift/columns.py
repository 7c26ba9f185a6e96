"""What moved in each column: missing values, shares of values, values that came or went, quantiles.

Every question is asked of two profiles of one column and answered by a `ColumnDrift`; the worst answer stands for the
column. `noise.py` says what chance does, `pairs.py` looks at two columns at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.drift.noise import fewest_telling, ks_noise, kuiper_noise, total_variation, variation_noise
from vae_ops.drift.records import ColumnDrift, Movement, movement_of, percent
from vae_ops.profiling import ColumnProfile
from vae_ops.schema import SemanticType, natural_type
from vae_ops.settings import RefreshSettings

__all__ = ["column_drifts"]

# Odds that anything of one kind exceeds its noise in a night in which nothing moved.
_DISTANCES_LEVEL = 0.005
_NOVELTIES_LEVEL = 0.0025
_DISTANCES_PER_COLUMN = 4
# Beside its values, a column has two ends of a range and may come to a standstill.
_NOVELTIES_PER_COLUMN = 3
# No model learns what fewer rows show; and of numbers that go on and on, it tells apart what so many rows share.
_FEWEST_ROWS = 5
_FEWEST_SHARE = 0.01
# A sketch's share of the largest error measured in a Kolmogorov-Smirnov distance, 0.0028 between a table in one piece
# and the same merged from nine; and rows, as a centroid holds at least one.
_RANK_ERROR, _RANK_ERROR_ROWS = 0.0015, 2
_RANKS = tuple(np.linspace(0.0, 1.0, 257).tolist())
# More rows of one value than a centroid of a t-digest holds, and how far, in shares of the rows, the outermost of them
# are spread.
_SHARED, _SMEAR = 0.005, 0.02
# The rows at the end of a range are smeared too, by less than this share.
_FEWEST_OUTSIDE = 0.001
# Numbers that moved by less, in standard deviations, are learned anew by a model that goes on.
_NEAR = 0.5
# Bounds go through decimal and single precision.
_ROUNDING = 1e-9
_LONGEST_SHOWN = 40
_FINITE = (-np.finfo(np.float64).max / 4, np.finfo(np.float64).max / 4)


def column_drifts(
    shared: Sequence[tuple[ColumnProfile, ColumnProfile]], schema: pa.Schema, settings: RefreshSettings
) -> list[ColumnDrift]:
    """What moved most in each column.

    Args:
        shared: The earlier and the later profile of every column that both tables have; where its type has changed,
            only missing values are compared.
        schema: That of the later table.
        settings: What counts as moved, large or broken.

    Returns:
        One record per column, in the same order.
    """
    columns = [_Column(old, new, schema.field(new.name).type) for old, new in shared]
    limits = _Limits.over(columns, settings)
    return [max(_answers(column, limits), key=lambda answer: answer.weight) for column in columns]


def _answers(column: "_Column", limits: "_Limits") -> Iterator[ColumnDrift]:
    yield _nulls(column, limits)
    if column.old.type != column.new.type:
        return
    yield from _standstill(column, limits)
    if column.is_identifier or not (column.old.known and column.new.known):
        return
    yield _shares(column, limits)
    if column.is_ordered:
        yield _quantiles(column, limits)
    # Time goes on by itself: what is later than ever counts by its share alone.
    if not column.is_temporal:
        yield from _novelties(column, limits)
        yield from _outside(column, limits)


class _Column:
    """One column in the earlier and in the later table."""

    def __init__(self, old: ColumnProfile, new: ColumnProfile, type_: pa.DataType) -> None:
        self.old, self.new, self.type, self.name = old, new, type_, new.name
        self.is_identifier = old.semantic_type == new.semantic_type == SemanticType.IDENTIFIER
        self.is_ordered = natural_type(type_) not in (SemanticType.CATEGORICAL, SemanticType.NULL)
        self.is_temporal = bool(pa.types.is_date(type_) or pa.types.is_timestamp(type_))
        self.is_listed = not (old.frequent_error or new.frequent_error)

    @cached_property
    def items(self) -> list[str]:
        """Values that either table lists."""
        return sorted(dict(self.old.frequent) | dict(self.new.frequent))

    def counts(self, side: ColumnProfile) -> NDArray[np.float64]:
        """Rows of each of `items`; 0 where it is not listed."""
        found = dict(side.frequent)
        return np.array([found.get(item, 0) for item in self.items], dtype=np.float64)

    def shown(self, value: float) -> str:
        """A number of the sketches as the column's own kind of value."""
        if not self.is_temporal:
            return f"{value:.6g}"
        whole = pa.scalar(round(value), pa.int32() if self.type.bit_width == 32 else pa.int64())
        try:
            return str(whole.cast(self.type))
        except (ValueError, OverflowError):
            # Arrow's calendar is longer than Python's.
            return f"{value:.6g}"


@dataclass(frozen=True)
class _Limits:
    """What an answer is held against.

    Attributes:
        settings: What counts as moved, large or broken.
        distance_level: Odds with which chance may exceed the noise of one distance.
        novelty_level: Odds with which one value, or end of a range, may only seem to have come or gone.
    """

    settings: RefreshSettings
    distance_level: float
    novelty_level: float

    @classmethod
    def over(cls, columns: Sequence[_Column], settings: RefreshSettings) -> Self:
        """Shares the odds of a false alarm out, so that those of a wide table are no higher."""
        distances = _DISTANCES_PER_COLUMN * len(columns)
        novelties = sum(_NOVELTIES_PER_COLUMN + len(column.items) for column in columns)
        return cls(settings, _DISTANCES_LEVEL / max(distances, 1), _NOVELTIES_LEVEL / max(novelties, 1))

    def movement(self, distance: float, noise: float, least: Movement = "quiet", most: Movement = "large") -> Movement:
        """What a distance amounts to, within bounds."""
        order: tuple[Movement, ...] = ("quiet", "moved", "large")
        found = order.index(movement_of(distance, noise, self.settings))
        return order[min(max(found, order.index(least)), order.index(most))]

    @property
    def broken(self) -> Movement:
        """What no world but a broken upstream makes."""
        return "large" if self.settings.broken_null_share is None else "broken"


# --- missing values ----------------------------------------------------------------------------------------------


def _nulls(column: _Column, limits: _Limits) -> ColumnDrift:
    before, now = (np.array([side.nulls, side.nans, side.known], dtype=np.float64) for side in (column.old, column.new))
    if not before.sum() or not now.sum():
        return ColumnDrift(column.name, "nulls", 0.0, 0.0, "quiet", f"Column {column.name!r} has no rows to compare.")
    distance, noise = total_variation(before, now), variation_noise(before, now, limits.distance_level)
    missing, missed = 1 - now[2] / now.sum(), 1 - before[2] / before.sum()
    sentence = (
        f"Column {column.name!r} lacks {percent(missing)} of its values, {percent(missed)} before; chance explains a "
        f"difference of {percent(noise)}."
    )
    most = limits.settings.broken_null_share
    if most is not None and missing - missed - noise > most:
        return ColumnDrift(column.name, "nulls", distance, noise, "broken", f"{sentence} {_REMEDY}")
    return ColumnDrift(column.name, "nulls", distance, noise, limits.movement(distance, noise), sentence)


def _standstill(column: _Column, limits: _Limits) -> Iterator[ColumnDrift]:
    """A column that varied and is all null or constant now, although chance would have left it other values."""
    old, new = column.old, column.new
    if not new.known:
        yield from _all_null(column, limits)
    elif not new.frequent_error and len(new.frequent) == 1:
        value = new.frequent[0][0]
        others = old.known - dict(old.frequent).get(value, 0) - old.frequent_error
        found = f"Column {column.name!r} holds nothing but {_short(value)}, where {{}} had other values before."
        yield from _stopped(column, others, old.known, new.known, found, limits)


def _all_null(column: _Column, limits: _Limits) -> Iterator[ColumnDrift]:
    found = f"Column {column.name!r} has no value at all, where {{}} had one before."
    yield from _stopped(column, column.old.known, column.old.rows, column.new.rows, found, limits)


def _stopped(
    column: _Column, others: int, rows: int, rows_now: int, found: str, limits: _Limits
) -> Iterator[ColumnDrift]:
    if not rows_now or others < fewest_telling(rows, rows_now, limits.novelty_level):
        return
    share, noise = others / rows, fewest_telling(rows, rows_now, limits.novelty_level) / rows
    movement = limits.broken if share > limits.settings.max_drift else "moved"
    sentence = found.format(f"{percent(share)} of the rows")
    aspect: Literal["categories", "nulls"] = "categories" if column.new.known else "nulls"
    remedy = f" {_REMEDY}" if movement == "broken" else ""
    yield ColumnDrift(column.name, aspect, share, noise, movement, sentence + remedy)


_REMEDY = (
    "That looks like a broken upstream: repair the source and run again or, if it is meant to be so, run once with "
    "--set refresh.broken_null_share=off."
)


# --- shares of values --------------------------------------------------------------------------------------------


def _shares(column: _Column, limits: _Limits) -> ColumnDrift:
    """The total variation between the shares of values, as far as the sketches are sure of it.

    Values of fewer than five rows count together. Counts may be too low by the error of their sketch, so the smaller of
    a value's two shares is raised by that much.
    """
    old, new = column.old, column.new
    chosen = np.flatnonzero(column.counts(old) + column.counts(new) >= _FEWEST_ROWS)
    before, now = column.counts(old)[chosen], column.counts(new)[chosen]
    lost = np.maximum(before / old.known - (now + new.frequent_error) / new.known, 0)
    gained = np.maximum(now / new.known - (before + old.frequent_error) / old.known, 0)
    distance = min(max(float(lost.sum()), float(gained.sum())), 1.0)
    noise = variation_noise(_with_others(before, old), _with_others(now, new), limits.distance_level)
    # Of numbers, `_quantiles` tells how far they moved; most of them may have moved by little.
    movement = limits.movement(distance, noise, most="moved" if column.is_ordered else "large")
    most = ""
    if distance > 0:
        index = int(np.argmax(np.maximum(lost, gained)))
        shares = f"from {percent(before[index] / old.known)} to {percent(now[index] / new.known)}"
        most = f", that of {_short(column.items[chosen[index]])} {shares}"
    sentence = (
        f"Column {column.name!r}: the shares of its values moved by {percent(distance)}{most}; chance explains "
        f"{percent(noise)}."
    )
    return ColumnDrift(column.name, "categories", distance, noise, movement, sentence)


def _with_others(counts: NDArray[np.float64], side: ColumnProfile) -> NDArray[np.float64]:
    return np.append(counts, max(side.known - counts.sum(), 0.0))


def _novelties(column: _Column, limits: _Limits) -> Iterator[ColumnDrift]:
    """Values that came or went: a model of the old table draws none of the ones and too many of the others."""
    for here, there, found in (
        (column.new, column.old, "new values, unseen before,"),
        (column.old, column.new, "lost values that stood"),
    ):
        counts = column.counts(here)
        telling = fewest_telling(here.known, there.known, limits.novelty_level, there.frequent_error)
        fewest = max(_FEWEST_ROWS, telling)
        if column.is_ordered and not column.is_listed:
            fewest = max(fewest, round(_FEWEST_SHARE * here.known))
        chosen = np.flatnonzero((column.counts(there) == 0) & (counts >= fewest))
        if len(chosen):
            yield _novelty(column, here, chosen[np.argsort(-counts[chosen])], fewest, found, limits)


def _novelty(
    column: _Column, here: ColumnProfile, chosen: NDArray[np.int64], fewest: int, found: str, limits: _Limits
) -> ColumnDrift:
    rows = int(column.counts(here)[chosen].sum())
    share, noise = rows / here.known, fewest / here.known
    listed = ", ".join(_short(column.items[index]) for index in chosen[:3]) + (", …" if len(chosen) > 3 else "")
    sentence = f"Column {column.name!r} has {found} in {rows:,} rows ({percent(share)}): {listed}."
    movement = limits.movement(share, noise, "moved", "moved" if column.is_ordered else "large")
    return ColumnDrift(column.name, "categories", share, noise, movement, sentence)


# --- order -------------------------------------------------------------------------------------------------------


def _quantiles(column: _Column, limits: _Limits) -> ColumnDrift:
    """The distances of Kolmogorov-Smirnov and of Kuiper; large by the share of rows that moved far.

    The first sees a shift best, the second a spread that changed about the middle.
    """
    points = _points_between(column)
    if not len(points):
        return ColumnDrift(column.name, "quantiles", 0.0, 0.0, "quiet", f"Column {column.name!r} has too few values.")
    before, now = (_shares_below(side, points) for side in (column.old, column.new))
    sizes, error = (column.old.known, column.new.known), _rank_error(column.old) + _rank_error(column.new)
    difference = now - before
    low, high = sorted([int(difference.argmin()), int(difference.argmax())])
    most = int(np.abs(difference).argmax())
    candidates = [
        (abs(difference[most]), ks_noise(*sizes, limits.distance_level) + error, [most]),
        (abs(difference[high] - difference[low]), kuiper_noise(*sizes, limits.distance_level) + 2 * error, [low, high]),
    ]
    distance, noise, ends = max(candidates, key=lambda candidate: candidate[0] - candidate[1])
    is_far = limits.movement(_share_far(column, points, before, now), candidates[0][1]) == "large"
    movement = limits.movement(distance, noise, most="large" if is_far else "moved")
    shares = [abs(float(np.diff(side[ends], prepend=0.0)[-1])) for side in (now, before)]
    where = " and ".join(column.shown(point) for point in points[ends])
    sentence = (
        f"Column {column.name!r}: {percent(shares[0])} of its values are {'between' if len(ends) > 1 else 'below'} "
        f"{where}, {percent(shares[1])} before; chance explains a difference of {percent(noise)}."
    )
    return ColumnDrift(column.name, "quantiles", float(distance), min(noise, 1.0), movement, sentence)


def _share_far(
    column: _Column, points: NDArray[np.float64], before: NDArray[np.float64], now: NDArray[np.float64]
) -> float:
    """The least share of rows that must have moved by more than `_NEAR` (Strassen, 1965)."""
    # At most a quarter of the largest double, so that no sum overflows.
    farther = np.clip(points, *_FINITE) + min(_NEAR * _deviation(column.old), _FINITE[1])
    before_near, now_near = (_shares_below(side, farther) for side in (column.old, column.new))
    return float(max((before - now_near).max(), (now - before_near).max(), 0.0))


def _deviation(side: ColumnProfile) -> float:
    """The standard deviation without the outermost percents, which may hold sentinels."""
    values = side.quantiles(_RANKS)[3:-3]
    scale = max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    return float((values / scale).std()) * scale


def _outside(column: _Column, limits: _Limits) -> Iterator[ColumnDrift]:
    """Values beyond the old range, which a model of the old table does not draw."""
    old, new = column.old, column.new
    if old.minimum is None or old.maximum is None:
        return
    low, high = float(old.minimum), float(old.maximum)
    room = _ROUNDING * max(abs(low), abs(high), np.finfo(np.float64).tiny)
    below, not_above = _shares_below(new, np.array([low - room, high + room]))
    fewest = max(_FEWEST_ROWS, fewest_telling(new.known, old.known, limits.novelty_level))
    if new.frequent_error:
        fewest = max(fewest, round(_FEWEST_OUTSIDE * new.known))
    for share, side, bound in ((float(below), "below", low), (float(1 - not_above), "above", high)):
        if round(share * new.known) >= fewest and not (new.frequent_error and bound in _shared_values(new)):
            yield _beyond(column, share, fewest / new.known, f"{side} {column.shown(bound)}", limits)


def _beyond(column: _Column, share: float, noise: float, where: str, limits: _Limits) -> ColumnDrift:
    sentence = (
        f"Column {column.name!r} has {round(share * column.new.known):,} values ({percent(share)}) {where}, where its "
        "range ended before."
    )
    movement = limits.movement(share, noise, "moved", "moved")
    return ColumnDrift(column.name, "quantiles", share, noise, movement, sentence)


def _points_between(column: _Column) -> NDArray[np.float64]:
    """Points halfway between values of the two tables, where sketches err least.

    None is near a value that many rows share, which a t-digest spreads over its neighbourhood: that is for `_shares`.
    """
    values = np.unique(np.concatenate([_values(side) for side in (column.old, column.new)]))
    points = np.unique(values[:-1] / 2 + values[1:] / 2)
    return points[~(_is_smeared(column.old, points) | _is_smeared(column.new, points))]


def _is_smeared(side: ColumnProfile, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    shared = _shared_values(side)
    if not side.frequent_error or not shared:
        return np.zeros(len(points), dtype=np.bool_)
    distances = np.abs(side.shares_below(points)[:, None] - side.shares_below(np.array(list(shared))))
    return np.asarray((distances < np.array(list(shared.values())) / 2 + _SMEAR).any(axis=1))


def _shared_values(side: ColumnProfile) -> dict[float, float]:
    """Numbers that many rows share, with their shares."""
    return {float(item): count / side.known for item, count in side.frequent if count >= _SHARED * side.known}


def _values(side: ColumnProfile) -> NDArray[np.float64]:
    if side.frequent_error:
        return side.quantiles(_RANKS)
    return np.sort(np.array([float(item) for item, _ in side.frequent]))


def _shares_below(side: ColumnProfile, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares of known values below each point: exact where all values are listed."""
    if side.frequent_error:
        return side.shares_below(points)
    listed = sorted((float(item), count) for item, count in side.frequent)
    ends = np.cumsum([0, *(count for _, count in listed)])
    return np.asarray(ends[np.searchsorted([value for value, _ in listed], points)] / side.known)


def _rank_error(side: ColumnProfile) -> float:
    return _RANK_ERROR + _RANK_ERROR_ROWS / side.known if side.frequent_error else 0.0


def _short(item: str) -> str:
    return repr(item if len(item) <= _LONGEST_SHOWN else f"{item[:_LONGEST_SHOWN]}…")
