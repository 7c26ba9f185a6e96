"""Dates and timestamps: a day, its weekday and the time of day, over exact ticks.

A column with few distinct values, or within a few days, is an ordered number like any other (`numeric.py`). Otherwise
day and time of day are coded apart, so that office hours and weekends survive although no single instant repeats. Ticks
of zoned timestamps count in UTC, and so do the days here; the zone itself is part of the Arrow type.
"""

from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.encoding.base import NOT_APPLICABLE, Encoding, Token, Tokens
from vae_ops.encoding.lattice import from_numbers, to_numbers
from vae_ops.encoding.numeric import coder_tokens
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
    """A date or timestamp column as day (coarse, fine), weekday, and time of day (coarse, fine)."""

    kind: ClassVar[str] = "temporal"

    def __init__(self, field: pa.Field, *, has_null: bool, days: QuantileCoder, times: QuantileCoder) -> None:
        """Assembles a fitted encoding; use `fit`."""
        self.field = field
        self.has_null = has_null
        self.days = days
        self.times = times
        self._ticks = _ticks_per_day(field.type)
        self.tokens = self._tokens()

    def _tokens(self) -> tuple[Token, ...]:
        tokens = list(coder_tokens(self.days, int(self.has_null)))
        self._day_tokens = len(tokens)
        if self.days.bins:
            size = (tokens[0].size, 7)
            tokens.append(Token(7, np.zeros(size, dtype=np.float32), parent=0, parent_from=int(self.has_null)))
        self._first_time = len(tokens)
        if len(self.times.exact) != 1 or self.times.bins:
            coarse, *fine = coder_tokens(self.times, 0, first=len(tokens))
            by_parent = np.broadcast_to(coarse.positions, (tokens[0].size, coarse.size))
            tokens += [Token(coarse.size, by_parent, parent=0, parent_from=int(self.has_null)), *fine]
        return tuple(tokens)

    @classmethod
    def fit(cls, field: pa.Field, array: pa.Array) -> Self:
        """Fits on the training values, for which `has_calendar` holds."""
        lattice = to_numbers(array)
        days, times = _split(lattice.numbers[~lattice.null], _ticks_per_day(field.type))
        return cls(
            field, has_null=bool(lattice.null.any()), days=QuantileCoder.fit(days), times=QuantileCoder.fit(times)
        )

    def encode(self, array: pa.Array) -> Tokens:
        """Tokens of shape (n, len(self.tokens))."""
        lattice = to_numbers(array)
        days, times = _split(lattice.numbers, self._ticks)
        tokens = np.full((len(array), len(self.tokens)), NOT_APPLICABLE, dtype=np.int32)
        coded = self.days.encode(days)
        tokens[:, 0] = coded[:, 0] + self.has_null
        if self.days.bins:
            tokens[:, 1] = coded[:, 1]
            tokens[:, 2] = _weekday(days)
        width = len(self.tokens) - self._first_time
        tokens[:, self._first_time :] = self.times.encode(times)[:, :width]
        if self.has_null:
            tokens[lattice.null] = NOT_APPLICABLE
            tokens[lattice.null, 0] = 0
        return tokens

    def decode(self, tokens: Tokens, rng: np.random.Generator, first_row: int) -> pa.Array:
        """Instants whose day lies in the day's bin, moved to the nearest day with the weekday, and on the tick grid."""
        null = (tokens[:, 0] == 0) if self.has_null else np.zeros(len(tokens), dtype=bool)
        safe = np.maximum(tokens, 0)
        fine = safe[:, 1] if self.days.bins else safe[:, 0]
        days = self.days.decode(np.maximum(safe[:, 0] - self.has_null, 0), fine, rng).astype(np.int64)
        if self.days.bins:
            days = self._on_weekday(days, safe[:, 2])
        times = np.full(len(tokens), self.times.exact[0] if len(self.times.exact) else 0, dtype=np.int64)
        if self._first_time < len(self.tokens):
            fine = safe[:, -1] if self.times.bins else safe[:, 0]
            times = self.times.decode(safe[:, self._first_time], fine, rng).astype(np.int64)
        return from_numbers(days * self._ticks + times, null, np.zeros(len(tokens), dtype=bool), self.field.type)

    def _on_weekday(self, days: NDArray[np.int64], weekday: NDArray[np.int32]) -> NDArray[np.int64]:
        moved = days + (weekday - _weekday(days) + 3) % 7 - 3
        low, high = int(self.days.knots[0]), int(self.days.knots[-1])
        moved = np.where(moved < low, moved + 7, moved)
        moved = np.where(moved > high, moved - 7, moved)
        return np.clip(moved, low, high)

    def state(self) -> dict[str, Any]:
        """The states of both coders."""
        return {"has_null": self.has_null, "days": self.days.state(), "times": self.times.state()}

    @classmethod
    def from_state(cls, field: pa.Field, state: dict[str, Any]) -> Self:
        """The inverse of `state`."""
        days, times = QuantileCoder.from_state(state["days"]), QuantileCoder.from_state(state["times"])
        return cls(field, has_null=state["has_null"], days=days, times=times)


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
