"""Shape, trend and C2ST against values worked out by hand, and on the columns that break such metrics elsewhere."""

import decimal

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ks_2samp

from vae_ops.schema import SemanticType
from vae_ops.validation.columns import CategoryColumn, Column, EncodedTable, NumberColumn, encode_tables
from vae_ops.validation.fidelity import (
    auc_standard_error,
    c2st,
    choose_pairs,
    correlation_matrix,
    ks_error,
    shape_error,
    total_variation,
    trend_errors,
)

NUMERIC, CATEGORICAL = SemanticType.NUMERIC, SemanticType.CATEGORICAL


def encoded(real: pa.Table, synthetic: pa.Table, **types: SemanticType) -> list[EncodedTable]:
    return encode_tables([real, synthetic], types)


def numbers(*values: float | None) -> NumberColumn:
    table = pa.table({"x": pa.array(values, pa.float64(), from_pandas=False)})
    column = encode_tables([table], {"x": NUMERIC})[0]["x"]
    assert isinstance(column, NumberColumn)
    return column


def pair(real: pa.Array, synthetic: pa.Array, semantic_type: SemanticType) -> tuple[Column, Column]:
    left, right = encoded(pa.table({"x": real}), pa.table({"x": synthetic}), x=semantic_type)
    return left["x"], right["x"]


def test_ks_by_hand() -> None:
    assert ks_error(numbers(1, 2, 3, 4), numbers(3, 4, 5, 6)) == 0.5
    assert ks_error(numbers(1, 2), numbers(3, 4)) == 1.0


def test_ks_is_scipys_when_nothing_is_missing() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=301).round(1), generator.normal(0.3, 1.2, size=177).round(1)
    assert ks_error(numbers(*left), numbers(*right)) == pytest.approx(ks_2samp(left, right).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("real", "synthetic", "error"),
    [
        ((1, 2, None, None), (1, 2, 1, 2), 0.5),
        ((1, 2, None, None), (1, 2, float("nan"), float("nan")), 0.5),
        ((1, None), (None, 1), 0.0),
        ((None, None), (None, None), 0.0),
        ((None, None), (1, 2), 1.0),
        ((float("inf"), 1), (float("-inf"), 1), 0.5),
    ],
)
def test_null_and_nan_are_categories_of_their_own(
    real: tuple[float | None, ...], synthetic: tuple[float | None, ...], error: float
) -> None:
    assert ks_error(numbers(*real), numbers(*synthetic)) == error


@pytest.mark.parametrize("low", [True, False])
def test_a_null_share_counts_wherever_it_is_taken_from(low: bool) -> None:
    lost = (None, None, 2, 3) if low else (0, 1, None, None)
    assert ks_error(numbers(0, 1, 2, 3), numbers(*lost)) == 0.5


def test_total_variation_by_hand() -> None:
    assert total_variation(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2) == 0.25
    assert total_variation(np.array([0, 0]), np.array([1, 1]), 2) == 1.0


@pytest.mark.parametrize(
    "type_", [pa.int64(), pa.uint64(), pa.timestamp("ns", tz="UTC"), pa.duration("ns"), pa.decimal128(38, 0)]
)
def test_large_integers_that_float64_would_merge_stay_apart(type_: pa.DataType) -> None:
    start = 2**63 - 100
    storage = pa.uint64() if type_ == pa.uint64() else pa.int64()
    low, high = (pa.array([start + offset] * 5, storage) for offset in (0, 60))
    if pa.types.is_decimal(type_):
        low, high = (pa.array([decimal.Decimal(v.as_py()) for v in side], type_) for side in (low, high))
    assert shape_error(*pair(low.cast(type_), high.cast(type_), NUMERIC)) == 1.0


def test_values_on_both_ends_of_int64_do_not_overflow() -> None:
    left = pa.array([-(2**63), 2**63 - 1] * 3, pa.int64())
    assert shape_error(*pair(left, left, NUMERIC)) == 0.0
    assert shape_error(*pair(left, pa.array([-(2**63)] * 6, pa.int64()), NUMERIC)) == 0.5


def test_many_rare_categories_are_lumped_together() -> None:
    real = pa.array([f"real {index}" for index in range(2000)] + ["frequent"] * 2000)
    invented = pa.array([f"invented {index}" for index in range(2000)] + ["frequent"] * 2000)
    assert shape_error(*pair(real, invented, CATEGORICAL)) == 0.0
    assert shape_error(*pair(real, pa.array(["frequent"] * 9), CATEGORICAL)) == 0.5


def test_few_categories_are_never_lumped() -> None:
    real = pa.array(["rare"] + ["frequent"] * 99)
    assert shape_error(*pair(real, pa.array(["invented"] + ["frequent"] * 99), CATEGORICAL)) == pytest.approx(0.01)


def test_sides_encoded_apart_are_refused() -> None:
    with pytest.raises(TypeError, match="encode both together"):
        shape_error(numbers(1, 2), CategoryColumn(np.array([0]), 1))


def test_correlations_over_rows_where_both_are_present() -> None:
    generator = np.random.default_rng(1)
    raw = generator.normal(size=(200, 3)) @ generator.normal(size=(3, 3)) + [0.0, 1e9, -5.0]
    raw[generator.random(raw.shape) < 0.2] = np.nan
    measured = correlation_matrix([numbers(*column) for column in raw.T])
    both = np.isfinite(raw[:, 0]) & np.isfinite(raw[:, 2])
    assert measured[0, 2] == pytest.approx(np.corrcoef(raw[both, 0], raw[both, 2])[0, 1], abs=1e-9)
    assert measured[2, 0] == pytest.approx(measured[0, 2], abs=1e-12)


@pytest.mark.parametrize("gap", [None, 3.0])
def test_a_constant_column_has_no_correlation(gap: float | None) -> None:
    constant, other = numbers(0.1, 0.1, 0.1, gap and 0.1), numbers(1, 2, 3, gap)
    assert np.isnan(correlation_matrix([constant, other])[0, 1])


def test_correlation_survives_the_widest_range() -> None:
    assert correlation_matrix([numbers(-1e308, 1e308, 0), numbers(-1, 1, 0)])[0, 1] == pytest.approx(1.0)


def test_trend_of_opposite_correlations_is_the_worst() -> None:
    x = np.arange(50.0)
    real, synthetic = encoded(pa.table({"x": x, "y": x}), pa.table({"x": x, "y": -x}), x=NUMERIC, y=NUMERIC)
    assert trend_errors(real, synthetic, [("x", "y")]) == {("x", "y"): pytest.approx(1.0)}


def test_trend_of_categories_that_lost_their_dependence() -> None:
    real = pa.table({"a": list("ppqq"), "b": list("rrss")})
    synthetic = pa.table({"a": list("ppqq"), "b": list("rsrs")})
    errors = trend_errors(*encoded(real, synthetic, a=CATEGORICAL, b=CATEGORICAL), [("a", "b")])
    assert errors == {("a", "b"): 0.5}


def test_bins_come_from_the_real_range() -> None:
    labels = ["low"] * 50 + ["high"] * 50
    real = pa.table({"x": np.arange(100.0), "label": labels})
    outlier = pa.table({"x": np.r_[np.arange(99.0), 1e9], "label": labels})
    errors = trend_errors(*encoded(real, outlier, x=NUMERIC, label=CATEGORICAL), [("x", "label")])
    assert errors == {("x", "label"): 0.0}


def test_a_number_column_that_collapsed_is_not_left_out() -> None:
    x = np.arange(100.0)
    real, synthetic = pa.table({"x": x, "y": x}), pa.table({"x": x, "y": np.full(100, 5.0)})
    assert trend_errors(*encoded(real, synthetic, x=NUMERIC, y=NUMERIC), [("x", "y")])["x", "y"] > 0.8


def test_pairs_are_all_or_a_fixed_sample() -> None:
    names = [f"c{index}" for index in range(40)]
    assert len(choose_pairs(names, 780, seed=0)) == 780
    sampled = choose_pairs(names, 100, seed=3)
    assert len(set(sampled)) == 100
    assert sampled == choose_pairs(names, 100, seed=3)
    assert sampled != choose_pairs(names, 100, seed=4)


def ring(rows: int, seed: int, *, shuffled: bool = False) -> pa.Table:
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, rows)
    y = np.sin(angle)
    label = np.where(angle < np.pi, "upper", "lower")
    return pa.table({"x": np.cos(angle), "y": generator.permutation(y) if shuffled else y, "label": label})


RING_TYPES = {"x": NUMERIC, "y": NUMERIC, "label": CATEGORICAL}


def test_c2st_cannot_tell_two_samples_of_one_population() -> None:
    outcome = c2st(*encode_tables([ring(800, 1), ring(700, 2)], RING_TYPES))
    assert outcome.auc == pytest.approx(0.5, abs=3 * outcome.standard_error)
    assert (outcome.rows, outcome.columns, outcome.telling) == (700, 3, ())


def test_c2st_sees_dependence_that_no_correlation_shows_and_names_the_columns() -> None:
    outcome = c2st(*encode_tables([ring(800, 1), ring(800, 2, shuffled=True)], RING_TYPES))
    assert outcome.auc > 0.9
    assert "y" in [name for name, _ in outcome.telling[:2]]


def test_c2st_is_the_same_every_time_and_depends_on_the_seed() -> None:
    sides = encode_tables([ring(300, 1), ring(300, 2)], RING_TYPES)
    assert c2st(*sides, seed=5) == c2st(*sides, seed=5)
    assert c2st(*sides, seed=5).auc != c2st(*sides, seed=6).auc


def test_c2st_takes_fifty_thousand_categories_and_infinities() -> None:
    generator = np.random.default_rng(0)
    tables = [
        pa.table({"s": [f"c{i}" for i in generator.integers(0, 50_000, 600)], "x": [np.inf, -np.inf, None] * 200})
        for _ in range(2)
    ]
    outcome = c2st(*encode_tables(tables, {"s": CATEGORICAL, "x": NUMERIC}))
    assert outcome.auc == pytest.approx(0.5, abs=0.1)


def test_c2st_of_too_few_rows_or_no_columns_cannot_tell() -> None:
    assert c2st(*encode_tables([ring(3, 1), ring(100, 2)], RING_TYPES)).auc == 0.5
    assert c2st({}, {}).auc == 0.5


def test_c2st_bounds_rows_and_columns_of_a_wide_table() -> None:
    wide = pa.table({f"c{index}": np.zeros(1500) for index in range(1300)})
    types = dict.fromkeys(wide.column_names, NUMERIC)
    outcome = c2st(*encode_tables([wide, wide], types))
    assert (outcome.rows, outcome.columns) == (1000, 600)


def test_auc_standard_error_at_chance_is_mann_whitneys() -> None:
    assert auc_standard_error(0.5, 30, 70) == pytest.approx(np.sqrt((30 + 70 + 1) / (12 * 30 * 70)))
    assert auc_standard_error(1.0, 30, 70) == 0.0
