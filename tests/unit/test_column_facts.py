"""What is said of one column: distances in its own units, coverage, and distributions that can be drawn."""

import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import wasserstein_distance

from vae_ops.schema import natural_type
from vae_ops.validation.column_facts import ColumnFacts, describe_column
from vae_ops.validation.columns import encode_tables


def facts(real: Any, synthetic: Any, type_: pa.DataType | None = None) -> ColumnFacts:
    tables = [pa.table({"x": pa.array(values, type_, from_pandas=False)}) for values in (real, synthetic)]
    sides = encode_tables(tables, {"x": natural_type(tables[0].schema.field("x").type)})
    return describe_column(sides[0]["x"], sides[1]["x"])


def test_wasserstein_is_scipys_over_the_values_that_are_there() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=300).round(1), generator.normal(0.5, 2.0, size=200).round(1)
    found = facts([*left, None], [*right, float("nan"), None])
    assert found.wasserstein == pytest.approx(wasserstein_distance(left, right))
    assert found.null_percent_real == pytest.approx(100 / 301)
    assert found.null_percent_synthetic == pytest.approx(200 / 202)


@pytest.mark.parametrize(
    "type_", [pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.date32(), pa.date64(), pa.timestamp("s")]
)
def test_times_are_told_in_seconds(type_: pa.DataType) -> None:
    days = np.array([20_000, 20_001, 20_002], dtype="datetime64[D]")
    real, late = (pa.array(values.astype("datetime64[s]")).cast(type_) for values in (days, days + 2))
    found = facts(real, late, type_)
    assert found.wasserstein == pytest.approx(2 * 86_400.0)
    assert found.distribution.edges[0] <= 20_000 * 86_400.0 <= found.distribution.edges[-1]
    assert found.distribution.edges[-1] == pytest.approx(20_004 * 86_400.0, rel=1e-3)


def test_other_times_are_told_in_seconds_too() -> None:
    clock = [datetime.time(1), datetime.time(2)]
    assert facts(clock, clock[::-1], pa.time64("ns")).distribution.edges[0] == pytest.approx(3600.0)
    spans = [datetime.timedelta(minutes=minutes) for minutes in (1, 2)]
    assert facts(spans, [spans[0]] * 2, pa.duration("ms")).wasserstein == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("synthetic", "covered"), [([0, 10], 1.0), ([-5, 50], 1.0), ([4, 9], 0.5), ([11, 12], 0.0), ([None], 0.0)]
)
def test_coverage_of_a_range(synthetic: list[Any], covered: float) -> None:
    assert facts([0, 10, 5], synthetic, pa.float64()).range_coverage == pytest.approx(covered)


def test_coverage_of_one_value_and_of_none() -> None:
    assert facts([3, 3], [1, 3], pa.float64()).range_coverage == 1.0
    assert facts([3, 3], [1, 4], pa.float64()).range_coverage == 0.0
    assert facts([None], [1], pa.float64()).range_coverage is None
    assert facts([None], [1], pa.float64()).wasserstein is None


def test_coverage_of_categories_weighs_them_by_their_rows() -> None:
    found = facts(["a"] * 6 + ["b"] * 3 + [None], ["a", "c"])
    assert (found.category_coverage, found.range_coverage, found.wasserstein) == (0.6, None, None)
    assert (found.null_percent_real, found.null_percent_synthetic) == (10.0, 0.0)


def test_categories_are_drawn_by_frequency_and_the_rest_together() -> None:
    real = [f"c{index:02}" for index in range(20) for _ in range(20 - index)]
    drawn = facts(real, ["c00", "new"]).distribution
    assert drawn.kind == "categories"
    assert drawn.labels[:2] == ("c00", "c01")
    assert drawn.labels[-1] == "(all others)"
    assert len(drawn.labels) == len(drawn.real) == len(drawn.synthetic) == 13
    assert sum(drawn.real) == pytest.approx(1.0)
    assert (drawn.synthetic[0], drawn.synthetic[-1]) == (0.5, 0.5)


def test_labels_are_text_whatever_the_values_are() -> None:
    assert facts([True, False, True], [True], pa.bool_()).distribution.labels == ("True", "False")
    assert facts([b"\xff\x00", None], [None], pa.binary()).distribution.labels == ("(null)", "ff00")
    assert len(facts(["x" * 5000], ["y"]).distribution.labels[0]) == 200


def test_a_histogram_holds_all_rows_but_the_missing_ones() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    drawn = facts([*values, None], [*values * 1e9, 1e300]).distribution
    assert drawn.kind == "histogram"
    assert len(drawn.edges) == len(drawn.real) + 1
    assert sum(drawn.real) == pytest.approx(1000 / 1001)
    assert sum(drawn.synthetic) == pytest.approx(1.0)
    assert np.all(np.diff(drawn.edges) > 0)


def test_whole_numbers_have_a_bin_each_where_they_are_few() -> None:
    drawn = facts([1, 2, 2, 5], [5, 5], pa.int64()).distribution
    assert drawn.edges == (0.5, 1.5, 2.5, 3.5, 4.5, 5.5)
    assert drawn.real == (0.25, 0.5, 0.0, 0.0, 0.25)


@pytest.mark.parametrize("values", [[-1e308, 1e308], [2**63 - 1] * 2, [None, None], [5e-324, 0.0]])
def test_the_ends_of_the_number_line_can_be_drawn(values: list[Any]) -> None:
    type_ = pa.int64() if isinstance(values[0], int) else pa.float64()
    drawn = facts(values, values[::-1], type_).distribution
    assert np.all(np.isfinite(drawn.edges))
    assert drawn.real == drawn.synthetic


def test_sides_encoded_apart_are_refused() -> None:
    numbers = encode_tables([pa.table({"x": [1.0]})], {"x": natural_type(pa.float64())})[0]["x"]
    words = encode_tables([pa.table({"x": ["a"]})], {"x": natural_type(pa.string())})[0]["x"]
    with pytest.raises(TypeError, match="encode both together"):
        describe_column(numbers, words)


def test_bins_of_whole_numbers_hold_equally_many_of_them() -> None:
    ages = list(range(17, 91))
    found = facts(ages, ages).distribution
    widths = np.diff(found.edges)
    assert len(found.real) <= 40
    assert set(widths) == {2.0}
    assert found.edges[0] == 16.5
    assert sum(found.real) == pytest.approx(1.0)
