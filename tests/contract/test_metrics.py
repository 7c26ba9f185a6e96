"""What every metric owes its callers: range, direction, zero for identity, symmetry, and the order of rows ignored."""

import itertools
import random
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import SCALAR_TYPES, arrays
from vae_ops.schema import natural_type
from vae_ops.validation.closeness import copy_shares
from vae_ops.validation.columns import EncodedTable, NumberColumn, align_table, encode_tables, take_rows
from vae_ops.validation.fidelity import coarsen_columns, dependence_error, shape_error, trend_errors
from vae_ops.validation.joint import c2st

Metric = Callable[[EncodedTable, EncodedTable], float]
AB = ("a", "b")


def shape(real: EncodedTable, synthetic: EncodedTable) -> float:
    return shape_error(real["a"], synthetic["a"])


def trend(real: EncodedTable, synthetic: EncodedTable) -> float:
    return trend_errors(real, synthetic, [AB])[AB]


def dependence(real: EncodedTable, synthetic: EncodedTable) -> float:
    first, second = (tuple(coarsen_columns(real[name], [real[name], synthetic[name]])) for name in AB)
    return dependence_error(first, second)  # type: ignore[arg-type]


def distinguishable(real: EncodedTable, synthetic: EncodedTable) -> float:
    return c2st(real, synthetic).auc


ERRORS = pytest.mark.parametrize("metric", [shape, trend, dependence])


@st.composite
def sides(draw: st.DrawFn, *, numbers: bool | None = None) -> list[EncodedTable]:
    """Two tables of columns a and b, of any types, encoded together."""
    types = [
        draw(st.sampled_from(SCALAR_TYPES).filter(lambda t: numbers is None or is_number(t) == numbers)) for _ in AB
    ]
    schema = pa.schema(zip(AB, types, strict=True))
    tables = []
    for role in ("training", "synthetic"):
        rows = draw(st.integers(1, 12))
        columns = [draw(arrays(type_, min_size=rows, max_size=rows)) for type_ in types]
        tables.append(align_table(pa.table(columns, schema=schema), schema, role))
    return encode_tables(tables, {name: natural_type(type_) for name, type_ in zip(AB, types, strict=True)})


def is_number(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or pa.types.is_integer(type_)


@ERRORS
@settings(deadline=None)
@given(both=sides())
def test_range(metric: Metric, both: list[EncodedTable]) -> None:
    assert 0.0 <= metric(*both) <= 1.0 + 1e-12


@ERRORS
@settings(deadline=None)
@given(both=sides())
def test_identity_is_zero(metric: Metric, both: list[EncodedTable]) -> None:
    assert metric(both[0], both[0]) == 0.0


@ERRORS
@settings(deadline=None)
@given(both=sides(numbers=True) | sides(numbers=False))
def test_symmetry(metric: Metric, both: list[EncodedTable]) -> None:
    # The tenths of a number come from the real side, so what they show is not symmetric by definition.
    if metric is dependence and any(isinstance(column, NumberColumn) for column in both[0].values()):
        return
    assert metric(both[0], both[1]) == pytest.approx(metric(both[1], both[0]), abs=1e-9)


@ERRORS
@settings(deadline=None)
@given(both=sides(), chance=st.randoms(use_true_random=False))
def test_order_of_rows_decides_nothing(metric: Metric, both: list[EncodedTable], chance: random.Random) -> None:
    moved = [take_rows(table, np.array(order(table, chance))) for table in both]
    # Sums in another order round differently, and a correlation over the few rows where both columns are known, of
    # values that are near each other beside the rest of a column, keeps only the leading digits.
    assert metric(*moved) == pytest.approx(metric(*both), abs=1e-4)


def order(table: EncodedTable, chance: random.Random) -> list[int]:
    column = table["a"]
    rows = len(column.values if isinstance(column, NumberColumn) else column.codes)
    return chance.sample(range(rows), rows)


def mixtures(steps: int, rows: int = 400) -> list[list[EncodedTable]]:
    """Real rows beside synthetic ones of which a growing share is wrong, in shape and in dependence."""
    generator = np.random.default_rng(0)
    a = generator.normal(size=rows)
    real = pa.table({"a": a, "b": np.where(a > 0, "high", "low")})
    pairs = []
    for step in range(steps):
        wrong = np.arange(rows) < rows * step // (steps - 1)
        spoilt = pa.table({"a": np.where(wrong, a.min(), a), "b": np.where(wrong, "low", real["b"])})
        types = {name: natural_type(real.schema.field(name).type) for name in AB}
        pairs.append(encode_tables([real, spoilt], types))
    return pairs


@pytest.mark.parametrize("metric", [shape, trend, distinguishable])
def test_worse_rows_score_worse(metric: Metric) -> None:
    scores = [metric(*pair) for pair in mixtures(5)]
    assert all(earlier < later for earlier, later in itertools.pairwise(scores))


def test_more_copies_are_a_larger_share() -> None:
    training = pa.table({"a": np.arange(100)})
    shares = [
        copy_shares(training, training.slice(0, 0), pa.table({"a": np.arange(100) + shift}), ["a"]).synthetic
        for shift in (100, 50, 0)
    ]
    assert shares == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("metric", [shape, trend, distinguishable])
def test_same_rows_same_score(metric: Metric) -> None:
    pair = mixtures(3)[1]
    assert metric(*pair) == metric(*pair)


@settings(max_examples=20, deadline=None)
@given(both=sides())
def test_c2st_range(both: list[EncodedTable]) -> None:
    assert 0.0 <= distinguishable(*both) <= 1.0
