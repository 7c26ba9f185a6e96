"""drift: what moved is found and named, what chance does is not, and a broken upstream is told from a changed world."""

import dataclasses
import json
from datetime import date, timedelta
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.strategies import tables
from vae_ops.drift import ColumnDrift, Drift, PairDrift, measure_drift
from vae_ops.errors import BundleError, ContentError
from vae_ops.profiling import Profile, merge_profiles, profile_source
from vae_ops.settings import RefreshSettings
from vae_ops.table import open_source

ROWS = 4000
FIRST_DAY = date(2024, 1, 1)


def rows(seed: int, count: int = ROWS, days: int = 100) -> pa.Table:
    random = np.random.default_rng(seed)
    size = random.lognormal(sigma=0.3, size=count)
    return pa.table(
        {
            "size": size,
            "age": random.poisson(40, count),
            "price": pa.array(np.round(size * random.uniform(1, 2, count), 2), pa.float32()),
            "kind": random.choice(["a", "b", "c"], count, p=[0.6, 0.3, 0.1]),
            "rare": random.random(count) < 0.01,
            "day": [FIRST_DAY + timedelta(int(day)) for day in random.integers(0, days, count)],
            "name": [f"{seed}-{row}" for row in range(count)],
        }
    )


def profile(table: pa.Table) -> Profile:
    return profile_source(open_source(table))


REFERENCE = profile(rows(0))


def drift(table: pa.Table, reference: Profile = REFERENCE, **settings: Any) -> Drift:
    return measure_drift(reference, profile(table), RefreshSettings(**{"retrain_drift": 0.25, **settings}))


def with_column(table: pa.Table, name: str, values: object, type_: pa.DataType | None = None) -> pa.Table:
    return table.set_column(
        table.column_names.index(name), name, pa.array(values, type_ or table.schema.field(name).type)
    )


def without_some(table: pa.Table, name: str, share: float, instead: object = None) -> pa.Table:
    mask = pa.array(np.random.default_rng(9).random(len(table)) < share)
    column = table.column(name).combine_chunks()
    return with_column(table, name, pc.if_else(mask, pa.scalar(instead, column.type), column))


def of(found: Drift, name: str) -> ColumnDrift:
    return next(column for column in found.columns if column.column == name)


def only(found: Drift) -> ColumnDrift | PairDrift:
    """The only thing that moved."""
    moved = [part for part in (*found.columns, *found.pairs) if part.movement != "quiet"]
    assert len(moved) == 1, found.sentences
    return moved[0]


@pytest.mark.parametrize("seed", range(1, 5))
def test_samples_of_one_table_are_quiet(seed: int) -> None:
    found = drift(rows(seed), max_drift=0.0)
    assert (found.movement, found.sentences) == ("quiet", ())
    assert {column.column for column in found.columns} == {*rows(0, 2).column_names}
    assert len(found.pairs) == 6 * 5 / 2, "an identifier depends on nothing"


def test_a_table_has_not_moved_from_itself() -> None:
    found = measure_drift(REFERENCE, REFERENCE, RefreshSettings(max_drift=0.0))
    assert found.movement == "quiet"
    assert max(part.distance for part in (*found.columns, *found.pairs)) == 0


def test_columns_that_came_went_or_changed_their_type() -> None:
    table = rows(1).drop_columns(["kind"]).append_column("extra", pa.array(range(ROWS)))
    table = with_column(table, "age", pc.cast(table.column("age"), pa.float64()), pa.float64())
    found = drift(table)
    assert found.movement == "schema"
    assert [of(found, name).aspect for name in ("extra", "kind", "age")] == ["new", "gone", "retyped"]
    assert "'age' was int64 and is double now" in of(found, "age").sentence
    assert len(found.sentences) == 3


def test_a_column_that_may_be_null_no_longer_is_another_type() -> None:
    table = rows(1)
    field = table.schema.field("age").with_nullable(False)
    strict = table.cast(table.schema.set(table.column_names.index("age"), field))
    assert "int64 without nulls" in only(drift(strict)).sentence


def test_columns_in_another_order_are_another_schema() -> None:
    names = rows(1, 2).column_names
    found = drift(rows(1).select([*names[:2], names[3], names[2], *names[4:]]))
    assert found.movement == "schema"
    assert {column.column for column in found.columns if column.movement == "schema"} == {"price", "kind"}


def test_a_column_of_another_type_may_be_broken_too() -> None:
    found = drift(
        without_some(with_column(rows(1), "age", rows(1).column("age").to_numpy() * 1.0, pa.float64()), "age", 0.4)
    )
    assert (found.movement, of(found, "age").movement, len(found.columns)) == ("broken", "broken", 7)


@pytest.mark.parametrize("instead", [None, float("nan")])
def test_many_more_missing_values_are_a_broken_upstream(instead: object) -> None:
    found = drift(without_some(rows(1), "size", 0.4, instead))
    assert found.movement == "broken"
    assert only(found) == of(found, "size")
    for expected in ("'size'", "39.5 %", "upstream", "refresh.broken_null_share=off"):
        assert expected in found.sentences[0]


def test_some_more_missing_values_are_not() -> None:
    assert only(drift(without_some(rows(1), "size", 0.1))).movement == "moved"
    assert only(drift(without_some(rows(1), "size", 0.4), broken_null_share=None)).movement == "large"


def test_fewer_missing_values_are_good_news() -> None:
    reference = profile(without_some(rows(0), "size", 0.5))
    assert of(drift(rows(1), reference), "size").movement == "large"


def test_three_nulls_in_ten_rows_may_be_chance() -> None:
    found = drift(with_column(rows(1, 10), "size", [None] * 3 + [1.0] * 7), profile(rows(0, 10)))
    assert of(found, "size").movement == "quiet"


@pytest.mark.parametrize("name", ["size", "kind", "day", "name"])
def test_a_column_that_became_all_null_is_broken(name: str) -> None:
    found = drift(without_some(rows(1), name, 1.1))
    assert only(found).movement == "broken"
    # However few nulls it takes: it was nearly all null before.
    nearly = profile(without_some(rows(0), name, 0.9))
    found = drift(without_some(rows(1), name, 1.1), nearly)
    assert (of(found, name).movement, of(found, name).aspect) == ("broken", "nulls")
    assert "no value at all" in of(found, name).sentence


@pytest.mark.parametrize(("name", "value"), [("size", 1.0), ("kind", "a"), ("day", FIRST_DAY)])
def test_a_column_that_became_constant_is_broken(name: str, value: object) -> None:
    table = without_some(rows(1), name, 1.1, value)
    assert "holds nothing but" in only(drift(table)).sentence
    assert only(drift(table)).movement == "broken"
    assert only(drift(table, broken_null_share=None)).movement == "large"


def test_a_rare_flag_that_is_never_set_moved_but_is_not_broken() -> None:
    found = only(drift(without_some(rows(1), "rare", 1.1, False)))
    assert (found.movement, "upstream" in found.sentence) == ("moved", False)


def test_a_new_category_moved_however_small_its_share() -> None:
    found = only(drift(without_some(rows(1), "kind", 0.01, "d")))
    assert (found.movement, found.distance < 0.02) == ("moved", True)
    assert "'d'" in found.sentence
    assert of(drift(without_some(rows(1), "kind", 0.4, "d")), "kind").movement == "large"


def test_a_category_of_too_few_rows_may_be_chance() -> None:
    table = rows(1)
    kinds = ["d"] * 4 + table.column("kind").to_pylist()[4:]
    assert drift(with_column(table, "kind", kinds)).movement == "quiet"


def test_a_category_that_vanished_moved() -> None:
    reference = profile(without_some(rows(0), "kind", 0.01, "d"))
    found = only(drift(rows(1), reference))
    assert (found.movement, "lost" in found.sentence) == ("moved", True)


def test_shares_of_categories_that_moved() -> None:
    found = only(drift(without_some(rows(1), "kind", 0.15, "c")))
    assert isinstance(found, ColumnDrift)
    assert (found.aspect, found.movement) == ("categories", "moved")
    assert found.distance == pytest.approx(0.135, abs=0.02)
    assert "'c' from 9" in found.sentence or "'c' from 10" in found.sentence


def test_values_beyond_the_old_range_moved() -> None:
    for sentinel, where in ((-999.0, "below"), (1e6, "above")):
        found = only(drift(without_some(rows(1), "size", 0.01, sentinel)))
        assert (found.movement, where in found.sentence) == ("moved", True)


@pytest.mark.parametrize("seed", range(3))
def test_values_that_many_rows_share_are_not_smeared_into_a_drift(seed: int) -> None:
    random = np.random.default_rng(seed)
    tables = (np.clip(np.where(random.random(60_000) < 0.4, 0, random.normal(size=60_000)), -2, 1.5) for _ in range(2))
    first, second = (pa.table({"x": np.append(values, end)}) for values, end in zip(tables, (1.5, 9.9), strict=True))
    parts = [profile(second.slice(start, 9_000)) for start in range(0, 60_000, 9_000)]
    assert measure_drift(profile(first), merge_profiles(parts), RefreshSettings(max_drift=0.0)).sentences == ()


def test_days_go_on_until_their_share_counts() -> None:
    assert drift(rows(1, days=101)).movement == "quiet"
    found = only(drift(rows(1, days=120)))
    assert (found.movement, "2024-0" in found.sentence) == ("moved", True)


def test_ten_percent_of_scale_moved_and_twice_is_large() -> None:
    for name in ("size", "age"):
        for factor, movement in ((1.1, "moved"), (2.0, "large")):
            values = np.round(rows(1).column(name).to_numpy() * factor, 0 if name == "age" else 9)
            found = drift(with_column(rows(1), name, values.astype("i8" if name == "age" else "f8")))
            assert only(found) == of(found, name), "what one column does by itself moves no pair"
            assert of(found, name).movement == movement


def test_a_spread_that_changed_about_its_middle_moved() -> None:
    size = rows(1).column("size").to_numpy()
    found = only(drift(with_column(rows(1), "size", np.median(size) + (size - np.median(size)) * 1.25)))
    assert (found.movement, "between" in found.sentence) == ("moved", True)


def test_identifiers_count_by_their_nulls_only() -> None:
    table = rows(1).append_column("row", pa.array(range(ROWS, 2 * ROWS)))
    reference = profile(rows(0).append_column("row", pa.array(range(ROWS))))
    assert drift(table, reference).movement == "quiet"
    assert only(drift(without_some(rows(1), "name", 0.1))).movement == "moved"
    found = only(drift(without_some(rows(1), "name", 0.1, "unknown")))
    assert (found.movement, "'unknown'" in found.sentence) == ("moved", True)


def test_dependence_that_was_lost_is_found_though_no_column_moved() -> None:
    table = rows(1)
    shuffled = np.random.default_rng(3).permutation(table.column("price").to_numpy())
    found = drift(with_column(table, "price", shuffled))
    pair = only(found)
    assert isinstance(pair, PairDrift)
    assert ({pair.first, pair.second}, pair.movement) == ({"size", "price"}, "large")


def test_dependence_of_texts_is_found() -> None:
    table = rows(1)
    tied = np.where(table.column("age").to_numpy() > 40, "a", "b")
    loose = np.random.default_rng(3).permutation(tied)
    found = drift(
        with_column(table, "kind", loose),
        profile(with_column(rows(0), "kind", np.where(rows(0).column("age").to_numpy() > 40, "a", "b"))),
    )
    assert [(pair.first, pair.second) for pair in found.pairs if pair.movement != "quiet"] == [("age", "kind")]


def test_millions_of_rows_see_more_than_thousands_and_are_quick() -> None:
    shifted = with_column(rows(0), "size", rows(0).column("size").to_numpy() * 1.03)
    assert drift(shifted).movement == "quiet"
    many = merge_profiles([REFERENCE] * 60), merge_profiles([profile(shifted)] * 60)
    assert of(measure_drift(*many, RefreshSettings()), "size").movement == "moved"


def test_a_wide_table_has_no_more_false_alarms_and_all_its_columns() -> None:
    noise = [np.random.default_rng(seed).normal(size=(300, 230)) for seed in (1, 2)]
    wide = [profile(pa.table({f"c{index}": column for index, column in enumerate(part.T)})) for part in noise]
    found = measure_drift(*wide, RefreshSettings(max_drift=0.0))
    assert (found.movement, len(found.columns), len(found.pairs)) == ("quiet", 230, 100)


def test_the_record_survives_json_and_is_the_same_every_time() -> None:
    found = drift(without_some(rows(1), "kind", 0.15, "c"))
    assert found == drift(without_some(rows(1), "kind", 0.15, "c"))
    assert Drift.from_dict(json.loads(json.dumps(dataclasses.asdict(found)))) == found
    assert found.rows == found.rows_reference == ROWS


def test_a_damaged_sample_is_named() -> None:
    for sample in ("no base64", "eJw=", REFERENCE.sample[:80]):
        with pytest.raises(BundleError, match="sampled rows"):
            measure_drift(dataclasses.replace(REFERENCE, sample=sample), REFERENCE, RefreshSettings())


@hypothesis.settings(deadline=None, max_examples=30, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(table=tables(min_rows=4))
def test_any_table_can_be_compared(table: pa.Table) -> None:
    cut = table.num_rows // 2
    try:
        parts = [profile(part) for part in (table.slice(0, cut), table.slice(cut))]
    except ContentError:
        hypothesis.reject()
    for reference in parts:
        found = measure_drift(reference, parts[1], RefreshSettings(max_drift=0.0, broken_null_share=0.01))
        assert len(found.columns) == table.num_columns
        for part in (*found.columns, *found.pairs):
            assert 0 <= part.distance <= 1
            assert 0 <= part.noise <= 1
            assert part.sentence.endswith(".")
    assert measure_drift(parts[0], parts[0], RefreshSettings(max_drift=0.0)).movement == "quiet"
