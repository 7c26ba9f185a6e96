"""Dates and timestamps: a day, its weekday and the time of day, over exact ticks.

A column with few distinct values, or within a few days, is an ordered number like any other (`numeric.py`). Otherwise
day and time of day are coded apart, so that office hours and weekends survive although no single instant repeats. Ticks
of zoned timestamps count in UTC, and so do the days here; the zone itself is part of the Arrow type.
"""

from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.encoding.base import NO_VALUE, NOT_APPLICABLE, Carried, Codes, Encoding, Token
from vae_ops.encoding.lattice import from_numbers, to_numbers
from vae_ops.encoding.quantile import QuantileCoder

__all__ = ["TemporalEncoding", "has_calendar"]

_SECONDS_PER_DAY = 86_400
_TICKS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Shorter spans have no week to learn; fewer distinct values are learned one by one.
_MIN_DAYS = 21
_MIN_DISTINCT = 251


def has_calendar(field: pa.Field, array: pa.Array) -> bool:
    """Whether a date or timestamp column is long and fine enough for days and times of day to be coded apart."""
    lattice = to_numbers(array)
    ticks = lattice.numbers[~lattice.null]
    if not len(ticks):
        return False
    days = int(ticks.max()) // _ticks_per_day(field.type) - int(ticks.min()) // _ticks_per_day(field.type)
    return days >= _MIN_DAYS and len(np.unique(ticks)) >= _MIN_DISTINCT


class TemporalEncoding(Encoding):
    """A date or timestamp column as day, weekday and time of day."""

    kind: ClassVar[str] = "temporal"

    def __init__(
        self, field: pa.Field, *, has_null: bool, days: QuantileCoder, times: QuantileCoder, span: tuple[int, int]
    ) -> None:
        """Assembles a fitted encoding; use `fit`. `span` holds the first and the last tick seen."""
        self.field = field
        self.has_null = has_null
        self.days = days
        self.times = times
        self.span = span
        self._ticks = _ticks_per_day(field.type)
        self.tokens = self._tokens()

    def _tokens(self) -> tuple[Token, ...]:
        specials = int(self.has_null)
        days = np.concatenate([np.zeros((specials, 2), dtype=np.float32), self.days.spans])
        weekday = np.zeros((7, 2), dtype=np.float32)
        return (
            Token(len(days), days, first_bin=specials + len(self.days.exact)),
            Token(7, weekday, first_bin=7, parent=0, parent_from=specials),
            Token(self.times.size, self.times.spans, len(self.times.exact), parent=0, parent_from=specials),
        )

    @classmethod
    def fit(cls, field: pa.Field, array: pa.Array) -> Self:
        """Fits on the training values, for which `has_calendar` holds."""
        lattice = to_numbers(array)
        ticks = lattice.numbers[~lattice.null]
        days, times = (QuantileCoder.fit(part) for part in _split(ticks, _ticks_per_day(field.type)))
        span = (int(ticks.min()), int(ticks.max()))
        return cls(field, has_null=bool(lattice.null.any()), days=days, times=times, span=span)

    def encode(self, array: pa.Array) -> Codes:
        """Codes of shape (n, 3): day, weekday, time of day."""
        lattice = to_numbers(array)
        days, times = _split(lattice.numbers, self._ticks)
        (day, in_day), (time, in_time) = self.days.encode(days), self.times.encode(times)
        tokens = np.column_stack([day + self.has_null, _weekday(days), time])
        if self.has_null:
            tokens[lattice.null] = (0, NOT_APPLICABLE, NOT_APPLICABLE)
        fractions = np.column_stack([in_day, np.full(len(array), 0.5), in_time])
        fractions[lattice.null] = 0.5
        return Codes.of(tokens, fractions)

    def decode(self, codes: Codes, first_row: int) -> pa.Array:
        """Instants inside the span: a day of the day's bin, moved to the nearest with the weekday, and a time."""
        tokens, fractions = codes.tokens, codes.fractions
        null = (tokens[:, 0] == 0) if self.has_null else np.zeros(len(tokens), dtype=bool)
        safe = np.maximum(tokens - np.array([self.has_null, 0, 0], dtype=np.int32), 0)
        days = self.days.decode(safe[:, 0], fractions[:, 0]).astype(np.int64)
        if self.days.bins:
            days = self._on_weekday(days, safe[:, 1])
        times = self.times.decode(safe[:, 2], fractions[:, 2]).astype(np.int64)
        (first_day, last_day), (first_time, last_time) = _split(np.array(self.span), self._ticks)
        times = np.where(days == first_day, np.maximum(times, first_time), times)
        times = np.where(days == last_day, np.minimum(times, last_time), times)
        return from_numbers(days * self._ticks + times, null, np.zeros(len(tokens), dtype=bool), self.field.type)

    def _on_weekday(self, days: NDArray[np.int64], weekday: NDArray[np.int32]) -> NDArray[np.int64]:
        moved = days + (weekday - _weekday(days) + 3) % 7 - 3
        low, high = int(self.days.knots[0]), int(self.days.knots[-1])
        moved = np.where(moved < low, moved + 7, moved)
        moved = np.where(moved > high, moved - 7, moved)
        return np.clip(moved, low, high)

    def carried_from(self, earlier: Self) -> tuple[Carried, ...]:
        """Null from null, weekdays from themselves, days and times as their coders say."""
        days = self.days.carried_from(earlier.days) + int(earlier.has_null)
        if self.has_null:
            days = np.concatenate([[0 if earlier.has_null else NO_VALUE], days])
        return days, np.arange(7), self.times.carried_from(earlier.times)

    def state(self) -> dict[str, Any]:
        """The states of both coders, and the span."""
        coders = {"days": self.days.state(), "times": self.times.state()}
        return {"has_null": self.has_null, "span": list(self.span), **coders}

    @classmethod
    def from_state(cls, field: pa.Field, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        days, times = QuantileCoder.from_state(state["days"]), QuantileCoder.from_state(state["times"])
        first, last = state["span"]
        return cls(field, has_null=state["has_null"], days=days, times=times, span=(first, last))


def _ticks_per_day(kind: pa.DataType) -> int:
    if pa.types.is_date32(kind):
        return 1
    return _SECONDS_PER_DAY * (10**3 if pa.types.is_date64(kind) else _TICKS_PER_SECOND[kind.unit])


def _split(ticks: NDArray[Any], per_day: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    days = np.floor_divide(ticks.astype(np.int64), per_day)
    return days, ticks.astype(np.int64) - days * per_day


def _weekday(days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Day of the week, 0 = Monday; day 0 of the Unix epoch was a Thursday."""
    return (days + 3) % 7
