"""profiling.py: exact counts, sketches within their promise, sampled rows, the same bytes every time, and merges."""

import base64
import dataclasses
import itertools
import json
from decimal import Decimal
from pathlib import Path

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.strategies import tables
from vae_ops.errors import BundleError, ContentError, SourceError
from vae_ops.profiling import ColumnProfile, Profile, merge_profiles, profile_source
from vae_ops.table import open_source


def profile(table: pa.Table) -> Profile:
    return profile_source(open_source(table))


def column(values: object, type_: pa.DataType | None = None) -> ColumnProfile:
    return profile(pa.table({"x": pa.array(values, type_)})).columns[0]


def test_counts_and_bounds() -> None:
    found = column([3.5, None, float("nan"), -1.0, 3.5])
    assert (found.rows, found.nulls, found.nans, found.distinct, found.repeats) == (5, 1, 1, 2, 1)
    assert (found.minimum, found.maximum) == (-1.0, 3.5)
    assert found.frequent[0] == ("3.5", 2)
    assert (found.type, found.nullable, found.semantic_type) == ("double", True, "numeric")


def test_bounds_are_exact_where_doubles_are_not() -> None:
    assert column([2**63 - 1, 2**63 - 2]).maximum == 2**63 - 1
    assert column([2**64 - 1, 0], pa.uint64()).maximum == 2**64 - 1
    assert column([Decimal("0.10"), Decimal("12345678901234567.89")]).maximum == "12345678901234567.89"
    far = pa.array([2**62, -(2**62)]).cast(pa.timestamp("us", tz="UTC"))
    assert (column(far).minimum, column(far).maximum) == (-(2**62), 2**62)


def test_text_has_no_bounds_but_items() -> None:
    found = column(["b", "a", "b", "z" * 10_000])
    assert (found.minimum, found.maximum, found.quantile_sketch, found.quantile(0.5)) == (None, None, "", None)
    assert found.frequent[0] == ("b", 2)
    assert max(len(item) for item, _ in found.frequent) < 200


def test_long_texts_with_one_beginning_are_told_apart() -> None:
    found = column(["z" * 5000 + "1", "z" * 5000 + "2"] * 3)
    assert [count for _, count in found.frequent] == [3, 3]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([4] * 60, "constant"),
        ([float("nan")] * 60, "constant"),
        ([4] * 59 + [None], "numeric"),
        ([None] * 60, "null"),
        ([f"id-{i}" for i in range(500)], "identifier"),
        ([f"id-{i % 499}" for i in range(500)], "categorical"),
        (["a", "b"] * 30, "categorical"),
    ],
)
def test_semantic_guess(values: list[object], expected: str) -> None:
    table = pa.table({"x": values, "known": range(len(values))})
    assert profile(table).columns[0].semantic_type == expected


def test_sketches_keep_their_promise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    numbers, codes = rng.lognormal(size=200_000), rng.zipf(1.5, 200_000)
    pq.write_table(pa.table({"n": numbers, "c": codes.astype(str)}), tmp_path / "x.parquet", row_group_size=30_000)
    n, c = profile_source(open_source(tmp_path / "x.parquet")).columns
    assert abs(n.distinct / 200_000 - 1) < 0.08
    for rank in (0.001, 0.01, 0.25, 0.5, 0.9, 0.999):
        value = n.quantile(rank)
        assert value is not None
        assert abs((numbers < value).mean() - rank) < 0.01
    true = {str(code): int((codes == code).sum()) for code in (1, 2, 3, 4, 5)}
    assert [item for item, _ in c.frequent[:5]] == list(true)
    assert all(0 <= true[item] - count <= c.frequent_error < 0.01 * 200_000 for item, count in c.frequent[:5])


@hypothesis.settings(deadline=None, max_examples=60, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(table=tables())
def test_any_table_has_one_profile_that_survives_json(table: pa.Table) -> None:
    found = profile(table)
    text = json.dumps(found.to_dict(), sort_keys=True, allow_nan=False)
    assert Profile.from_dict(json.loads(text)) == found
    assert json.dumps(profile(table).to_dict(), sort_keys=True) == text
    assert found.schema.equals(table.schema, check_metadata=True)
    assert [c.nulls for c in found.columns] == [c.null_count for c in table.columns]
    assert merge_profiles([found]) == found


@hypothesis.settings(deadline=None, max_examples=40, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(table=tables(min_rows=4))
def test_partitions_merge_into_the_whole(table: pa.Table) -> None:
    # So that neither part is refused as all null.
    table = table.append_column("always known", pa.array(range(table.num_rows)))
    cut = table.num_rows // 2
    parts = [Profile.from_dict(profile(part).to_dict()) for part in (table.slice(0, cut), table.slice(cut))]
    merged, whole = merge_profiles(parts), profile(table)
    assert merged.rows == whole.rows
    # The order of additions may differ in a t-digest, and a repetition across two batches is not seen.
    free = {"quantile_sketch": "", "repeats": 0, "distinct_sketch": ""}
    for got, expected in zip(merged.columns, whole.columns, strict=True):
        assert dataclasses.replace(got, **free) == dataclasses.replace(expected, **free)


def test_merging_needs_one_schema() -> None:
    with pytest.raises(SourceError, match="one schema"):
        merge_profiles([profile(pa.table({"a": [1, 2]})), profile(pa.table({"a": ["1", "2"]}))])
    with pytest.raises(SourceError, match="at least one"):
        merge_profiles([])


def test_what_is_no_profile() -> None:
    good = profile(pa.table({"a": [1, 2]})).to_dict()
    for bad in ({**good, "format": 99}, {"format": 1}, {**good, "surprise": 1}, {**good, "columns": [{"name": "a"}]}):
        with pytest.raises(BundleError, match="profile") as caught:
            Profile.from_dict(bad)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(ContentError, match="'hot' holds infinities"):
        profile(pa.table({"ok": [1.0, 2.0], "hot": [1.0, float("inf")]}))
    with pytest.raises(ContentError, match="all 3 rows of 2 columns"):
        profile(pa.table({"a": pa.nulls(3, pa.string()), "b": pa.nulls(3)}))


def test_excluded_columns_are_named_and_not_looked_at() -> None:
    source = open_source(pa.table({"ok": [1.0, 2.0], "hot": [1.0, float("inf")]}), exclude=["hot"])
    found = profile_source(source)
    assert (found.excluded, [c.name for c in found.columns]) == (("hot",), ["ok"])
    assert found.fingerprint == source.fingerprint()


def numbered(count: int) -> pa.Table:
    return pa.table({"row": range(count), "text": [f"secret {row % 7}" for row in range(count)]})


def test_a_small_table_is_sampled_whole() -> None:
    rows = profile(pa.table({"a": [1.5, None, 3.0], "b": ["x", "y", "x"]})).sampled_rows()
    np.testing.assert_equal(np.sort(rows[:, 0]), [1.5, 3.0, np.nan])
    assert len(np.unique(rows[:, 1])) == 2


def test_sampled_rows_are_uniform_and_whole() -> None:
    found = profile(numbered(150_000))
    numbers, texts = found.sampled_rows().T
    assert len(np.unique(numbers)) == len(numbers) == 4096
    # Tenths of the source, whose batches end elsewhere.
    counts = np.bincount((numbers // 15_000).astype(np.int64), minlength=10)
    assert ((counts - 409.6) ** 2 / 409.6).sum() < 30
    assert all(len(np.unique(texts[numbers % 7 == rest])) == 1 for rest in range(7))
    assert "secret" not in base64.b64decode(found.sample).decode("latin-1")


def test_samples_of_partitions_merge_into_a_uniform_sample() -> None:
    cuts = (0, 100_000, 110_000, 150_000)
    parts = [profile(numbered(150_000).slice(low, high - low)) for low, high in itertools.pairwise(cuts)]
    merged = merge_profiles(parts)
    numbers = merged.sampled_rows()[:, 0]
    assert len(np.unique(numbers)) == 4096
    counts = np.histogram(numbers, cuts)[0]
    expected = 4096 * np.diff(cuts) / 150_000
    assert ((counts - expected) ** 2 / expected).sum() < 20
    # Nor does it matter in which order.
    again = merge_profiles([merge_profiles(parts[:2]), parts[2]])
    assert again.sample == merged.sample
    assert len(merged.sample) < 200_000


def test_a_wide_table_keeps_fewer_rows() -> None:
    wide = pa.table({f"c{index}": np.arange(3000.0) for index in range(100)})
    assert profile(wide).sampled_rows().shape == (2000, 100)


def test_synthetic_rows_are_counted() -> None:
    source = open_source(pa.table({"a": [1.0, 2.0]}))
    source.synthetic_rows = 7
    found = profile_source(source)
    assert merge_profiles([found, found]).synthetic_rows == 14


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (list(range(1000, 1500)), "identifier"),
        (list(range(0, 50_000, 100)), "identifier"),
        (np.random.default_rng(0).permutation(500).tolist(), "identifier"),
        (np.cumsum(np.random.default_rng(0).integers(1, 200, 500)).tolist(), "identifier"),
        (np.random.default_rng(0).permutation(50_000)[:500].tolist(), "numeric"),
        ([row**2 for row in range(500)], "numeric"),
        ([*range(0, 49_900, 100), 0], "numeric"),
    ],
)
def test_numbers_of_rows_are_told_from_quantities(values: list[int], expected: str) -> None:
    assert column(values).semantic_type == expected
    halves = (pa.table({"x": values[:200]}), pa.table({"x": values[200:]}))
    merged = merge_profiles([profile(half) for half in halves])
    assert merged.columns[0].rises == column(values).rises


def test_shares_below_points_between_values() -> None:
    found = column(np.random.default_rng(0).poisson(1000, 20_000))
    points = np.array([1000.5, 950.5, 1040.5])
    shares = found.shares_below(points)
    assert shares == pytest.approx([0.512, 0.06, 0.9], abs=0.02)
    assert column(["a", "b"]).shares_below(points).size == 0
