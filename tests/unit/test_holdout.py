"""holdout.py and content_hash.py: a row stays on its side whatever happens to the rows and files around it."""

from pathlib import Path

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from tests.strategies import SCALAR_TYPES, arrays, exact, tables
from vae_ops.content_hash import content_hashes
from vae_ops.holdout import halve_holdout, held_out_rows, split_holdout
from vae_ops.table import open_source

HYPOTHESIS = hypothesis.settings(
    deadline=None, max_examples=50, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)


def some_rows(rows: int, seed: int = 0) -> pa.Table:
    """Rows that are all different, with nulls."""
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "number": pa.array(random.normal(size=rows)),
            "level": pa.array([None if i % 7 == 0 else i % 5 for i in range(rows)], pa.int16()),
            "word": pa.array(random.choice(["one", "two", "three", ""], rows)),
        }
    )


def contents(column: pa.ChunkedArray) -> list[str]:
    """Exact values, but for the sign of zero, which is no content."""
    return ["0.0" if value == "-0.0" else value for value in exact(column)]


def sides(table: pa.Table, fraction: float = 0.1) -> dict[tuple[str, ...], list[bool]]:
    """Which sides the copies of each row are on, in their order."""
    found: dict[tuple[str, ...], list[bool]] = {}
    held = held_out_rows(table, fraction, seed=0)
    for row, is_held in zip(zip(*map(contents, table.columns), strict=True), held, strict=True):
        found.setdefault(row, []).append(bool(is_held))
    return found


# --- a row stays where it is ---------------------------------------------------------------------------------------


def test_rows_stay_when_others_come_go_and_change_places() -> None:
    rows = some_rows(2_000)
    before = sides(rows)
    order = np.random.default_rng(1).permutation(2_000)
    assert sides(rows.take(order)) == before
    assert sides(pa.concat_tables([some_rows(500, seed=2), rows])).items() >= before.items()
    assert sides(rows.take(order[:300])).items() <= before.items()


def test_copies_of_a_row_keep_their_sides_by_number() -> None:
    rows = pa.table({"x": ["same"] * 500 + ["other"] * 300})
    more = pa.concat_tables([rows, rows]).take(np.random.default_rng(0).permutation(1_600))
    for row, found in sides(rows, 0.3).items():
        assert sides(more, 0.3)[row][: len(found)] == found


@HYPOTHESIS
@hypothesis.given(table=tables(min_rows=3), data=st.data())
def test_any_table_is_split_alike_in_any_order(table: pa.Table, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(table.num_rows)))
    moved = pa.concat_tables([table.slice(at, 1) for at in order]).unify_dictionaries()
    assert sides(moved, 0.3) == sides(table, 0.3)


# --- what a row is -------------------------------------------------------------------------------------------------


@HYPOTHESIS
@hypothesis.given(table=tables(min_rows=1))
def test_storage_makes_no_difference(table: pa.Table) -> None:
    hashes = content_hashes(table)
    pieces = pa.concat_tables([table.slice(at, 1) for at in range(table.num_rows)])
    assert content_hashes(pieces).tolist() == hashes.tolist()
    assert content_hashes(pieces.combine_chunks()).tolist() == hashes.tolist()
    assert content_hashes(table.slice(1)).tolist() == hashes[1:].tolist()
    assert content_hashes(table.select(table.column_names[::-1])).tolist() == hashes.tolist()
    decoded = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    assert content_hashes(pa.table(decoded, names=table.column_names)).tolist() == hashes.tolist()


def test_rows_hash_alike_in_memory_and_from_files(tmp_path: Path) -> None:
    rows = some_rows(1_000)
    coded = rows.set_column(2, "word", rows["word"].dictionary_encode())
    pq.write_table(rows.slice(0, 400), tmp_path / "1.parquet", row_group_size=77)
    pq.write_table(rows.slice(400), tmp_path / "2.parquet")
    read = open_source(tmp_path).sample(1_000, 0)
    assert content_hashes(read).tolist() == content_hashes(rows).tolist() == content_hashes(coded).tolist()


@pytest.mark.parametrize("type_", SCALAR_TYPES, ids=str)
@hypothesis.settings(deadline=None, max_examples=20, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(data=st.data())
def test_values_hash_alike_where_they_are_equal_and_only_there(type_: pa.DataType, data: st.DataObject) -> None:
    column = data.draw(arrays(type_, min_size=2, max_size=9))
    hashes = content_hashes(pa.table({"x": column})).tolist()
    values = contents(column)
    assert len(set(zip(values, hashes, strict=True))) == len(set(values)) == len(set(hashes))


def test_widths_of_numbers_and_text_are_no_content() -> None:
    for narrow, wide, values in (
        (pa.int8(), pa.int64(), [-5, 0, 7, None]),
        (pa.uint8(), pa.int32(), [0, 7, 255, None]),
        (pa.float32(), pa.float64(), [0.5, -0.25, None, float("nan")]),
        (pa.decimal32(7, 2), pa.decimal128(20, 2), [1, -2, None, 3]),
        (pa.string(), pa.large_string(), ["a", "", None, "é" * 5_000]),
        (pa.string_view(), pa.dictionary(pa.int8(), pa.string()), ["a", "", None, "é" * 5_000]),
    ):
        left, right = (content_hashes(pa.table({"x": pa.array(values, type_)})) for type_ in (narrow, wide))
        assert left.tolist() == right.tolist(), (narrow, wide)


def test_a_new_column_of_nulls_changes_no_hash() -> None:
    rows = some_rows(50)
    wider = rows.append_column("new", pa.nulls(50, pa.string()))
    assert content_hashes(wider).tolist() == content_hashes(rows).tolist()
    filled = rows.append_column("new", pa.array(["x"] * 50))
    assert not set(content_hashes(filled).tolist()) & set(content_hashes(rows).tolist())


def test_values_swapped_between_columns_are_another_row() -> None:
    one, other = (pa.table({"a": [left], "b": [right]}) for left, right in (("p", "q"), ("q", "p")))
    assert content_hashes(one) != content_hashes(other)


def test_text_of_any_length_is_hashed_by_all_its_bytes() -> None:
    long = "x" * 1_200_000
    values = ["", "a", "aa", "a\0", "\0a", long, long + "x", long[:-1] + "y", "y" + long[1:]]
    hashes = content_hashes(pa.table({"x": values}))
    assert len(set(hashes.tolist())) == len(values)
    assert hashes.tolist() == [int(content_hashes(pa.table({"x": [value]}))[0]) for value in values]


def test_hashes_outlive_this_version() -> None:
    """Were they to change, the rows that a model has learned would be held out from the next."""
    rows = pa.table(
        {
            "word": pa.array(["one", "", None]),
            "number": pa.array([1.5, -0.0, float("nan")]),
            "count": pa.array([1, None, -3], pa.int16()),
            "day": pa.array([0, 19_000, None], pa.int32()).cast(pa.date32()),
            "price": pa.array([1, None, 250]).cast(pa.decimal128(21, 2)),
        }
    )
    found = [f"{value:016x}" for value in content_hashes(rows).tolist()]
    assert found == ["4918469d6f1227ef", "8c26b10fa6b5ef4d", "76f843595b301fbb"]
    assert np.flatnonzero(held_out_rows(pa.table({"x": range(60)}), 0.1, 0)).tolist() == [12, 36, 42]


# --- how many, and which -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5])
def test_the_holdout_is_the_share_asked_for_within_chance(fraction: float) -> None:
    counts = [int(held_out_rows(some_rows(1_000), fraction, seed).sum()) for seed in range(200)]
    deviation = np.sqrt(1_000 * fraction * (1 - fraction))
    assert np.mean(counts) == pytest.approx(1_000 * fraction, abs=4 * deviation / np.sqrt(200))
    assert np.std(counts) == pytest.approx(deviation, rel=0.2)


def test_equal_rows_fall_like_different_ones() -> None:
    held = held_out_rows(pa.table({"x": [1] * 20_000}), 0.1, 0)
    assert held.sum() == pytest.approx(2_000, abs=4 * np.sqrt(1_800))


def test_neighbouring_values_fall_independently() -> None:
    held = held_out_rows(pa.table({"x": np.arange(20_000) / 4}), 0.5, 3)
    assert (held[1:] != held[:-1]).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(20_000))


def test_the_seed_decides_the_rows() -> None:
    rows = some_rows(5_000)
    first, second = (held_out_rows(rows, 0.1, seed) for seed in (0, 1))
    assert (first & second).sum() == pytest.approx(50, abs=30)
    assert (held_out_rows(rows, 0.1, 2**63 - 1) != first).any()


def test_a_larger_share_holds_the_same_rows_and_more() -> None:
    rows = some_rows(2_000)
    assert not (held_out_rows(rows, 0.1, 0) & ~held_out_rows(rows, 0.2, 0)).any()


def test_parts_are_whole_and_in_source_order() -> None:
    table = pa.table({"i": range(1_000)}).replace_schema_metadata({"about": "numbers"})
    parts = split_holdout(table, 0.1, 5)
    assert sorted(value for part in parts for value in part["i"].to_pylist()) == list(range(1_000))
    for part in parts:
        assert part.schema.equals(table.schema, check_metadata=True)
        assert part["i"].to_pylist() == sorted(part["i"].to_pylist())


@pytest.mark.parametrize(("rows", "smallest"), [(0, (0, 0)), (1, (1, 0)), (2, (1, 1)), (3, (1, 1))])
def test_both_parts_of_a_tiny_table_have_a_row(rows: int, smallest: tuple[int, int]) -> None:
    for seed in range(20):
        for fraction in (0.01, 0.5):
            training, holdout = split_holdout(pa.table({"x": range(rows)}), fraction, seed)
            assert training.num_rows + holdout.num_rows == rows
            assert (training.num_rows, holdout.num_rows) >= smallest
            assert holdout.num_rows >= smallest[1]


def test_halves_do_not_follow_from_the_sides() -> None:
    rows = pa.table({"x": range(40_000)})
    for seed in (0, 1, 7):
        tuning, test = halve_holdout(split_holdout(rows, 0.1, seed)[1])
        assert tuning.num_rows == pytest.approx(test.num_rows, abs=4 * np.sqrt(4_000))
    assert halve_holdout(pa.table({"x": [1]}))[0].num_rows == 1
