"""Tables that must simply work, end to end with a real network and a few steps of training."""

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.strategies import NASTY_NAMES
from vae_ops import RunSettings, augment

pytestmark = pytest.mark.slow

ANYTHING_GOES = {
    "max_shape_error_percent": 100.0,
    "max_trend_error_percent": 100.0,
    "max_c2st_auc": 1.0,
    "borderline": 100,
}
SETTINGS = RunSettings.from_dict({"train": {"steps": 30}, "gate": {**ANYTHING_GOES, "max_copy_excess_percent": 100.0}})

RNG = np.random.default_rng(0)


def constant_and_null_columns() -> pa.Table:
    nothing = {"null": pa.nulls(200), "null text": pa.nulls(200, pa.string()), "null int": pa.nulls(200, pa.int32())}
    constant = {"seven": pa.repeat(pa.scalar(7, pa.int8()), 200), "word": pa.repeat("x", 200)}
    return pa.table({"x": RNG.normal(size=200), **constant, **nothing})


def only_constants() -> pa.Table:
    return pa.table({"a": pa.repeat(1, 50), "b": pa.repeat("x", 50)})


def nan_beside_null() -> pa.Table:
    values = [1.5, None, float("nan"), 2.5] * 100
    return pa.table({"x": pa.array(values), "half": pa.array(values, pa.float32()), "y": RNG.integers(0, 3, 400)})


def twenty_rows() -> pa.Table:
    return pa.table({"x": RNG.normal(size=20), "k": pa.array(list("ab") * 10), "n": RNG.integers(0, 5, 20)})


def two_rows() -> pa.Table:
    return pa.table({"x": [1.0, 2.0], "k": ["a", "b"]})


def many_columns() -> pa.Table:
    numbers = {f"n{i}": RNG.normal(size=300) for i in range(200)}
    return pa.table({**numbers, **{f"c{i}": RNG.choice(["a", "b", "c"], 300) for i in range(100)}})


def many_categories() -> pa.Table:
    return pa.table({"city": [f"city {i}" for i in RNG.integers(0, 50_000, 120_000)], "x": RNG.normal(size=120_000)})


def emoji_and_long_texts() -> pa.Table:
    texts = ["🦊🐻‍❄️", "", "é" * 5_000, "<b>&amp;</b>", "a\tb\nc", "日本語"]
    return pa.table({"text": pa.array(RNG.choice(texts, 300)), "raw": pa.array([b"\x00\xff", b"", None] * 100)})


def integers_near_the_edge() -> pa.Table:
    top = 2**63 - 1
    signed = [top - int(i) for i in RNG.integers(0, 2000, 300)]
    spread = [int(i) for i in RNG.integers(-(2**63), top, 300)]
    unsigned = pa.array([2**64 - 1 - int(i) for i in RNG.integers(0, 2000, 300)], pa.uint64())
    return pa.table({"top": signed, "spread": spread, "unsigned": unsigned})


def dates_far_away() -> pa.Table:
    days = pa.array([int(day) for day in RNG.integers(-700_000, 2_900_000, 300)], pa.int32()).cast(pa.date32())
    seconds = pa.array([int(s) for s in RNG.integers(-60_000_000_000, 250_000_000_000, 300)], pa.int64())
    return pa.table(
        {
            "day": days,
            "milli": pc.multiply(seconds, 1000).cast(pa.timestamp("ms")),
            "zoned": pc.multiply(seconds, 1_000_000).cast(pa.timestamp("us", "Europe/Vienna")),
            "time": pa.array([datetime.time(int(h), 30) for h in RNG.integers(0, 24, 300)]),
            "span": pa.array([datetime.timedelta(days=int(d)) for d in RNG.integers(-9, 9, 300)]),
        }
    )


def nasty_names() -> pa.Table:
    return pa.table({name: RNG.normal(size=100) for name in NASTY_NAMES})


def decimals_and_halves() -> pa.Table:
    money = [decimal.Decimal(int(cents)) / 100 for cents in RNG.integers(-10_000, 10_000, 200)]
    return pa.table(
        {
            "money": pa.array(money, pa.decimal128(12, 2)),
            "wide": pa.array(money, pa.decimal256(60, 2)),
            "half": pa.array(RNG.normal(size=200).astype(np.float16)),
            "flag": pa.array([True, None] * 100),
            "kind": pa.array(["a", "b"] * 100).dictionary_encode(),
        }
    )


TABLES: list[Callable[[], pa.Table]] = [
    constant_and_null_columns,
    only_constants,
    nan_beside_null,
    twenty_rows,
    two_rows,
    many_columns,
    many_categories,
    emoji_and_long_texts,
    integers_near_the_edge,
    dates_far_away,
    nasty_names,
    decimals_and_halves,
]


def bounds(column: pa.ChunkedArray) -> tuple[object, object]:
    found = pc.min_max(column)
    return found["min"], found["max"]


@pytest.mark.parametrize("make", TABLES, ids=lambda make: make.__name__)
@pytest.mark.timeout(600)
def test_an_awkward_table_simply_works(make: Callable[[], pa.Table], tmp_path: Path) -> None:
    pq.write_table(make(), tmp_path / "source.parquet", row_group_size=1000)
    source = pq.read_table(tmp_path / "source.parquet")
    result = augment(tmp_path / "source.parquet", tmp_path / "out", settings=SETTINGS)
    rows = pq.read_table(result.snapshot_path)
    assert rows.schema.remove_metadata().equals(
        source.schema.append(pa.field("_is_synthetic", pa.bool_(), nullable=False)).remove_metadata(),
        check_metadata=True,
    )
    assert (result.rows_source, result.rows_synthetic) == (source.num_rows, source.num_rows)
    synthetic = rows.filter(rows["_is_synthetic"])
    for field in source.schema:
        real, drawn = source[field.name], synthetic[field.name]
        if real.null_count == len(real):
            assert drawn.null_count == len(drawn)
        elif pa.types.is_integer(field.type) or (
            pa.types.is_temporal(field.type) and not pa.types.is_duration(field.type)
        ):
            low, high = bounds(real)
            assert pc.all(pc.and_(pc.greater_equal(drawn, low), pc.less_equal(drawn, high))).as_py()
        if not real.null_count:
            assert not drawn.null_count


def test_nan_and_null_both_survive(tmp_path: Path) -> None:
    result = augment(nan_beside_null(), tmp_path / "out", settings=SETTINGS)
    rows = pq.read_table(result.snapshot_path)
    synthetic = rows.filter(rows["_is_synthetic"])
    for name in ("x", "half"):
        assert synthetic[name].null_count
        assert pc.sum(pc.is_nan(synthetic[name])).as_py()
