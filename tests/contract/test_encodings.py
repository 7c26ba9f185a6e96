"""Every encoding through the same checks: whatever the Arrow type and the values, there and back."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import strategies
from vae_ops.bundle import Bundle
from vae_ops.encoding.base import NOT_APPLICABLE, Codes, Encoding
from vae_ops.encoding.row import ENCODINGS, TokenLayout, fit_encoding
from vae_ops.schema import SemanticType, infer_semantic_types

ANY_COLUMN = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def fitted(array: pa.Array, name: str = "x") -> Encoding:
    field = pa.field(name, array.type)
    table = pa.Table.from_arrays([array], schema=pa.schema([field]))
    return fit_encoding(field, array, infer_semantic_types(table)[name], rare_rows=1)


def saved_and_loaded(encoding: Encoding) -> Encoding:
    state = Bundle.pack({"state": encoding.state()}).unpack()["state"]
    return ENCODINGS[encoding.kind].from_state(encoding.field, state)


def check_codes(encoding: Encoding, codes: Codes, rows: int) -> None:
    layout, tokens = TokenLayout.of((encoding,)), codes.tokens
    assert tokens.shape == codes.fractions.shape == (rows, len(encoding.tokens))
    assert (tokens.dtype, codes.fractions.dtype) == (np.int32, np.float32)
    assert np.all((codes.fractions >= 0) & (codes.fractions <= 1))
    for index, token in enumerate(encoding.tokens):
        applies = layout.applies(index, tokens)
        assert np.all((tokens[:, index] != NOT_APPLICABLE) == applies)
        assert np.all(tokens[:, index] < token.size)
        assert np.all(codes.fractions[tokens[:, index] < token.first_bin, index] == 0.5)
    assert np.all(np.isfinite(layout.positions(codes)))


@pytest.mark.parametrize("type_", strategies.SCALAR_TYPES, ids=str)
@ANY_COLUMN
@given(data=st.data())
def test_any_column_comes_back_with_its_type_its_nulls_and_its_tokens(type_: pa.DataType, data: st.DataObject) -> None:
    array = data.draw(strategies.arrays(type_, min_size=1))
    encoding = fitted(array)
    codes = encoding.encode(array)
    check_codes(encoding, codes, len(array))
    for_any_values = encoding.decode(codes, first_row=0)
    assert for_any_values.is_null().equals(array.is_null())
    array = repeated(array)
    encoding = fitted(array)
    codes = encoding.encode(array)
    decoded = encoding.decode(codes, first_row=0)
    decoded.validate(full=True)
    assert decoded.type == array.type
    assert decoded.is_null().equals(array.is_null())
    assert np.array_equal(encoding.encode(decoded).tokens, codes.tokens)
    loaded = saved_and_loaded(encoding)
    assert np.array_equal(loaded.encode(array).tokens, codes.tokens)
    assert np.array_equal(loaded.encode(array).fractions, codes.fractions)
    assert strategies.exact(loaded.decode(codes, 0)) == strategies.exact(decoded)


@pytest.mark.parametrize("type_", strategies.SCALAR_TYPES, ids=str)
@ANY_COLUMN
@given(data=st.data())
def test_few_distinct_values_come_back_exactly(type_: pa.DataType, data: st.DataObject) -> None:
    array = repeated(data.draw(strategies.arrays(type_, min_size=1)))
    encoding = fitted(array)
    decoded = encoding.decode(encoding.encode(array), first_row=0)
    assert plainly(decoded) == plainly(array)


def repeated(array: pa.Array) -> pa.Array:
    """Each value often enough to be learned by itself."""
    return pa.concat_arrays([array] * 4)


def plainly(array: pa.Array) -> list[str]:
    """The values as text; zeros have no sign, and of decimals wider than 64 bits the leading digits count."""
    if pa.types.is_decimal(array.type):
        return ["None" if value is None else f"{float(value):.14e}" for value in array.to_pylist()]
    return ["0.0" if text == "-0.0" else text for text in strategies.exact(array)]


@pytest.mark.parametrize("type_", strategies.SCALAR_TYPES, ids=str)
@ANY_COLUMN
@given(data=st.data())
def test_any_tokens_that_the_decoder_may_draw_can_be_decoded(type_: pa.DataType, data: st.DataObject) -> None:
    encoding = fitted(data.draw(strategies.arrays(type_, min_size=1)))
    layout = TokenLayout.of((encoding,))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    tokens = np.full((50, len(encoding.tokens)), NOT_APPLICABLE, dtype=np.int32)
    for index, token in enumerate(encoding.tokens):
        tokens[:, index] = np.where(layout.applies(index, tokens), rng.integers(0, token.size, 50), NOT_APPLICABLE)
    decoded = encoding.decode(Codes.of(tokens, rng.random(tokens.shape)), first_row=1000)
    decoded.validate(full=True)
    assert len(decoded) == 50
    assert decoded.type == type_


def spread(type_: pa.DataType, rows: int = 3000) -> pa.Array:
    """Many distinct values over much of the type's range, with nulls."""
    rng = np.random.default_rng(1)
    if pa.types.is_floating(type_):
        found: list[Any] = rng.normal(size=rows).astype(type_.to_pandas_dtype()).tolist()
    elif pa.types.is_decimal(type_):
        digits = 10 ** min(type_.precision, 30)
        found = [strategies.decimal.Decimal(int(v * digits)).scaleb(-type_.scale) for v in rng.uniform(-1, 1, rows)]
    else:
        bits = 64 if type_.bit_width == 64 else type_.bit_width
        high = 2 ** (bits - 1) - 1 if not pa.types.is_unsigned_integer(type_) else 2**bits - 1
        low = -high if not pa.types.is_unsigned_integer(type_) else 0
        if pa.types.is_time(type_):
            low, high = 0, 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[str(type_).split("[")[1][:-1]] - 1
        step = 86_400_000 if pa.types.is_date64(type_) else 1
        found = [low + int(share * (high - low)) for share in rng.beta(2, 5, rows)]
        found = [value // step * step for value in found]
    found[::17] = [None] * len(found[::17])
    return strategies.build(found, type_)


WIDE_TYPES = [
    type_
    for type_ in strategies.SCALAR_TYPES
    if (pa.types.is_integer(type_) and type_.bit_width > 8)
    or (pa.types.is_temporal(type_))
    or pa.types.is_floating(type_)
    or pa.types.is_decimal(type_)
]


@pytest.mark.parametrize("type_", WIDE_TYPES, ids=str)
def test_binned_values_come_back_inside_their_range_and_near_themselves(type_: pa.DataType) -> None:
    array = spread(type_)
    encoding = fitted(array)
    codes = encoding.encode(array)
    check_codes(encoding, codes, len(array))
    decoded = encoding.decode(codes, first_row=0)
    assert decoded.type == array.type
    assert decoded.is_null().equals(array.is_null())
    before, after = as_floats(array), as_floats(decoded)
    assert np.nanmin(before) <= np.nanmin(after)
    assert np.nanmax(after) <= np.nanmax(before)
    ranks = np.searchsorted(np.sort(before[~np.isnan(before)]), [before, after])
    # Dates move to the nearest day with their weekday, by up to half a week.
    most = 0.02 if encoding.kind == "temporal" else 0.001
    assert np.nanquantile(np.abs(ranks[0] - ranks[1]) / len(array), 0.99) < most
    loaded = saved_and_loaded(encoding)
    assert strategies.exact(loaded.decode(codes, 0)) == strategies.exact(decoded)


def as_floats(array: pa.Array) -> np.ndarray:
    if pa.types.is_temporal(array.type):
        array = array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return np.array([np.nan if value is None else float(value) for value in array.to_pylist()])


def test_rare_categories_are_never_emitted() -> None:
    array = pa.array(["common"] * 60 + ["often"] * 39 + ["secret-1"])
    field = pa.field("x", array.type)
    encoding = fit_encoding(field, array, SemanticType.CATEGORICAL, rare_rows=5)
    tokens = np.array([[t] for t in range(encoding.tokens[0].size)] * 20, dtype=np.int32)
    fractions = np.linspace(0, 1, len(tokens))
    assert set(encoding.decode(Codes.of(tokens, fractions), 0).to_pylist()) == {"common", "often"}
    assert encoding.tokens[0].blocked == (2,)


def test_a_column_of_rare_categories_gets_pseudonyms_of_the_same_look() -> None:
    array = pa.array([f"AB-{i:05d}" for i in range(2000)] * 2)
    encoding = fit_encoding(pa.field("x", array.type), array, SemanticType.CATEGORICAL, rare_rows=5)
    codes = Codes.of(encoding.encode(array).tokens, np.random.default_rng(0).random(len(array)))
    decoded = encoding.decode(codes, 0).to_pylist()
    assert not set(decoded) & set(array.to_pylist())
    assert len(set(decoded)) > 500
    assert all(len(value) == 8 and value[:3] == "AB-" and value[3:].isdigit() for value in decoded)


def test_identifiers_are_new_and_unique_across_shards() -> None:
    for array in (pa.array([f"u-{i:06d}" for i in range(1000)]), pa.array(range(1000, 2000))):
        encoding = fitted(array)
        assert encoding.kind == "identifier"
        drawn = [v for first in (0, 4096, 8192) for v in encoding.decode(Codes.none(4096), first).to_pylist()]
        assert len(set(drawn)) == len(drawn)
        if isinstance(drawn[0], int):
            assert not set(drawn) & set(array.to_pylist())


def test_weekdays_and_office_hours_survive() -> None:
    rng = np.random.default_rng(0)
    day = np.datetime64("2020-01-06") + rng.integers(0, 200, 5000) * 7 + rng.integers(0, 5, 5000)
    ticks = day.astype("datetime64[s]") + rng.integers(9 * 3600, 17 * 3600, 5000).astype("timedelta64[s]")
    array = pa.array(ticks)
    encoding = fitted(array)
    assert encoding.kind == "temporal"
    decoded = encoding.decode(encoding.encode(array), 0).to_numpy()
    seconds = decoded.astype("int64")
    assert np.all((seconds // 86_400 + 3) % 7 < 5)
    assert np.all((seconds % 86_400 >= 9 * 3600) & (seconds % 86_400 < 17 * 3600))


def test_floats_keep_their_decimals() -> None:
    rng = np.random.default_rng(0)
    array = pa.array(np.round(rng.lognormal(3, 1, 5000), 2))
    tokens = fitted(array).encode(array).tokens
    decoded = fitted(array).decode(Codes.of(tokens, rng.random(len(array))), 0).to_numpy()
    assert np.array_equal(np.round(decoded, 2), decoded)
