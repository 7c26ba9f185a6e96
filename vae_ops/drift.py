"""What moved between two profiles of a table: each column and pair, against what chance does to tables of these sizes.

`profiling.py` makes the profiles, with the few sampled rows that pairs are judged by; `decision.py` says what follows
from a drift.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import bdtr, chdtri, gammaln

from vae_ops.profiling import ColumnProfile, Profile
from vae_ops.schema import SemanticType
from vae_ops.settings import RefreshSettings

__all__ = ["CALMEST_FIRST", "ColumnDrift", "Drift", "Movement", "PairDrift", "measure_drift"]

Movement = Literal["quiet", "moved", "large", "schema", "broken"]
CALMEST_FIRST: tuple[Movement, ...] = ("quiet", "moved", "large", "schema", "broken")

# Odds that anything of one kind exceeds its noise in a night in which nothing moved; one percent together.
_COLUMNS_LEVEL = 0.005
_NOVELTIES_LEVEL = 0.0025
_PAIRS_LEVEL = 0.0025
# What fewer rows show, no model learns; and their counts are not normal.
_FEWEST_ROWS = 5
# Measured between the values of continuous and of rounded columns: 0.4 % at most, and two rows of a small table.
_RANK_ERROR, _RANK_ERROR_ROWS = 0.004, 2
_RANKS = tuple(np.linspace(0.0, 1.0, 257).tolist())
_MOST_PAIRS = 100
_MOST_PAIRED = 300
_MOST_PARTS = 600
_PARTS_PER_COLUMN = 6
_PERMUTATIONS = 100
_LONGEST_SHOWN = 40


@dataclass(frozen=True)
class ColumnDrift:
    """What moved most in one column.

    Attributes:
        column: Its name.
        aspect: `new`, `gone`, `retyped`, `nulls`, `categories` or `quantiles`.
        distance: 0 (equal) to 1.
        noise: The distance that chance alone may cause at these sizes.
        movement: What it amounts to.
        sentence: The same for a person.
    """

    column: str
    aspect: Literal["new", "gone", "retyped", "nulls", "categories", "quantiles"]
    distance: float
    noise: float
    movement: Movement
    sentence: str


@dataclass(frozen=True)
class PairDrift:
    """How far the dependence of two columns moved, beyond what either column did alone.

    Attributes:
        first: A column.
        second: Another.
        distance: 0 (equal) to 1.
        noise: The distance that chance alone may cause at these sizes.
        movement: What it amounts to.
        sentence: The same for a person.
    """

    first: str
    second: str
    distance: float
    noise: float
    movement: Movement
    sentence: str


@dataclass(frozen=True)
class Drift:
    """What moved between two profiles.

    Attributes:
        movement: The worst of all columns and pairs.
        rows_reference: Rows of the earlier table.
        rows: Rows of the later one.
        columns: Every column, the worst first.
        pairs: The pairs that were looked at, the worst first; of many only the first hundred.
    """

    movement: Movement
    rows_reference: int
    rows: int
    columns: tuple[ColumnDrift, ...]
    pairs: tuple[PairDrift, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What moved, the worst first; empty where nothing did."""
        moved: list[ColumnDrift | PairDrift] = [*self.columns, *self.pairs]
        moved = [part for part in moved if part.movement != "quiet"]
        moved.sort(key=lambda part: CALMEST_FIRST.index(part.movement), reverse=True)
        return tuple(part.sentence for part in moved)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values, as `asdict` and JSON leave them."""
        columns = tuple(ColumnDrift(**column) for column in values["columns"])
        return cls(**{**values, "columns": columns, "pairs": tuple(PairDrift(**pair) for pair in values["pairs"])})


def measure_drift(reference: Profile, current: Profile, settings: RefreshSettings) -> Drift:
    """Measures what moved from one profile of a table to another.

    The noise of a finding is what two samples of one table, as large as these two, exceed by chance in any column or
    pair in about one of a hundred nights.

    Args:
        reference: The earlier table, such as the one that a model learned.
        current: The later one.
        settings: What counts as moved, large or broken.

    Raises:
        BundleError: The sampled rows of a profile are damaged.
    """
    old = {column.name: column for column in reference.columns}
    new = {column.name: column for column in current.columns}
    shared = [(old[name], new[name]) for name in new if name in old and _stored_as(old[name]) == _stored_as(new[name])]
    columns = [*_schema_drifts(old, new), *_column_drifts(shared, current.schema, settings)]
    names = [column.name for column, _ in shared if not _is_trivial(column)]
    pairs = _pair_drifts(reference, current, names, settings)
    movements = [*(column.movement for column in columns), *(pair.movement for pair in pairs)]
    return Drift(
        movement=max(movements, key=CALMEST_FIRST.index, default="quiet"),
        rows_reference=reference.rows,
        rows=current.rows,
        columns=tuple(sorted(columns, key=_weight, reverse=True)),
        pairs=tuple(sorted(pairs, key=_weight, reverse=True)[:_MOST_PAIRS]),
    )


def _weight(part: ColumnDrift | PairDrift) -> tuple[int, float]:
    return CALMEST_FIRST.index(part.movement), part.distance - part.noise


def _movement(distance: float, noise: float, settings: RefreshSettings) -> Movement:
    beyond = distance - noise
    if beyond > settings.retrain_drift:
        return "large"
    return "moved" if beyond > settings.max_drift else "quiet"


# --- schema ------------------------------------------------------------------------------------------------------


def _schema_drifts(old: Mapping[str, ColumnProfile], new: Mapping[str, ColumnProfile]) -> Iterator[ColumnDrift]:
    for name, column in new.items():
        if name not in old:
            yield _schema_drift(name, "new", f"Column {name!r} is new: {_stored_as(column)}.")
        elif _stored_as(column) != _stored_as(old[name]):
            sentence = f"Column {name!r} was {_stored_as(old[name])} and is {_stored_as(column)} now."
            yield _schema_drift(name, "retyped", sentence)
    for name, column in old.items():
        if name not in new:
            yield _schema_drift(name, "gone", f"Column {name!r} is gone; it was {_stored_as(column)}.")


def _schema_drift(name: str, aspect: Literal["new", "gone", "retyped"], sentence: str) -> ColumnDrift:
    return ColumnDrift(name, aspect, distance=1.0, noise=0.0, movement="schema", sentence=sentence)


def _stored_as(column: ColumnProfile) -> str:
    return column.type if column.nullable else f"{column.type} without nulls"


# --- columns -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Levels:
    """The odds of a false alarm that one test may have, so that all tests of a night together stay below one percent.

    Attributes:
        distance: Of one distance of one column.
        novelty: That one category or one end of a range only seems to have come or gone.
    """

    distance: float
    novelty: float

    @classmethod
    def over(cls, columns: Sequence["_Column"]) -> Self:
        novelties = sum(len(column.items) + 2 for column in columns)
        return cls(_COLUMNS_LEVEL / max(3 * len(columns), 1), _NOVELTIES_LEVEL / max(novelties, 1))


def _column_drifts(
    shared: Sequence[tuple[ColumnProfile, ColumnProfile]], schema: pa.Schema, settings: RefreshSettings
) -> list[ColumnDrift]:
    columns = [_Column(old, new, schema.field(new.name).type) for old, new in shared]
    levels = _Levels.over(columns)
    return [max(_findings(column, levels, settings), key=_weight) for column in columns]


def _findings(column: "_Column", levels: _Levels, settings: RefreshSettings) -> Iterator[ColumnDrift]:
    yield column.nulls(levels, settings)
    if column.is_identifier or not (column.old.known and column.new.known):
        return
    yield column.categories(levels, settings)
    yield from column.novelties(levels, settings)
    if column.points.size:
        yield column.quantiles(levels, settings)
        yield from column.outside(levels, settings)


class _Column:
    """One column in the earlier and in the later table."""

    def __init__(self, old: ColumnProfile, new: ColumnProfile, type_: pa.DataType) -> None:
        self.old, self.new, self.type = old, new, type_
        self.is_identifier = old.semantic_type == new.semantic_type == SemanticType.IDENTIFIER
        before, now = dict(old.frequent), dict(new.frequent)
        self.items = [] if self.is_identifier else sorted({**before, **now})
        self.before = np.array([before.get(item, 0) for item in self.items], dtype=np.float64)
        self.now = np.array([now.get(item, 0) for item in self.items], dtype=np.float64)
        self.points = _points_between(old, new)

    @property
    def is_temporal(self) -> bool:
        return bool(pa.types.is_date(self.type) or pa.types.is_timestamp(self.type))

    @property
    def is_all_listed(self) -> bool:
        """Whether every value and its exact count is known in both tables."""
        return not (self.old.frequent_error or self.new.frequent_error)

    def nulls(self, levels: _Levels, settings: RefreshSettings) -> ColumnDrift:
        """The shares of nulls, NaN and values; more of the first two may be the work of a broken upstream."""
        before, now = (np.array([c.nulls, c.nans, c.known], dtype=np.float64) for c in (self.old, self.new))
        distance = _variation(before, now)
        noise = _variation_noise(before, now, levels.distance)
        movement = _movement(distance, noise, settings)
        missing = [1 - side.known / max(side.rows, 1) for side in (self.old, self.new)]
        most = settings.broken_null_share
        sentence = (
            f"Column {self.old.name!r} lacks {_percent(missing[1])} of its values, where {_percent(missing[0])} lacked "
            f"before; chance explains {_percent(noise)}."
        )
        if most is not None and missing[1] - missing[0] - noise > most:
            movement = "broken"
            sentence = f"{sentence} {_remedy('refresh.broken_null_share=off')}"
        elif self._stopped(self.old.known, self.new.known, levels):
            movement = "large" if most is None else "broken"
            sentence = f"Column {self.old.name!r} is all null, where {_percent(missing[0])} was null before. "
            sentence += _remedy("refresh.broken_null_share=off")
        return ColumnDrift(self.old.name, "nulls", distance, noise, movement, sentence)

    def categories(self, levels: _Levels, settings: RefreshSettings) -> ColumnDrift:
        """The total variation of the shares of categories, as far as the sketches are sure of it."""
        before, now = self.before / self.old.known, self.now / self.new.known
        slack = [self.old.frequent_error / self.old.known, self.new.frequent_error / self.new.known]
        lost, gained = np.maximum(before - now - slack[1], 0), np.maximum(now - before - slack[0], 0)
        distance = float(min(max(lost.sum(), gained.sum()), 1.0))
        noise = _variation_noise(_with_rest(self.before, self.old), _with_rest(self.now, self.new), levels.distance)
        sentence = f"Column {self.old.name!r}: its shares of values are as they were."
        if distance > 0:
            most = int(np.argmax(np.maximum(lost, gained)))
            sentence = (
                f"Column {self.old.name!r}: the shares of its values moved by {_percent(distance)}, that of "
                f"{_short(self.items[most])} from {_percent(before[most])} to {_percent(now[most])}; chance explains "
                f"{_percent(noise)}."
            )
        return ColumnDrift(self.old.name, "categories", distance, noise, _movement(distance, noise, settings), sentence)

    def novelties(self, levels: _Levels, settings: RefreshSettings) -> Iterator[ColumnDrift]:
        """Values that came or went: few rows of one tell more than its share does."""
        if self.is_temporal:
            return
        for came in (True, False):
            counts, others = (self.now, self.before) if came else (self.before, self.now)
            here, there = (self.new, self.old) if came else (self.old, self.new)
            found = np.flatnonzero((others == 0) & (counts >= self._fewest(here)))
            found = found[_odds_of_absence(counts[found], here, there) < levels.novelty]
            if len(found):
                yield self._novelty(found[np.argsort(-counts[found])], counts, here, came, settings)

    def _fewest(self, here: ColumnProfile) -> float:
        # Of a continuous column, only values are told apart that an encoding would.
        return _FEWEST_ROWS if self.is_all_listed or not self.points.size else max(_FEWEST_ROWS, 0.01 * here.known)

    def _novelty(
        self,
        found: NDArray[np.int64],
        counts: NDArray[np.float64],
        here: ColumnProfile,
        came: bool,
        settings: RefreshSettings,
    ) -> ColumnDrift:
        share = float(counts[found].sum() / here.known)
        listed = ", ".join(_short(self.items[index]) for index in found[:3]) + (", …" if len(found) > 3 else "")
        movement = _at_least_moved(_movement(share, 0.0, settings))
        rows = f"{int(counts[found].sum()):,} rows ({_percent(share)})"
        name = self.old.name
        if came:
            sentence = f"Column {name!r} has new values in {rows}: {listed}."
        else:
            sentence = f"Column {name!r} lacks values that {rows} had before: {listed}."
            if len(self.new.frequent) == 1 and self.is_all_listed and share > settings.max_drift:
                sentence = (
                    f"Column {name!r} is constant, {_short(self.new.frequent[0][0])} in every row, where {rows} had "
                    f"other values before. {_remedy('refresh.broken_null_share=off')}"
                )
                movement = "large" if settings.broken_null_share is None else "broken"
        return ColumnDrift(name, "categories", share, 0.0, movement, sentence)

    def quantiles(self, levels: _Levels, settings: RefreshSettings) -> ColumnDrift:
        """The Kolmogorov-Smirnov distance."""
        before, now = (_shares_below(column, self.points) for column in (self.old, self.new))
        most = int(np.argmax(np.abs(now - before)))
        distance = float(abs(now[most] - before[most]))
        noise = _ks_noise(self.old.known, self.new.known, levels.distance)
        noise += _rank_error(self.old) + _rank_error(self.new)
        sentence = (
            f"Column {self.old.name!r}: {_percent(now[most])} of its values are below "
            f"{self._shown(self.points[most])}, {_percent(before[most])} were before; chance explains "
            f"{_percent(noise)}."
        )
        return ColumnDrift(self.old.name, "quantiles", distance, noise, _movement(distance, noise, settings), sentence)

    def outside(self, levels: _Levels, settings: RefreshSettings) -> Iterator[ColumnDrift]:
        """Values beyond the old range, which a model of it cannot draw."""
        if self.is_temporal or self.old.minimum is None or self.old.maximum is None:
            return
        low, high = float(self.old.minimum), float(self.old.maximum)
        below = _shares_below(self.new, np.array([low, np.nextafter(high, np.inf)]))
        for share, word, bound in ((below[0], "below", low), (1 - below[1], "above", high)):
            count = np.array([share * self.new.known])
            if count[0] >= _FEWEST_ROWS and _odds_of_absence(count, self.new, self.old)[0] < levels.novelty:
                sentence = (
                    f"Column {self.old.name!r} has {int(count[0]):,} values ({_percent(share)}) {word} its old range, "
                    f"which ended at {self._shown(bound)}."
                )
                movement = _at_least_moved(_movement(share, 0.0, settings))
                yield ColumnDrift(self.old.name, "quantiles", float(share), 0.0, movement, sentence)

    def _stopped(self, before: int, now: int, levels: _Levels) -> bool:
        if now or not before or not self.new.rows:
            return False
        return bool(_binomial_odds(np.array([before]), self.new.rows, self.old.rows)[0] < levels.novelty)

    def _shown(self, value: float) -> str:
        if not self.is_temporal:
            return f"{value:.6g}"
        whole = pa.scalar(round(value), pa.int32() if self.type.bit_width == 32 else pa.int64())
        try:
            return str(whole.cast(self.type))
        except (ValueError, OverflowError):
            return f"{value:.6g}"


def _at_least_moved(movement: Movement) -> Movement:
    return "moved" if movement == "quiet" else movement


def _remedy(setting: str) -> str:
    return (
        "No world but a broken upstream makes this: repair the source and run again, or, if it is meant to be so, run "
        f"once with --set {setting}."
    )


def _is_trivial(column: ColumnProfile) -> bool:
    return column.semantic_type in (SemanticType.IDENTIFIER, SemanticType.CONSTANT, SemanticType.NULL)


def _short(item: str) -> str:
    return repr(item if len(item) <= _LONGEST_SHOWN else f"{item[:_LONGEST_SHOWN]}…")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


# --- distances and their noise -----------------------------------------------------------------------------------


def _variation(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    return float(np.abs(before / max(before.sum(), 1) - now / max(now.sum(), 1)).sum() / 2)


def _with_rest(counts: NDArray[np.float64], column: ColumnProfile) -> NDArray[np.float64]:
    return np.append(counts, max(column.known - counts.sum(), 0))


def _variation_noise(before: NDArray[np.float64], now: NDArray[np.float64], level: float) -> float:
    """The total variation that two samples of one population exceed with odds of `level`.

    The differences of shares are normal; half the sum of their absolute values has a known mean and variance, and a chi
    distribution of that mean and variance is exact for two categories and near a normal one for many. Categories of too
    few rows to be normal count together.

    Args:
        before: Rows of each category in one sample.
        now: The same in the other.
        level: From 0 to 1.
    """
    sizes = max(before.sum(), 1), max(now.sum(), 1)
    pooled = before + now
    rare = pooled < _FEWEST_ROWS
    shares = np.append(pooled[~rare], pooled[rare].sum()) / sum(sizes)
    shares = shares[(shares > 0) & (shares < 1)]
    if not len(shares):
        return 0.0
    deviations = np.sqrt(shares * (1 - shares) * (1 / sizes[0] + 1 / sizes[1]))
    odds = np.sqrt(shares / (1 - shares))
    correlations = np.maximum(-np.outer(odds, odds), -1)
    np.fill_diagonal(correlations, 1.0)
    # The covariance of the absolute values of two normal variables (Nabeya, "Absolute moments in 2-dimensional normal
    # distribution", 1951).
    bends = correlations * np.arcsin(correlations) + np.sqrt(1 - correlations**2) - 1
    covariances = 2 / np.pi * bends * np.outer(deviations, deviations)
    return _chi_quantile(np.sqrt(2 / np.pi) * deviations.sum() / 2, covariances.sum() / 4, level)


def _chi_quantile(mean: float, variance: float, level: float) -> float:
    """The value that a scaled chi variable of this mean and variance exceeds with odds of `level`."""
    square = mean**2 + variance
    degrees = float(np.interp(mean**2 / square, _CHI_RATIOS, _CHI_DEGREES))
    return float(np.sqrt(square / degrees * chdtri(degrees, level)))


_CHI_DEGREES = np.geomspace(1.0, 1e5, 500)
_CHI_RATIOS = 2 / _CHI_DEGREES * np.exp(2 * (gammaln((_CHI_DEGREES + 1) / 2) - gammaln(_CHI_DEGREES / 2)))


def _ks_noise(rows: int, others: int, level: float) -> float:
    """The two-sample Kolmogorov-Smirnov distance that chance exceeds with odds of `level` (Smirnov, 1939)."""
    return float(np.sqrt(np.log(2 / level) / 2 * (1 / rows + 1 / others)))


def _rank_error(column: ColumnProfile) -> float:
    return 0.0 if not column.frequent_error else _RANK_ERROR + _RANK_ERROR_ROWS / column.known


def _odds_of_absence(counts: NDArray[np.float64], here: ColumnProfile, there: ColumnProfile) -> NDArray[np.float64]:
    """Odds that values seen in so many rows here are not listed there by chance, were they as frequent there."""
    return _binomial_odds(counts, here.known, there.known, there.frequent_error)


def _binomial_odds(counts: NDArray[np.float64], here: int, there: int, missed: int = 0) -> NDArray[np.float64]:
    share = there / (here + there)
    return np.asarray(bdtr(missed, counts + missed, share), dtype=np.float64)


def _points_between(old: ColumnProfile, new: ColumnProfile) -> NDArray[np.float64]:
    """Points halfway between values of the two tables, where the sketches are exact or nearly so."""
    values = np.unique(np.concatenate([_values(column) for column in (old, new)]))
    return np.unique(values[:-1] + np.diff(values) / 2)


def _values(column: ColumnProfile) -> NDArray[np.float64]:
    if not column.quantile_sketch:
        return np.empty(0)
    if not column.frequent_error:
        return np.array([float(item) for item, _ in column.frequent])
    return column.quantiles(_RANKS)


def _shares_below(column: ColumnProfile, points: NDArray[np.float64]) -> NDArray[np.float64]:
    if column.frequent_error:
        return column.shares_below(points)
    values = _values(column)
    order = np.argsort(values)
    counts = np.array([count for _, count in column.frequent], dtype=np.float64)[order]
    return np.append(0.0, counts.cumsum())[np.searchsorted(values[order], points)] / column.known


# --- pairs -------------------------------------------------------------------------------------------------------


def _pair_drifts(
    reference: Profile, current: Profile, names: Sequence[str], settings: RefreshSettings
) -> list[PairDrift]:
    """How far the dependence of pairs moved, in the sampled rows.

    Every column is cut into at most six parts. The dependence of two columns is their joint distribution less the
    product of their own; the distance is half the sum of the absolute differences. Its noise comes from rows that
    change sides at random.
    """
    names = _spread(names, _MOST_PAIRED)
    sides = [_chosen(profile, names) for profile in (reference, current)]
    if len(names) < 2 or not all(map(len, sides)):
        return []
    texts = {column.name for column in current.columns if not column.quantile_sketch}
    parts = _Parts(np.concatenate(sides), [name in texts for name in names])
    distances, noise = parts.measured(len(sides[0]))
    first, second = np.triu_indices(len(names), 1)
    return [
        _pair_drift(names[i], names[j], float(distances[i, j]), float(noise[i, j]), settings)
        for i, j in zip(first, second, strict=True)
    ]


def _pair_drift(first: str, second: str, distance: float, noise: float, settings: RefreshSettings) -> PairDrift:
    sentence = (
        f"Columns {first!r} and {second!r} go together otherwise than before: {_percent(distance)} of the rows, where "
        f"chance explains {_percent(noise)}."
    )
    return PairDrift(first, second, distance, noise, _movement(distance, noise, settings), sentence)


def _spread(names: Sequence[str], most: int) -> Sequence[str]:
    if len(names) <= most:
        return names
    return [names[index] for index in np.linspace(0, len(names) - 1, most, dtype=np.int64).tolist()]


def _chosen(profile: Profile, names: Sequence[str]) -> NDArray[np.float64]:
    places = {column.name: index for index, column in enumerate(profile.columns)}
    return profile.sampled_rows()[:, [places[name] for name in names]]


class _Parts:
    """Rows of both tables, each value as the part of its column that it lies in, one-hot."""

    def __init__(self, rows: NDArray[np.float64], are_texts: Sequence[bool]) -> None:
        most = int(np.clip(_MOST_PARTS // rows.shape[1], 2, _PARTS_PER_COLUMN))
        blocks = [_one_hot(values, most, is_text) for values, is_text in zip(rows.T, are_texts, strict=True)]
        self.hot = np.concatenate(blocks, axis=1)
        self.starts = np.cumsum([0, *(block.shape[1] for block in blocks)])[:-1]
        self.total = self.hot.T @ self.hot

    def measured(self, rows_before: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The distances `(columns, columns)` of the first rows from the others, and their noise."""
        found = self._distances(np.arange(rows_before))
        random = np.random.default_rng(0)
        upper = np.triu_indices(len(found), 1)
        chance = np.array(
            [self._distances(random.permutation(len(self.hot))[:rows_before])[upper] for _ in range(_PERMUTATIONS)]
        )
        mean, deviation = chance.mean(axis=0), chance.std(axis=0, ddof=1)
        worst = ((chance - mean) / np.where(deviation > 0, deviation, 1)).max(axis=1)
        noise = np.zeros_like(found)
        noise[upper] = mean + _gumbel_quantile(worst, _PAIRS_LEVEL) * deviation
        return found, noise

    def _distances(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        part = self.hot[chosen]
        before = part.T @ part
        difference = np.abs(
            _dependence(before, len(chosen)) - _dependence(self.total - before, len(self.hot) - len(chosen))
        )
        return np.add.reduceat(np.add.reduceat(difference, self.starts, axis=0), self.starts, axis=1) / 2


def _dependence(counts: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    shares = counts / np.float32(rows)
    own = shares.diagonal()
    return shares - np.outer(own, own)


def _one_hot(values: NDArray[np.float64], most: int, is_text: bool) -> NDArray[np.float32]:
    present = ~np.isnan(values)
    codes = np.zeros(len(values), dtype=np.int64)
    codes[present] = 1 + _part_numbers(values[present], most, is_text)
    used, codes = np.unique(codes, return_inverse=True)
    return np.asarray(codes[:, None] == np.arange(len(used)), dtype=np.float32)


def _part_numbers(values: NDArray[np.float64], most: int, is_text: bool) -> NDArray[np.int64]:
    """Every value by itself where few differ, else the most frequent texts and all others, or quantiles of numbers."""
    distinct, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) <= most:
        return codes
    if is_text:
        ranks = np.empty(len(distinct), dtype=np.int64)
        ranks[np.argsort(-counts, kind="stable")] = np.arange(len(distinct))
        return np.minimum(ranks, most - 1)[codes]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, most + 1)[1:-1]))
    return np.searchsorted(edges, values, side="left")


def _gumbel_quantile(largest: NDArray[np.float64], level: float) -> float:
    """What the largest of many exceeds with odds of `level`: the Gumbel distribution of the same mean and variance."""
    scale = largest.std(ddof=1) * np.sqrt(6) / np.pi
    return float(largest.mean() - scale * (np.euler_gamma + np.log(-np.log1p(-level))))
