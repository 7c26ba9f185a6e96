"""Distances are those counted by hand; the index finds every near copy, and never a nearer row than there is."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from vae_ops.schema import SemanticType, infer_semantic_types
from vae_ops.validation.columns import encode_tables
from vae_ops.validation.neighbours import NeighbourIndex, Places, measure_units, nearest, place_rows


def places(*tables: pa.Table, types: dict[str, SemanticType] | None = None) -> list[Places]:
    return place_rows(encode_tables(tables, types or infer_semantic_types(tables[0])))


def mixed(rows: int, seed: int, numbers: int = 6) -> pa.Table:
    generator = np.random.default_rng(seed)
    columns = {f"n{index}": generator.normal(size=rows) for index in range(numbers)}
    columns |= {f"c{index}": generator.choice(list("abcdef"), rows) for index in range(3)}
    columns["gaps"] = pa.array(generator.normal(size=rows), mask=generator.random(rows) < 0.2)
    return pa.table(columns)


def by_hand(left: Places, right: Places) -> NDArray[np.float64]:
    numbers = np.abs(left.numbers[:, None] - right.numbers[None]).sum(axis=2)
    return np.asarray(numbers + 2.0 * (left.codes[:, None] != right.codes[None]).sum(axis=2))


def nudged(rows: Places, size: float) -> Places:
    noise = np.random.default_rng(0).normal(scale=size, size=rows.numbers.shape)
    return Places(rows.numbers + noise, rows.codes, rows.sizes)


def test_numbers_count_by_their_range_and_categories_two() -> None:
    training = pa.table({"a": [0.0, 10.0, 4.0], "b": ["x", "y", "x"]})
    synthetic = pa.table({"a": [1.0, 9.0], "b": ["x", "x"]})
    real, drawn = places(training, synthetic)
    ranges = measure_units(real).ranges
    distances, rows = nearest(drawn.scaled(ranges), real.scaled(ranges))
    assert distances == pytest.approx([0.1, 0.5])
    assert list(rows) == [0, 2]


def test_a_missing_number_is_a_category_in_the_place_of_the_median() -> None:
    (rows,) = places(pa.table({"a": pa.array([0.0, 3.0, 10.0, None])}))
    assert by_hand(rows, rows)[3] == pytest.approx([5.0, 2.0, 9.0, 0.0])


def test_null_and_nan_differ() -> None:
    (rows,) = places(pa.table({"a": pa.array([1.0, 2.0, None, float("nan")], from_pandas=False)}))
    assert by_hand(rows, rows)[2, 3] == 2.0


def test_infinity_counts_as_the_extreme() -> None:
    (rows,) = places(pa.table({"a": [0.0, 1.0, 7.0, np.inf, -np.inf]}))
    assert list(rows.numbers[:, 0]) == [0.0, 1.0, 7.0, 7.0, 0.0]


def test_units_of_a_column_without_spread_are_one() -> None:
    units = measure_units(
        places(pa.table({"a": [1.0, 3.0], "b": [5.0, 5.0]}), types=dict.fromkeys("ab", SemanticType.NUMERIC))[0]
    )
    assert list(units.ranges) == [2.0, 1.0]
    assert list(units.deviations) == [1.0, 1.0]


def test_the_widest_numbers_stay_finite() -> None:
    (rows,) = places(pa.table({"a": [-1.7e308, 1.7e308, 0.0]}))
    units = measure_units(rows)
    for unit in (units.ranges, units.deviations):
        assert np.isfinite(by_hand(rows.scaled(unit), rows.scaled(unit))).all()


def test_nearest_is_the_least_of_all_distances() -> None:
    queries, references = places(mixed(300, 1), mixed(5_000, 2))
    distances, rows = nearest(queries, references)
    matrix = by_hand(queries, references)
    assert distances == pytest.approx(matrix.min(axis=1))
    assert (rows == matrix.argmin(axis=1)).all()


def test_nothing_is_infinitely_far() -> None:
    queries, references = places(mixed(3, 1), mixed(5, 2).slice(0, 0))
    assert np.isinf(nearest(queries, references)[0]).all()


@pytest.mark.parametrize("numbers", [1, 6, 150])
def test_the_index_finds_every_near_copy(numbers: int) -> None:
    (references,) = places(mixed(4_000, 1, numbers))
    source = np.random.default_rng(3).choice(4_000, size=300, replace=False)
    queries = nudged(references.take(source), 1e-6)
    found = NeighbourIndex(references, seed=0).query(queries)
    assert found[:, 0] == pytest.approx(nearest(queries, references)[0], abs=1e-12)
    assert (found[:, 0] < 1e-3).all()


def test_the_index_is_seldom_far_off_and_never_too_near() -> None:
    queries, references = places(mixed(500, 1), mixed(8_000, 2))
    found, exact = NeighbourIndex(references, seed=0).query(queries), nearest(queries, references)[0]
    assert (found[:, 0] >= exact - 1e-9).all()
    assert (found[:, 1] >= found[:, 0]).all()
    assert (found[:, 0] <= exact + 1e-9).mean() > 0.4
    assert np.median(found[:, 0] / exact) < 1.05


def test_rows_are_not_their_own_neighbours_but_equal_rows_are() -> None:
    (rows,) = places(pa.table({"a": [0.0, 1.0, 1.0, 5.0]}))
    index = NeighbourIndex(rows, seed=0)
    assert index.query(rows)[:, 0] == pytest.approx([0.0, 0.0, 0.0, 0.0])
    assert index.query(rows, own=np.arange(4))[:, 0] == pytest.approx([1.0, 0.0, 0.0, 4.0])


def test_equal_rows_are_one_neighbour() -> None:
    (rows,) = places(pa.table({"a": [0.0, 0.0, 3.0]}))
    assert NeighbourIndex(rows, seed=0).query(rows)[0] == pytest.approx([0.0, 3.0])


def test_a_copy_is_found_beside_an_outlier_that_dwarfs_every_difference() -> None:
    (rows,) = places(pa.table({"a": [1e30, *np.arange(100.0)], "b": ["x", "y"] * 50 + ["x"]}))
    scaled = rows.scaled(measure_units(rows).deviations)
    assert (NeighbourIndex(scaled, seed=0).query(scaled)[:, 0] == 0).all()


def test_a_single_row_has_no_second() -> None:
    (rows,) = places(pa.table({"a": [2.0]}))
    index = NeighbourIndex(rows, seed=0)
    assert list(index.query(rows)[0]) == [0.0, np.inf]
    assert list(index.query(rows, own=np.arange(1))[0]) == [np.inf, np.inf]


def test_the_seed_decides() -> None:
    queries, references = places(mixed(50, 1), mixed(500, 2))
    first, again = (NeighbourIndex(references, seed=4).query(queries) for _ in range(2))
    assert (first == again).all()
