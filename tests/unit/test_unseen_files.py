"""Incremental sources: what a lineage has seen is known by content, and only files that came since are read."""

import shutil
from pathlib import Path

import pandas as pd  # noqa: TID253
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from vae_ops.errors import ContentError
from vae_ops.profiling import profile_source
from vae_ops.table import SourceTable, open_source


def day(directory: Path, number: int, *, rows: int = 3, **columns: object) -> Path:
    path = directory / f"day={number}" / "x.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"a": range(100 * number, 100 * number + rows), **columns}), path)
    return path


def values(source: SourceTable) -> list[int]:
    return [value for batch in source.batches() for value in batch.column("a").to_pylist()]


def test_only_files_that_came_since_are_read(tmp_path: Path) -> None:
    day(tmp_path, 1)
    day(tmp_path, 2)
    seen = open_source(tmp_path).files_seen()
    assert sorted(seen) == ["day=1/x.parquet", "day=2/x.parquet"]
    day(tmp_path, 3)
    fresh = open_source(tmp_path, unseen=seen)
    assert values(fresh) == [300, 301, 302]
    assert (fresh.num_rows, len(fresh.files)) == (3, 1)
    assert fresh.fingerprint() != open_source(tmp_path).fingerprint()
    assert sorted(fresh.files_seen()) == ["day=1/x.parquet", "day=2/x.parquet", "day=3/x.parquet"]
    assert values(open_source(tmp_path, unseen={})) == values(open_source(tmp_path))


def test_nothing_new_is_a_table_without_rows(tmp_path: Path) -> None:
    day(tmp_path, 1)
    known = open_source(tmp_path)
    nothing = open_source(tmp_path, unseen=known.files_seen(), min_rows=0)
    assert (nothing.num_rows, nothing.files, values(nothing)) == (0, (), [])
    assert nothing.schema.equals(known.schema)
    assert nothing.files_seen() == known.files_seen()
    assert nothing.sample(10, 0).num_rows == profile_source(nothing).rows == 0
    with pytest.raises(ContentError, match="at least 2 rows"):
        open_source(tmp_path, unseen=known.files_seen())


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    first = day(tmp_path, 1)
    seen = open_source(tmp_path).files_seen()
    first.rename(first.with_name("renamed.parquet"))
    assert open_source(tmp_path, unseen=seen, min_rows=0).num_rows == 0
    # The day is a column, so the same file of another day holds other rows.
    shutil.copytree(tmp_path / "day=1", tmp_path / "day=2")
    assert open_source(tmp_path, unseen=seen).sample(9, 0)["day"].to_pylist() == [2, 2, 2]
    day(tmp_path, 1).replace(tmp_path / "day=1" / "renamed.parquet")
    assert open_source(tmp_path, unseen=seen).num_rows == 3
    seen = open_source(tmp_path).files_seen()
    day(tmp_path, 2, rows=5)
    assert values(open_source(tmp_path, unseen=seen)) == [200, 201, 202, 203, 204]


def test_a_new_partition_may_have_new_columns(tmp_path: Path) -> None:
    day(tmp_path, 1)
    seen = open_source(tmp_path).files_seen()
    day(tmp_path, 2, b=["x", "y", "z"])
    assert open_source(tmp_path, unseen=seen).schema.names == ["a", "b", "day"]


def test_the_type_of_a_partition_does_not_follow_from_what_is_new(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), (tmp_path / "k=north").mkdir() or tmp_path / "k=north" / "x.parquet")
    seen = open_source(tmp_path).files_seen()
    pq.write_table(pa.table({"a": [3, 4]}), (tmp_path / "k=7").mkdir() or tmp_path / "k=7" / "x.parquet")
    fresh = open_source(tmp_path, unseen=seen)
    assert fresh.schema.field("k").type == pa.string()
    assert fresh.sample(9, 0)["k"].to_pylist() == ["7", "7"]


def test_a_single_file_and_what_is_no_file_are_seen_as_a_whole(tmp_path: Path) -> None:
    path, table = day(tmp_path, 1), pa.table({"a": [1, 2, 3]})
    for source in (path, table, table.to_pandas(), ds.dataset(path), ds.dataset(table)):
        seen = open_source(source).files_seen()
        assert len(seen) == 1
        assert open_source(source, unseen=seen, min_rows=0).num_rows == 0, type(source)
        assert open_source(source, unseen={"x.parquet": "0" * 32}).num_rows == 3
    assert open_source(pd.DataFrame({"a": [1, 2, 4]}), unseen=seen).num_rows == 3
