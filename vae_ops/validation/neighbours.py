"""Nearest rows of a mixed table: one distance between rows, found exactly by force or quickly through an index.

`privacy.py` asks it for copies and shares, `attacks.py` for densities; what a column is to a metric is decided by
`columns.py`. Nothing here knows which rows are real.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from vae_ops.content_hash import mix_hashes
from vae_ops.validation.columns import CategoryColumn, EncodedTable, NumberColumn
from vae_ops.validation.row_hashes import are_among

__all__ = ["NeighbourIndex", "Places", "Units", "measure_units", "nearest", "place_rows"]

_Values = TypeVar("_Values", bound=NDArray[Any])

CATEGORY_DISTANCE = 2.0  # one-hot codes of two categories differ in two places
FARTHEST = 1e9  # units: keeps sums of distances finite whatever a sampler emits
BLOCK_CELLS = 2_000_000  # numbers in memory at a time, 16 MB
PROJECTIONS = 8  # few enough for a k-d tree to prune, many enough that unrelated rows rarely agree in all
SLACK = 1.0  # the tree may overlook what is not twice as near: five times as fast, and no true distance suffers
CANDIDATES = 24  # the nearest row of Adult is among them for four rows of five, a near copy for all


@dataclass(frozen=True)
class Places:
    """Rows as points of a space of numbers and categories.

    Attributes:
        numbers: float64 `(rows, number columns)`, finite.
        codes: int32 `(rows, category columns)`; equal values have equal codes.
        sizes: Codes of each category column, over all tables placed together.
    """

    numbers: NDArray[np.float64]
    codes: NDArray[np.int32]
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        """Rows."""
        return len(self.numbers)

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.numbers.shape[1] + self.codes.shape[1])

    def take(self, rows: NDArray[np.int64]) -> "Places":
        """The places at these row numbers."""
        return Places(self.numbers[rows], self.codes[rows], self.sizes)

    def scaled(self, units: NDArray[np.float64]) -> "Places":
        """The places with each number column divided by its unit."""
        return Places(np.clip(self.numbers / units, -FARTHEST, FARTHEST), self.codes, self.sizes)


@dataclass(frozen=True)
class Units:
    """Two ways to make number columns comparable, float64 `(number columns,)` each; 1 for a column without spread.

    Attributes:
        ranges: Greatest less least value: the unit of published DCR figures.
        deviations: Standard deviation: an outlier shrinks a column less than by its range.
    """

    ranges: NDArray[np.float64]
    deviations: NDArray[np.float64]


def place_rows(tables: Sequence[EncodedTable]) -> list[Places]:
    """Gives each row of tables that were encoded together its place.

    A missing number takes the median's place and is a category of its own beside it; an infinite one takes that of the
    greatest or least finite value of the first table.

    Returns:
        Places per table, columns in the same order.
    """
    numbers: list[list[NDArray[np.float64]]] = [[] for _ in tables]
    codes: list[list[NDArray[np.int32]]] = [[] for _ in tables]
    sizes: list[int] = []
    for name in tables[0]:
        columns = [table[name] for table in tables]
        plain = [column for column in columns if isinstance(column, NumberColumn)]
        if plain:
            _append(numbers, _filled(plain))
        if not plain or any(column.missing.any() for column in plain):
            parts, size = _coded(columns)
            _append(codes, parts)
            sizes.append(size)
    rows = [_rows(table) for table in tables]
    return [
        Places(_stacked(left, count, np.float64), _stacked(right, count, np.int32), tuple(sizes))
        for left, right, count in zip(numbers, codes, rows, strict=True)
    ]


def _append(columns: list[list[_Values]], parts: Sequence[_Values]) -> None:
    for column, part in zip(columns, parts, strict=True):
        column.append(part)


def _filled(columns: Sequence[NumberColumn]) -> list[NDArray[np.float64]]:
    finite = columns[0].values[np.isfinite(columns[0].values)]
    low, middle, high = np.quantile(finite, [0, 0.5, 1], method="lower") if len(finite) else (0.0, 0.0, 0.0)
    return [np.nan_to_num(column.values, nan=middle, posinf=high, neginf=low) for column in columns]


def _coded(columns: Sequence[NumberColumn | CategoryColumn]) -> tuple[list[NDArray[np.int32]], int]:
    codes = [column.missing if isinstance(column, NumberColumn) else column.codes for column in columns]
    size = 1 + max((int(part.max()) for part in codes if len(part)), default=0)
    return [part.astype(np.int32) for part in codes], size


def _rows(table: EncodedTable) -> int:
    for column in table.values():
        return len(column.values if isinstance(column, NumberColumn) else column.codes)
    return 0


def _stacked(columns: Sequence[NDArray[Any]], rows: int, dtype: type[np.generic]) -> NDArray[Any]:
    return np.column_stack(columns) if columns else np.empty((rows, 0), dtype)


def measure_units(places: Places) -> Units:
    """The units that these rows suggest."""
    if not len(places):
        return Units(*np.ones((2, places.numbers.shape[1])))
    low, high = places.numbers.min(axis=0), places.numbers.max(axis=0)
    largest = np.maximum(np.maximum(np.abs(low), np.abs(high)), np.finfo(np.float64).tiny)
    with np.errstate(over="ignore"):
        ranges = np.minimum(high - low, np.finfo(np.float64).max)
    deviations = largest * (places.numbers / largest).std(axis=0)
    flat = ~(ranges > 0) | ~(deviations > 0)
    return Units(np.where(flat, 1.0, ranges), np.where(flat, 1.0, deviations))


def nearest(queries: Places, references: Places) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The nearest reference row of each query, by comparing all with all.

    The distance is L1: numbers count by their difference, a differing category counts 2.

    Returns:
        Distances, float64 `(queries,)`, and row numbers, int64 `(queries,)`; of equally near rows the first.
    """
    distances, rows = np.full(len(queries), np.inf), np.zeros(len(queries), dtype=np.int64)
    if not len(references):
        return distances, rows
    for part in _blocks(len(queries), len(references)):
        matrix = _all_distances(queries.take(part), references)
        rows[part] = matrix.argmin(axis=1)
        distances[part] = matrix[np.arange(len(part)), rows[part]]
    return distances, rows


def _blocks(rows: int, cells_per_row: int) -> Iterator[NDArray[np.int64]]:
    size = max(1, BLOCK_CELLS // max(cells_per_row, 1))
    return (np.arange(begin, min(begin + size, rows)) for begin in range(0, rows, size))


def _all_distances(queries: Places, references: Places) -> NDArray[np.float64]:
    matrix: NDArray[np.float64] = np.zeros((len(queries), len(references)))
    if queries.numbers.shape[1]:
        matrix += cdist(queries.numbers, references.numbers, "cityblock")
    if columns := queries.codes.shape[1]:
        matrix += CATEGORY_DISTANCE * columns * cdist(queries.codes, references.codes, "hamming")
    return matrix


def _hashes(places: Places) -> NDArray[np.uint64]:
    hashes = np.zeros(len(places), dtype=np.uint64)
    for values in places.numbers.T:
        hashes = mix_hashes(hashes, (values + 0.0).view(np.uint64))  # which makes -0.0 the same as 0.0
    for codes in places.codes.T:
        hashes = mix_hashes(hashes, codes.astype(np.uint64))
    return hashes


class NeighbourIndex:
    """Finds near rows among many, in time that hardly grows with their number.

    Rows are projected at random onto a few dimensions (each category has a random place there), a k-d tree finds the
    nearest few, and their true distances decide. Rows that almost agree are near in every projection, so a near copy is
    always found; for other rows the distance is now and then that of the second or third nearest, whoever asks.
    Equal rows are held once.
    """

    def __init__(self, places: Places, *, seed: int) -> None:
        """Indexes rows, at least one.

        Args:
            places: Rows, in the units in which distances are wanted.
            seed: Decides the projections.
        """
        self._seed = seed
        found = np.unique(_hashes(places), return_index=True, return_inverse=True, return_counts=True)
        self._known: NDArray[np.uint64] = found[0]
        self._group: NDArray[np.int64] = found[2]
        self._count: NDArray[np.int64] = found[3]
        self._places = places.take(found[1])
        self._tree = cKDTree(self._project(self._places))

    def _project(self, places: Places) -> NDArray[np.float64]:
        generator = np.random.default_rng([self._seed, PROJECTIONS])
        projected = np.zeros((len(places), PROJECTIONS))
        for values in places.numbers.T:
            projected += values[:, None] * generator.normal(size=PROJECTIONS)
        for codes, size in zip(places.codes.T, places.sizes, strict=True):
            # Two such random places lie as far apart as two numbers whose difference is the distance of categories.
            corners = generator.normal(scale=CATEGORY_DISTANCE / np.sqrt(2), size=(size, PROJECTIONS))
            projected += corners[codes]
        return projected

    def query(self, queries: Places, *, own: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Distances to the nearest and the second-nearest different row.

        Args:
            queries: Rows in the index's units.
            own: Row numbers of the queries in the index, which are then not their own neighbours; an equal row
                elsewhere still is.

        Returns:
            float64 `(queries, 2)`, ascending; infinite where the index has too few rows.
        """
        found = np.full((len(queries), 2), np.inf)
        candidates = min(CANDIDATES, len(self._places))
        ranks = np.arange(1, candidates + 1)  # an array, because one rank alone would lose its axis
        rows = np.asarray(self._tree.query(self._project(queries), k=ranks, eps=SLACK)[1])
        lonely = np.full(len(queries), -1) if own is None else self._lonely(own)
        for part in _blocks(len(queries), candidates * queries.width):
            distances = self._distances(queries.take(part), rows[part])
            distances[rows[part] == lonely[part, None]] = np.inf
            best = np.sort(distances, axis=1)[:, :2]
            found[part, : best.shape[1]] = best
        # Beside an outlier of 1e16 deviations, all projections of other rows may be equal.
        missed = are_among(_hashes(queries), self._known) & (lonely < 0) & (found[:, 0] > 0)
        found[missed] = np.column_stack([np.zeros(missed.sum()), found[missed, 0]])
        return found

    def _lonely(self, own: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of each indexed row the place in the tree, if no other row equals it; else -1."""
        group = self._group[own]
        return np.where(self._count[group] == 1, group, -1)

    def _distances(self, queries: Places, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """L1 distance of each query to each of its candidates, `(queries, candidates)`."""
        numbers = np.abs(queries.numbers[:, None, :] - self._places.numbers[rows]).sum(axis=2)
        differing = (queries.codes[:, None, :] != self._places.codes[rows]).sum(axis=2)
        return np.asarray(numbers + CATEGORY_DISTANCE * differing)
