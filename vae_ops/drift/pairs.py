"""How far the dependence between two columns moved, whatever either column did by itself.

`columns.py` looks at single columns. Sketches know nothing of pairs, so these are judged by the rows that both profiles
sampled.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vae_ops.drift.noise import gumbel_quantile
from vae_ops.drift.records import PairDrift, movement_of, percent
from vae_ops.profiling import Profile
from vae_ops.schema import SemanticType, natural_type
from vae_ops.settings import RefreshSettings

__all__ = ["pair_drifts"]

# Odds that any pair exceeds its noise in a night in which nothing moved.
_LEVEL = 0.0025
_PERMUTATIONS = 60
# The product of all parts with all parts, once a permutation and side, is what a wide table waits for.
_MOST_PARTS = 400
_PARTS_PER_COLUMN = 6
_MOST_COLUMNS = 200
# Values between two of these ranks are not told apart, as sixths of the rows need no finer ones.
_RANKS = np.linspace(0.0, 1.0, 257)[1:]


def pair_drifts(
    reference: Profile, current: Profile, names: Sequence[str], settings: RefreshSettings
) -> list[PairDrift]:
    """Measures how far the dependence of every two columns moved.

    Every column is cut into up to six parts: numbers at the ranks they have in their own table, so that no shift or
    scale of a column moves a pair; texts into the most frequent and all others. The dependence is the joint
    distribution of two columns less the product of their own. The distance is half the sum of the absolute differences,
    less what other shares of texts and of missing values may add to it; from 0 to 1. Noise is what comes of rows that
    are dealt out to the two tables at random.

    Args:
        reference: The earlier table.
        current: The later one.
        names: Columns that both have, in one type each; of more than 200, evenly spread ones are looked at.
        settings: What counts as moved or large.

    Raises:
        BundleError: The sampled rows of a profile are damaged.
    """
    if len(names) > _MOST_COLUMNS:
        names = [names[index] for index in np.linspace(0, len(names) - 1, _MOST_COLUMNS, dtype=np.int64).tolist()]
    sides = [_columns_of(profile, names) for profile in (reference, current)]
    if len(names) < 2 or not all(map(len, sides)):
        return []
    texts = {field.name for field in current.schema if natural_type(field.type) is SemanticType.CATEGORICAL}
    rows = _PartedRows(np.concatenate(sides), [name in texts for name in names])
    return list(_judged(names, *rows.measured(len(sides[0])), settings))


def _judged(
    names: Sequence[str], distances: NDArray[np.float64], noise: NDArray[np.float64], settings: RefreshSettings
) -> Iterator[PairDrift]:
    for (first, second), found, chance in zip(combinations(names, 2), distances.tolist(), noise.tolist(), strict=True):
        sentence = (
            f"Columns {first!r} and {second!r}: their dependence moved by {percent(found)}; chance explains "
            f"{percent(chance)}."
        )
        yield PairDrift(first, second, found, chance, movement_of(found, chance, settings), sentence)


def _columns_of(profile: Profile, names: Sequence[str]) -> NDArray[np.float64]:
    places = {column.name: index for index, column in enumerate(profile.columns)}
    return profile.sampled_rows()[:, [places[name] for name in names]]


class _PartedRows:
    """The sampled rows of both tables, earlier ones first."""

    def __init__(self, rows: NDArray[np.float64], are_texts: Sequence[bool]) -> None:
        parts = int(np.clip(_MOST_PARTS // rows.shape[1], 2, _PARTS_PER_COLUMN))
        self.rows = len(rows)
        self.columns = [
            _TextParts(values, parts) if is_text else _RankParts(values, parts)
            for values, is_text in zip(rows.T, are_texts, strict=True)
        ]
        self.starts = np.cumsum([0, *(column.width for column in self.columns)])[:-1]

    def measured(self, rows_before: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances of the first rows from the others, and their noise, `(pairs,)` each."""
        found = self._distances(np.arange(self.rows), rows_before)
        random = np.random.default_rng(0)
        chance = np.array([self._distances(random.permutation(self.rows), rows_before) for _ in range(_PERMUTATIONS)])
        return np.maximum(found, 0.0), np.clip(_simultaneous_noise(chance, 1 / self.rows), 0.0, 1.0)

    def _distances(self, order: NDArray[np.int64], rows_before: int) -> NDArray[np.float64]:
        """Below 0 where the dependence moved by less than the columns themselves."""
        (before, own_before), (now, own_now) = map(self._dependence, (order[:rows_before], order[rows_before:]))
        own = np.add.reduceat(np.abs(own_before - own_now), self.starts)
        blocks = np.add.reduceat(np.add.reduceat(np.abs(before - now), self.starts, axis=0), self.starts, axis=1)
        beyond = blocks - own - own[:, None]
        return beyond[np.triu_indices(len(self.columns), 1)].astype(np.float64) / 2

    def _dependence(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The dependence of all parts with all parts, and the share of each part."""
        weights = np.concatenate([column.weights(chosen) for column in self.columns], axis=1)
        own = weights.mean(axis=0)
        return np.asarray(weights.T @ weights / np.float32(len(chosen)) - np.outer(own, own)), own


def _simultaneous_noise(chance: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """What any of many distances exceeds with odds of `_LEVEL`, each in units of its own deviation.

    Every draw is held against mean and deviation of the others, as a new one will be: among thousands of pairs some
    deviations are far too small by chance.

    Args:
        chance: `(draws, distances)`.
        least: Floor of a deviation: what one row makes.

    Returns:
        `(distances,)`.
    """
    draws = len(chance)
    mean, variance = chance.mean(axis=0), chance.var(axis=0, ddof=1)
    apart = (chance - mean) * draws / (draws - 1)
    others = (variance * (draws - 1) - apart * (chance - mean)) / (draws - 2)
    worst = (apart / np.sqrt(np.maximum(others, least**2))).max(axis=1)
    return np.asarray(mean + gumbel_quantile(worst, _LEVEL) * np.sqrt(np.maximum(variance, least**2)))


class _TextParts:
    """A column of texts: each value by itself where few differ, else the most frequent ones and all others."""

    def __init__(self, values: NDArray[np.float64], parts: int) -> None:
        # NaN, which no value is, sorts as one value.
        _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks = np.empty(len(counts), dtype=np.int64)
        ranks[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
        self.width = min(len(counts), parts)
        self._hot = np.eye(self.width, dtype=np.float32)[np.minimum(ranks, self.width - 1)[codes]]

    def weights(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """How much of each chosen row lies in each part, `(chosen, width)`."""
        return self._hot.take(chosen, axis=0)


class _RankParts:
    """A column of numbers, cut at equal shares of the chosen rows; a value on a cut lies in several parts."""

    def __init__(self, values: NDArray[np.float64], parts: int) -> None:
        known = values[~np.isnan(values)]
        edges = np.unique(np.quantile(known, _RANKS, method="higher")) if len(known) else known
        # NaN sorts behind all edges.
        self._codes = np.searchsorted(edges, values)
        self._distinct = len(edges)
        self._parts = parts
        self.width = parts + 1

    def weights(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """How much of each chosen row lies in each part, `(chosen, width)`; the last is for rows without a value."""
        codes = self._codes.take(chosen)
        counts = np.bincount(codes, minlength=self._distinct + 1)[: self._distinct]
        ends = counts.cumsum()
        # Rank intervals in units of parts.
        scale = self._parts / max(int(ends[-1]) if len(ends) else 0, 1)
        low, high = (ends - counts)[:, None] * scale, ends[:, None] * scale
        cuts = np.arange(self._parts)
        overlap = np.clip(np.minimum(high, cuts + 1) - np.maximum(low, cuts), 0.0, None)
        table = np.zeros((self._distinct + 1, self.width), dtype=np.float32)
        table[:-1, :-1] = overlap / np.maximum(high - low, scale)
        table[-1, -1] = 1.0
        return table.take(codes, axis=0)
