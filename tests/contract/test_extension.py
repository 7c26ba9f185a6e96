"""Every encoding, fitted anew on later rows: each value says what it goes on from, and what was known stays known."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import strategies
from vae_ops.encoding.base import NO_VALUE, Codes
from vae_ops.encoding.row import RowEncoding, extend_row_encoding, fit_row_encoding
from vae_ops.errors import CannotRefreshError
from vae_ops.schema import infer_semantic_types

ANY_COLUMN = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def one_column(array: pa.Array) -> pa.Table:
    return pa.Table.from_arrays([array], schema=pa.schema([pa.field("x", array.type)]))


def fitted(array: pa.Array) -> RowEncoding:
    table = one_column(array)
    return fit_row_encoding(table, infer_semantic_types(table), rare_rows=1)


def extended(earlier: RowEncoding, array: pa.Array) -> tuple[RowEncoding, tuple[np.ndarray, ...]]:
    table = one_column(array)
    return extend_row_encoding(earlier, table, infer_semantic_types(table), rare_rows=1)


@pytest.mark.parametrize("type_", strategies.SCALAR_TYPES, ids=str)
@ANY_COLUMN
@given(data=st.data())
def test_the_same_rows_again_change_nothing(type_: pa.DataType, data: st.DataObject) -> None:
    array = data.draw(strategies.arrays(type_, min_size=1))
    earlier = fitted(array)
    later, carried = extended(earlier, array)
    assert [values.tolist() for values in carried] == [list(range(t.size)) for t in earlier.layout.tokens]
    assert np.array_equal(later.encode(one_column(array)).tokens, earlier.encode(one_column(array)).tokens)


@pytest.mark.parametrize("type_", strategies.SCALAR_TYPES, ids=str)
@ANY_COLUMN
@given(data=st.data())
def test_values_go_on_from_values_that_exist(type_: pa.DataType, data: st.DataObject) -> None:
    before, after = (data.draw(strategies.arrays(type_, min_size=1)) for _ in range(2))
    earlier = fitted(before)
    try:
        later, carried = extended(earlier, after)
    except CannotRefreshError:
        # One of the two is constant, or null throughout, or has a calendar, and the other is not.
        assert later_kind(after) != earlier.encodings[0].kind
        return
    assert len(carried) == len(later.layout) == len(earlier.layout)
    for values, new, old in zip(carried, later.layout.tokens, earlier.layout.tokens, strict=True):
        assert len(values) == new.size
        assert np.all((values >= NO_VALUE) & (values < old.size))


def later_kind(array: pa.Array) -> str:
    return fitted(array).encodings[0].kind


def test_a_category_that_vanished_stays_and_a_new_one_joins() -> None:
    earlier = fitted(pa.array(["b", "a", None] * 20))
    later, (carried,) = extended(earlier, pa.array(["c", "a"] * 20))
    tokens = later.encode(one_column(pa.array(["a", "b", "c"]))).tokens[:, 0]
    old = earlier.encode(one_column(pa.array(["a", "b"]))).tokens[:, 0]
    assert carried[tokens].tolist() == [*old.tolist(), NO_VALUE]


def test_exact_numbers_go_on_from_themselves_and_new_ones_from_their_neighbour() -> None:
    earlier = fitted(pa.array([1, 2, 3, 4] * 20))
    later, (carried,) = extended(earlier, pa.array([2, 3, 4, 5] * 20))
    tokens = later.encode(one_column(pa.array([2, 4, 5]))).tokens[:, 0]
    old = earlier.encode(one_column(pa.array([2, 4, 4]))).tokens[:, 0]
    assert carried[tokens].tolist() == old.tolist()


def test_bins_go_on_from_the_bin_of_their_rank() -> None:
    rng = np.random.default_rng(0)
    earlier = fitted(pa.array(rng.normal(size=5_000)))
    later, (carried,) = extended(earlier, pa.array(rng.normal(10.0, 3.0, size=5_000)))
    assert carried.tolist() == list(range(later.layout.tokens[0].size))
    fewer, (coarse,) = extended(earlier, pa.array(rng.normal(size=1_000)))
    size, old = fewer.layout.tokens[0].size, earlier.layout.tokens[0].size
    assert size < old
    assert np.all(np.diff(coarse) > 0)
    assert coarse / old == pytest.approx(np.arange(size) / size, abs=2 / size)


def test_a_range_grows() -> None:
    earlier = fitted(pa.array(np.random.default_rng(0).normal(size=2_000)))
    wider = pa.array(np.random.default_rng(1).normal(size=2_000) * 5)
    later, _ = extended(earlier, wider)
    ends = Codes.of(np.array([0, later.layout.tokens[0].size - 1]), np.array([0.0, 1.0]))
    low, high = later.decode(ends, 0)["x"].to_pylist()
    assert (low, high) == (min(wider.to_pylist()), max(wider.to_pylist()))


def test_numbers_that_became_constant_cannot_be_refreshed_and_categories_can() -> None:
    with pytest.raises(CannotRefreshError, match="'x' was learned as numeric, and is constant now"):
        extended(fitted(pa.array([1, 2] * 20)), pa.array([1] * 40))
    later, _ = extended(fitted(pa.array(["a", "b"] * 20)), pa.array(["a"] * 40))
    assert later.layout.tokens[0].size == 2
