"""Copies are found exactly, with nothing rounded; distances are judged against those of other real rows."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import exact, tables
from vae_ops.validation.closeness import (
    CopyShares,
    are_near_copies,
    copy_shares,
    dcr_share,
    distance_histograms,
    median_ratio,
)
from vae_ops.validation.columns import align_table
from vae_ops.validation.neighbours import Places
from vae_ops.validation.row_hashes import row_hashes


def table(**columns: object) -> pa.Table:
    return pa.table(columns)


def same(left: pa.Table, right: pa.Table) -> bool:
    first, second = row_hashes([left, right], left.column_names)
    return bool((first == second).all())


def test_copies_are_counted_on_both_sides() -> None:
    training = table(a=[1, 2, 3, 3], b=["x", "y", "z", "z"])
    holdout = table(a=[1, 9, 9, 9], b=["x", "x", "y", "z"])
    synthetic = table(a=[1, 2, 3, 1], b=["x", "y", "z", "y"])
    shares = copy_shares(training, holdout, synthetic, ["a", "b"])
    assert shares == CopyShares(synthetic=0.75, holdout=0.25, training=0.5)


def test_columns_left_out_do_not_hide_a_copy() -> None:
    training, synthetic = table(key=[1, 2], a=[5, 6]), table(key=[3, 4], a=[5, 6])
    assert copy_shares(training, training, synthetic, ["key", "a"]).synthetic == 0.0
    assert copy_shares(training, training, synthetic, ["a"]).synthetic == 1.0


def test_tables_without_rows_hold_no_copies() -> None:
    rows = table(a=[1, 2])
    assert copy_shares(rows, rows.slice(0, 0), rows.slice(0, 0), ["a"]) == CopyShares(0.0, 0.0, 0.0)


@pytest.mark.parametrize("nudged", [np.nextafter(1.0, 2.0), 1.0 + 1e-12])
def test_a_value_one_bit_away_is_no_copy(nudged: float) -> None:
    assert not same(table(a=[1.0]), table(a=[nudged]))


def test_values_swapped_between_columns_are_no_copy() -> None:
    assert not same(table(a=["p"], b=["q"]), table(a=["q"], b=["p"]))


def test_zero_has_no_sign_and_nan_equals_nan_but_not_null() -> None:
    assert same(table(a=[0.0, float("nan")]), table(a=[-0.0, float("nan")]))
    left = pa.table({"a": pa.array([float("nan")], from_pandas=False)})
    assert not same(left, pa.table({"a": pa.array([None], pa.float64())}))


def test_null_is_no_empty_string() -> None:
    assert not same(table(a=pa.array([None], pa.string())), table(a=[""]))


@settings(deadline=None)
@given(tables(min_rows=2, max_rows=12), st.randoms(use_true_random=False))
def test_hashes_are_equal_exactly_where_rows_are(source: pa.Table, chance: random.Random) -> None:
    source = align_table(source, source.schema, "training")
    order = chance.sample(range(source.num_rows), source.num_rows)
    moved = source.take(order)
    rows, shuffled = row_hashes([source, moved], source.column_names)
    assert (rows[order] == shuffled).all()
    texts = list(zip(*(without_sign_of_zero(exact(column)) for column in source.columns), strict=True))
    for first in range(source.num_rows):
        for second in range(source.num_rows):
            assert (rows[first] == rows[second]) == (texts[first] == texts[second])


def without_sign_of_zero(texts: list[str]) -> list[str]:
    return ["0.0" if text == "-0.0" else text for text in texts]


def numbers(rows: int, seed: int, columns: int = 3) -> Places:
    values = np.random.default_rng(seed).normal(size=(rows, columns))
    return Places(values, np.zeros((rows, 0), np.int32), ())


def test_dcr_share_counts_the_nearer_side_and_ties_half() -> None:
    def line(*values: float) -> Places:
        return Places(np.array(values)[:, None], np.zeros((len(values), 0), np.int32), ())

    outcome = dcr_share(line(0.0, 1.0, 5.0, 10.0), line(0.1, 9.0), line(0.5, 11.0), seed=0)
    # 0 is nearer to training (0.1), 1 to the holdout (0.5 against 0.9), 5 to training (4.0), 10 is a tie.
    assert outcome.share == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert outcome.rows == 2


def test_dcr_share_of_copies_depends_on_the_side_copied() -> None:
    training, holdout = numbers(300, 1), numbers(300, 2)
    assert dcr_share(training, training, holdout, seed=0).share == 1.0
    assert dcr_share(holdout, training, holdout, seed=0).share == 0.0


def test_dcr_share_cuts_the_larger_side() -> None:
    training, holdout, synthetic = numbers(2_000, 1), numbers(200, 2), numbers(1_000, 3)
    outcome = dcr_share(synthetic, training, holdout, seed=0)
    assert outcome.rows == 200
    assert outcome.spread > 0
    assert outcome.share == pytest.approx(1 - dcr_share(synthetic, holdout, training, seed=5).share, abs=0.08)


def test_dcr_share_of_fresh_rows_strays_as_far_as_its_deviation_says() -> None:
    draws = [[numbers(rows, 3 * seed + part) for part, rows in enumerate((400, 50, 50))] for seed in range(80)]
    outcomes = [dcr_share(*draw, seed=0) for draw in draws]
    shares = np.array([outcome.share for outcome in outcomes])
    expected = np.mean([outcome.deviation for outcome in outcomes])
    assert abs(shares.mean() - 0.5) < 4 * expected / np.sqrt(80)
    assert shares.std() == pytest.approx(expected, rel=0.3)


def test_dcr_share_without_held_out_rows_says_nothing() -> None:
    outcome = dcr_share(numbers(10, 1), numbers(10, 2), numbers(0, 3), seed=0)
    assert (outcome.share, outcome.rows) == (0.5, 0)


def test_near_copies_are_ten_times_nearer_to_one_row_than_to_any_other() -> None:
    distances = np.array([[0.0, 0.0], [0.0, 5.0], [0.5, 5.0], [0.6, 5.0], [1.0, np.inf], [0.0, np.inf]])
    assert list(are_near_copies(distances)) == [True, True, True, False, False, True]


def test_median_ratio_leaves_nothing_undefined() -> None:
    assert median_ratio(np.array([[0.0, 2.0], [1.0, 2.0], [2.0, 2.0]])) == 0.5
    assert median_ratio(np.array([[1.0, np.inf], [0.0, 0.0]])) == 1.0
    assert median_ratio(np.empty((0, 2))) == 1.0


def test_histograms_hold_every_row() -> None:
    synthetic, real = np.array([0.0, 0.0, 1.0, 50.0, np.inf]), np.linspace(0.0, 2.0, 500)
    histograms = distance_histograms(synthetic, real)
    assert sum(histograms.synthetic) == pytest.approx(1.0)
    assert sum(histograms.holdout) == pytest.approx(1.0)
    assert len(histograms.edges) == len(histograms.synthetic) + 1
    assert histograms.synthetic[0] >= 0.4
    assert histograms.edges[-1] < 3.0


def test_histograms_of_copies_only_have_bins() -> None:
    assert distance_histograms(np.zeros(3), np.zeros(2)).synthetic[0] == 1.0
