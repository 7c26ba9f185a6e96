"""schema.py: what a column means follows from its type, then its values, then what the user says."""

import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.strategies import SCALAR_TYPES
from vae_ops.errors import SchemaError, SettingsError
from vae_ops.schema import SemanticType, infer_semantic_types, natural_type

ROWS = 200
RNG = np.random.default_rng(0)


def infer(values: Any, type_: pa.DataType | None = None, **overrides: str) -> str:
    return infer_semantic_types(pa.table({"x": pa.array(values, type_)}), overrides)["x"].value


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (pa.null(), "null"),
        (pa.bool_(), "boolean"),
        (pa.uint64(), "numeric"),
        (pa.float16(), "numeric"),
        (pa.decimal32(5, 2), "numeric"),
        (pa.decimal256(60, 2), "numeric"),
        (pa.string(), "categorical"),
        (pa.large_string(), "categorical"),
        (pa.string_view(), "categorical"),
        (pa.binary(4), "categorical"),
        (pa.dictionary(pa.int8(), pa.int64()), "categorical"),
        (pa.date32(), "date"),
        (pa.date64(), "date"),
        (pa.timestamp("ns", "UTC"), "datetime"),
        (pa.time32("s"), "time"),
        (pa.time64("ns"), "time"),
        (pa.duration("us"), "duration"),
    ],
    ids=str,
)
def test_natural_type(type_: pa.DataType, expected: str) -> None:
    assert natural_type(type_).value == expected


@pytest.mark.parametrize("type_", SCALAR_TYPES, ids=str)
def test_every_scalar_type_is_understood_and_null_when_empty(type_: pa.DataType) -> None:
    assert natural_type(type_) in SemanticType
    assert infer_semantic_types(pa.table({"x": pa.nulls(3, type_)})) == {"x": SemanticType.NULL}


def test_a_nested_type_has_no_meaning() -> None:
    with pytest.raises(SchemaError, match="list<item: int64>"):
        natural_type(pa.list_(pa.int64()))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3] * 5, "constant"),
        ([float("nan")] * 5, "constant"),
        (["k"] * 5, "constant"),
        ([3] * 4 + [None], "numeric"),
        ([True, None], "boolean"),
        ([float("nan"), 1.0], "numeric"),
    ],
)
def test_constants_have_one_value_and_no_null(values: list[Any], expected: str) -> None:
    assert infer(values) == expected


def test_a_constant_dictionary_with_unused_entries() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 0, 0]), pa.array(["k", "unused"]))
    assert infer_semantic_types(pa.table({"x": column}))["x"] is SemanticType.CONSTANT


@pytest.mark.parametrize("narrow", [pa.decimal32(5, 0), pa.decimal64(9, 2)], ids=str)
def test_narrow_decimals(narrow: pa.DataType) -> None:
    assert infer([Decimal(1), Decimal(2), None], narrow) == "numeric"
    assert infer([Decimal(1), Decimal(1)], narrow) == "constant"


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()], ids=str)
def test_all_different_texts_are_identifiers(type_: pa.DataType) -> None:
    names = [uuid.UUID(int=int(value)).hex for value in RNG.integers(0, 2**62, ROWS)]
    assert infer(names, type_) == "identifier"
    assert infer([*names[:-1], None], type_) == "identifier"
    assert infer(names[:49], type_) == "categorical"
    assert infer([*names, names[0]], type_) == "categorical"


@pytest.mark.parametrize(
    "values",
    [
        np.arange(ROWS),
        np.arange(ROWS)[::-1] * 10,
        RNG.permutation(ROWS) + 2**62,
        np.sort(RNG.choice(10**7, ROWS, replace=False)),
    ],
    ids=["counting", "backwards", "shuffled", "counting, sampled"],
)
def test_integers_that_number_rows_are_identifiers(values: np.ndarray) -> None:
    assert infer(values) == "identifier"
    assert infer(values[:49]) == "numeric"


def test_identifiers_at_the_end_of_uint64() -> None:
    assert infer([2**64 - 1 - i for i in range(ROWS)], pa.uint64()) == "identifier"
    assert infer([2**63 - 1 - i for i in range(ROWS)], pa.int64()) == "identifier"


@pytest.mark.parametrize(
    "values",
    [
        RNG.choice(10**6, ROWS, replace=False),
        np.sort(RNG.lognormal(10, 2, ROWS).astype(np.int64)),
        np.arange(ROWS) ** 2,
        np.array([-(2**63), 2**63 - 1, *range(ROWS)]),
        np.arange(ROWS).astype(np.float64),
    ],
    ids=["prices", "sorted incomes", "squares", "whole range", "floats"],
)
def test_all_different_quantities_stay_numeric(values: np.ndarray) -> None:
    assert infer(values) == "numeric"


def test_integers_with_nulls_or_repeats_stay_numeric() -> None:
    assert infer([*range(ROWS), None]) == "numeric"
    assert infer([*range(ROWS), 5]) == "numeric"


def test_overrides_have_the_last_word_but_not_over_facts() -> None:
    assert infer(np.arange(ROWS), x="numeric") == "numeric"
    assert infer([1, 2, 1], x="categorical") == "categorical"
    assert infer(["a", "b", "a"], x="identifier") == "identifier"
    assert infer([1, 1], x="categorical") == "constant"
    assert infer([None, None], pa.int8(), x="categorical") == "null"


@pytest.mark.parametrize(
    ("overrides", "kind", "words"),
    [
        ({"incme": "numeric"}, SchemaError, "did you mean 'income'"),
        ({"zzzzz": "numeric"}, SchemaError, "'zzzzz'"),
        ({"income": "numric"}, SettingsError, "numeric, categorical, identifier"),
        ({"income": "datetime"}, SchemaError, "int64"),
        ({"name": "numeric"}, SchemaError, "categorical or identifier"),
        ({"name": "constant"}, SchemaError, "categorical or identifier"),
    ],
)
def test_bad_overrides(overrides: dict[str, str], kind: type[Exception], words: str) -> None:
    table = pa.table({"income": [1, 2], "name": ["a", "b"]})
    with pytest.raises(kind, match=words) as caught:
        infer_semantic_types(table, overrides)
    assert "\n" not in str(caught.value)


def test_order_and_nasty_names_are_kept() -> None:
    table = pa.table({'z "q"': [1, 2], "<script>": ["a", "b"], "": [True, False]})
    assert list(infer_semantic_types(table)) == table.column_names
