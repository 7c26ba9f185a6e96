"""Shape and trend against values worked out by hand, and on the columns that break such metrics elsewhere."""

import decimal

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ks_2samp
from scipy.stats.contingency import association

from vae_ops.schema import SemanticType
from vae_ops.validation.columns import CategoryColumn, Column, EncodedTable, NumberColumn, encode_tables
from vae_ops.validation.fidelity import (
    choose_pairs,
    coarsen_columns,
    correlation_matrix,
    cramers_v,
    dependence_error,
    ks_error,
    mean_shift,
    pair_trends,
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


def test_each_table_is_binned_over_its_own_range_as_sdmetrics_does() -> None:
    labels = ["low"] * 50 + ["high"] * 50
    real = pa.table({"x": np.arange(100.0), "label": labels})
    moved = pa.table({"x": np.arange(100.0) * 7 - 3, "label": labels})
    outlier = pa.table({"x": np.r_[np.arange(99.0), 1e9], "label": labels})
    sides = [encoded(real, other, x=NUMERIC, label=CATEGORICAL) for other in (moved, outlier)]
    errors = [trend_errors(*both, [("x", "label")])["x", "label"] for both in sides]
    assert errors == [0.0, pytest.approx(0.89)]


def test_strength_of_a_pair_and_from_where_it_counts() -> None:
    x = np.arange(100.0)
    wave = np.sin(x)
    real = pa.table({"x": x, "y": x + 20 * wave, "w": wave, "half": x > 49, "fifth": x % 5 == 0})
    types = dict.fromkeys(("x", "y", "w"), NUMERIC) | dict.fromkeys(("half", "fifth"), SemanticType.BOOLEAN)
    both = encode_tables([real, real], types)
    pairs = pair_trends(*both, [("x", "y"), ("x", "w"), ("x", "half"), ("half", "fifth")])
    assert [pair.kind for pair in pairs] == ["correlation", "correlation", "contingency", "contingency"]
    assert [pair.counts for pair in pairs] == [True, False, True, False]
    assert pairs[0].strength_real == pairs[0].strength_synthetic == pytest.approx(np.corrcoef(x, x + 20 * wave)[0, 1])
    assert all(pair.error == 0.0 for pair in pairs)


def test_cramers_v_is_scipys() -> None:
    counts = np.random.default_rng(0).integers(0, 30, (4, 7))
    assert cramers_v(counts) == pytest.approx(association(counts, method="cramer"))
    assert cramers_v(np.pad(counts, 2)) == pytest.approx(cramers_v(counts))
    assert cramers_v(np.array([[3, 4]])) == 0.0


def dependences(real: pa.Table, synthetic: pa.Table, **types: SemanticType) -> float:
    both = encoded(real, synthetic, **types)
    codes = {name: tuple(coarsen_columns(both[0][name], [side[name] for side in both])) for name in types}
    first, second = codes.values()
    return dependence_error(first, second)  # type: ignore[arg-type]


def test_dependence_error_sees_dependence_that_bends() -> None:
    x = np.linspace(-1.0, 1.0, 1000)
    real = pa.table({"x": x, "y": x * x})
    shuffled = pa.table({"x": x, "y": np.random.default_rng(0).permutation(x * x)})
    assert dependences(real, shuffled, x=NUMERIC, y=NUMERIC) > 0.5
    # Their correlation is zero on both sides.
    assert trend_errors(*encoded(real, shuffled, x=NUMERIC, y=NUMERIC), [("x", "y")])["x", "y"] < 0.05


def test_dependence_error_leaves_out_what_a_column_shows_by_itself() -> None:
    generator = np.random.default_rng(0)
    kinds = generator.choice(["a", "b", "c"], 5000)
    x = generator.normal(size=5000)
    real, moved = pa.table({"x": x, "kind": kinds}), pa.table({"x": x + 1.0, "kind": kinds})
    assert dependences(real, moved, x=NUMERIC, kind=CATEGORICAL) < 0.03


def test_no_outlier_moves_the_bins_of_the_dependence_error() -> None:
    x = np.arange(1000.0)
    label = np.where(x < 300, "low", "high")
    outlier = pa.table({"x": np.r_[x[:-1], 1e9], "label": label})
    assert dependences(pa.table({"x": x, "label": label}), outlier, x=NUMERIC, label=CATEGORICAL) < 0.002


def test_mean_shift_in_deviations_of_the_real_values() -> None:
    assert mean_shift(numbers(0, 2, None), numbers(1, 2, 3, None)) == pytest.approx(1.0)
    assert mean_shift(numbers(5, 5), numbers(6, 6)) is None
    assert mean_shift(numbers(None, 1), numbers(None)) is None
    assert mean_shift(numbers(-1e308, 1e308), numbers(1e308, 1e308)) == pytest.approx(1.0)


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
