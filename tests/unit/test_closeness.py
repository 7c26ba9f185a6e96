"""Copies are found exactly: every value counts, nothing is rounded, and chance copies are told from memorised ones."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import exact, tables
from vae_ops.validation.columns import align_table
from vae_ops.validation.closeness import CopyShares, copy_shares, row_hashes


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
