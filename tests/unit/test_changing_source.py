"""A source that changes while it is read is refused by the name of the file, and never gives a mixed table."""

import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.object_store import ObjectStore
from vae_ops import parquet_files
from vae_ops.errors import SourceError
from vae_ops.profiling import profile_source
from vae_ops.table import SourceTable, open_source

ROWS = 3_000


def write(path: Path, start: int) -> Path:
    # Values without a pattern, so that pages are far longer than a read-ahead, and files of equal numbers equally long.
    noise = np.random.default_rng(start).normal(size=ROWS)
    table = pa.table({"night": np.full(ROWS, start), "noise": noise})
    pq.write_table(table, path, row_group_size=1_000, compression="none", use_dictionary=False)
    return path


def replaced(path: Path) -> None:
    write(path.with_suffix(".new"), 99).replace(path)


def rewritten(path: Path) -> None:
    """The same length, the same time of writing even: another file has taken the name."""
    before = path.stat()
    other = write(path.with_suffix(".new"), 98)
    assert other.stat().st_size == before.st_size
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def overwritten(path: Path) -> None:
    path.write_bytes(write(path.with_suffix(".new"), 97).read_bytes())
    path.with_suffix(".new").unlink()


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(path.read_bytes())


def deleted(path: Path) -> None:
    path.unlink()


CHANGES = [replaced, rewritten, overwritten, truncated, appended, deleted]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_files, "_BATCH_ROWS", 500)


def refused(action: Callable[[], object], name: str = "2.parquet") -> None:
    with pytest.raises(SourceError, match=r"Expected .* to stay as it was when the source was opened") as caught:
        action()
    assert name in str(caught.value)


def opened(directory: Path) -> SourceTable:
    for number in (1, 2, 3):
        write(directory / f"{number}.parquet", number)
    return open_source(directory)


def read_all(source: SourceTable) -> pa.Table:
    return pa.Table.from_batches(source.batches(), source.schema)


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_before_it_is_read(change: Callable[[Path], None], tmp_path: Path) -> None:
    source = opened(tmp_path)
    change(tmp_path / "2.parquet")
    for action in (lambda: read_all(source), lambda: source.sample(9, 0), source.fingerprint, source.files_seen):
        refused(action)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("batches_before", [7, 8, 12])
def test_a_file_that_changes_while_it_is_read(
    change: Callable[[Path], None], batches_before: int, tmp_path: Path
) -> None:
    source = opened(tmp_path)
    batches = source.batches()
    for _ in range(batches_before):
        assert next(batches).num_rows == 500
    change(tmp_path / "2.parquet")
    refused(lambda: list(batches))


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_once_it_is_read_leaves_the_table_whole(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    source = opened(tmp_path)
    expected = read_all(source)
    batches = source.batches()
    first = [next(batches) for _ in range(13)]
    change(tmp_path / "2.parquet")
    assert pa.Table.from_batches([*first, *batches]) == expected
    refused(lambda: read_all(source))


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_between_profile_and_training(change: Callable[[Path], None], tmp_path: Path) -> None:
    source = opened(tmp_path)
    profile_source(source)
    change(tmp_path / "3.parquet")
    refused(lambda: source.sample(100, 0), "3.parquet")


def test_files_that_come_later_are_not_of_this_table(tmp_path: Path) -> None:
    source = opened(tmp_path)
    fingerprint = open_source(tmp_path).fingerprint()
    write(tmp_path / "0.parquet", 0)
    assert read_all(source).num_rows == 3 * ROWS
    assert source.fingerprint() == fingerprint
    assert open_source(tmp_path).num_rows == 4 * ROWS


def test_an_unchanged_file_may_be_read_and_linked(tmp_path: Path) -> None:
    source = opened(tmp_path)
    os.link(tmp_path / "2.parquet", tmp_path / "backup")
    os.chmod(tmp_path / "2.parquet", 0o600)
    assert read_all(source).num_rows == 3 * ROWS


def test_damage_that_was_there_before_is_no_change(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 9_000 + whole[9_004:])
    with pytest.raises(SourceError, match="Cannot read"):
        read_all(open_source(path))


def test_an_object_that_changes(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    content = {number: write(tmp_path / "x.parquet", number).read_bytes() for number in (1, 2)}
    for name in ("before", "between", "gone"):
        uri = f"memory://changing/{name}/x.parquet"
        fs.pipe_file(uri, content[1])
        source = open_source(uri)
        batches = source.batches()
        if name == "between":
            next(batches)
        if name == "gone":
            fs.rm(uri)
        else:
            fs.pipe_file(uri, content[2])
        refused(lambda batches=batches: list(batches), "x.parquet")
        refused(source.fingerprint, "x.parquet")
    fs.rm("memory://changing", recursive=True)


def test_an_object_that_is_replaced_in_a_bucket(object_store: ObjectStore, tmp_path: Path) -> None:
    key = object_store.location("table", "x.parquet")
    for before in (0, 1):
        key.write_atomic(write(tmp_path / "x.parquet", 1).read_bytes())
        source = open_source(object_store.uri("table"))
        batches = source.batches()
        for _ in range(before):
            next(batches)
        key.write_atomic(write(tmp_path / "x.parquet", 2).read_bytes())
        refused(lambda batches=batches: list(batches), "x.parquet")
        refused(source.fingerprint, "x.parquet")
        assert read_all(open_source(object_store.uri("table")))["night"].unique().to_pylist() == [2]


@pytest.mark.parametrize("change", [replaced, truncated, appended, deleted])
def test_a_dataset_that_changes(change: Callable[[Path], None], tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(tmp_path / f"{number}.parquet", number)
    source = open_source(ds.dataset(tmp_path))
    change(tmp_path / "2.parquet")
    refused(lambda: read_all(source))
    refused(source.fingerprint)
