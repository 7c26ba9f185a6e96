"""What chance does: the floor holds what real rows do to each other, intervals narrow with the rows, all repeats."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest

from vae_ops.schema import SemanticType, natural_type
from vae_ops.validation.columns import EncodedTable, encode_tables
from vae_ops.validation.noise_floor import (
    Errors,
    Prepared,
    bound_by_chance,
    bounds_by_chance,
    c2st_floor,
    measure_errors,
    normal_interval,
    prepare_tables,
    real_against_real,
    standard_errors,
)

PAIRS = [("x", "y"), ("x", "kind")]


def rows(count: int, seed: int) -> pa.Table:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=count)
    return pa.table({"x": x, "y": x + generator.normal(size=count), "kind": np.where(x > 0, "high", "low")})


def types(table: pa.Table) -> Mapping[str, SemanticType]:
    return {field.name: natural_type(field.type) for field in table.schema}


def encoded(*tables: pa.Table) -> list[EncodedTable]:
    return encode_tables(tables, types(tables[0]))


def prepared(*tables: pa.Table) -> list[Prepared]:
    sides = encoded(*tables)
    return prepare_tables(sides[0], sides)


def floor(count: int, sizes: tuple[int, int], *, seed: int = 0) -> Errors:
    (pool,) = prepared(rows(count, 1))
    errors = real_against_real(pool, sizes, PAIRS, seed=seed)
    assert errors is not None
    return errors


def test_the_floor_of_a_shape_is_kolmogorovs() -> None:
    errors = floor(4000, (2000, 2000))
    # The mean of Kolmogorov's distribution is 0.8687 √(1/n + 1/m).
    assert errors.shapes[:, 0].mean() == pytest.approx(0.8687 * np.sqrt(2 / 2000), rel=0.2)
    assert errors.shifts[:, 0].mean() == pytest.approx(np.sqrt(2 / np.pi) * np.sqrt(2 / 2000), rel=0.4)
    assert np.all(errors.shifts[:, 2] == 0.0)


def test_parts_have_the_sizes_of_the_samples_or_are_smaller() -> None:
    matching, halves = floor(6000, (2000, 500)), floor(1000, (1000, 1000))
    assert matching.shapes.mean() < floor(6000, (500, 500)).shapes.mean()
    assert halves.shapes.mean() == pytest.approx(floor(1000, (500, 500)).shapes.mean())


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_row_tells_nothing_about_chance(count: int) -> None:
    (pool,) = prepared(rows(count, 1))
    assert real_against_real(pool, (count, 5), PAIRS, seed=0) is None


def test_the_same_rows_and_seed_give_the_same_floor() -> None:
    first, again, other = (floor(300, (200, 100), seed=seed) for seed in (3, 3, 4))
    for name in Errors.__dataclass_fields__:
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.shapes, other.shapes)


def test_a_fresh_sample_stays_under_the_bounds_and_a_moved_one_does_not() -> None:
    bounds = bounds_by_chance(floor(4000, (2000, 1000)).shapes)
    moved = rows(1000, 2)
    moved = moved.set_column(1, "y", pa.array(moved["y"].to_numpy() + 0.5))
    real, fresh, spoilt = prepared(rows(2000, 1), rows(1000, 2), moved)
    assert np.all(measure_errors(real, fresh, PAIRS).shapes < bounds)
    assert (measure_errors(real, spoilt, PAIRS).shapes > bounds).tolist() == [False, True, False]


def test_the_worst_of_many_columns_seldom_passes_its_bound() -> None:
    generator = np.random.default_rng(0)
    beyond, beyond_alone = [], []
    for _ in range(200):
        repeats, fresh = generator.gamma(9.0, size=(20, 50)), generator.gamma(9.0, size=50)
        beyond.append(np.any(fresh > bounds_by_chance(repeats)))
        beyond_alone.append(any(fresh[column] > bound_by_chance(repeats[:, column]) for column in range(50)))
    assert np.mean(beyond) < 0.15
    assert np.mean(beyond_alone) > 0.8


def test_a_column_that_never_differs_has_no_floor() -> None:
    assert bounds_by_chance(np.zeros((5, 2))).tolist() == [0.0, 0.0]


def spread(count: int, seed: int = 0) -> float:
    real, other = prepared(rows(count, 1), rows(count, 2))
    resampled = standard_errors(real, other, PAIRS, seed=seed)
    return float(resampled.deviation(resampled.errors.shifts)[0])


def test_standard_errors_are_those_of_theory_also_of_a_part_of_the_rows() -> None:
    for count in (400, 40_000):
        assert spread(count) == pytest.approx(np.sqrt(2 / count), rel=0.45)
    assert spread(400) == spread(400) != spread(400, seed=1)


def test_an_interval_stays_in_its_range() -> None:
    assert dataclasses.astuple(normal_interval(0.01, 0.1)) == (0.0, pytest.approx(0.206))
    assert dataclasses.astuple(normal_interval(0.9, 0.1)) == (pytest.approx(0.704), 1.0)


def test_the_floor_of_the_two_sample_test_narrows_with_the_rows() -> None:
    (pool,) = encoded(rows(2000, 1))
    few, many = c2st_floor(pool, 50, seed=0), c2st_floor(pool, 1000, seed=0)
    assert 0.5 < many < few <= 1.0
    assert c2st_floor(pool, 0, seed=0) == 1.0
