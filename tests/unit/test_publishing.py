"""Snapshots: exact schemas, bytes that depend on rows alone, and a pointer that never lies."""

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import exact, tables
from vae_ops.errors import OutputError, SourceError
from vae_ops.publishing import (
    LatestSnapshot,
    Provenance,
    commit_snapshot,
    load_latest,
    part_provenance,
    point_to,
    published_schema,
    read_rows,
    stage_snapshot,
    verify_part,
    write_parquet,
    write_parts,
    write_rows,
)
from vae_ops.storage import Location, locate
from vae_ops.store import Output

PROVENANCE = Provenance(model_version="m1", seed=7, source_fingerprint="f", recipe="r")
TABLE = pa.table({"x": pa.array(range(3000), pa.int16()), "s": pa.array([str(i) for i in range(3000)])})


def batches_of(table: pa.Table, rows: int) -> Iterator[pa.RecordBatch]:
    yield from table.to_batches(max_chunksize=rows)


def publish(output: Output, table: pa.Table, *, run_id: str = "r1", keep: int = 7, **facts: Any) -> LatestSnapshot:
    schema = published_schema(table.schema, include_source=True)
    with output.staging(run_id) as staging:
        files = stage_snapshot(
            staging, schema, source=table.to_batches(), synthetic=table[:5].to_batches(), provenance=PROVENANCE
        )
        return commit_snapshot(
            output,
            staging,
            files,
            schema=schema,
            provenance=PROVENANCE,
            record={"verdict": "pass", **facts},
            report={"metrics": {}},
            page=b"<!doctype html>",
            keep_snapshots=keep,
        )


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(locate(tmp_path / "out"))


def test_bytes_depend_on_rows_and_not_on_batches(tmp_path: Path) -> None:
    place = locate(tmp_path)
    for rows in (1, 7, 1024, 3000):
        write_parquet(place, f"{rows}.parquet", TABLE.schema, batches_of(TABLE, rows), PROVENANCE)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_wide_texts_make_small_row_groups(tmp_path: Path) -> None:
    table = pa.table({"s": ["x" * 40_000] * 4096})
    write_parquet(locate(tmp_path), "a.parquet", table.schema, table.to_batches(), PROVENANCE)
    footer = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [2048, 2048]


def test_many_rows_make_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_ops.publishing._GROUP_ROWS", 1024)
    monkeypatch.setattr("vae_ops.publishing._FILE_GROUPS", 2)
    names = write_parts(locate(tmp_path), "part", TABLE.schema, batches_of(TABLE, 100), PROVENANCE)
    assert names == ["part-00000.parquet", "part-00001.parquet"]
    assert pq.read_table(tmp_path) == TABLE


def test_no_rows_make_one_empty_file(tmp_path: Path) -> None:
    assert write_parts(locate(tmp_path), "part", TABLE.schema, [], PROVENANCE) == ["part-00000.parquet"]
    assert pq.read_table(tmp_path / "part-00000.parquet").equals(TABLE.schema.empty_table())


def test_a_file_that_fails_halfway_never_appears(tmp_path: Path) -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        yield from TABLE.to_batches()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_parquet(locate(tmp_path), "a.parquet", TABLE.schema, failing(), PROVENANCE)
    assert list(tmp_path.iterdir()) == []


def test_provenance_stands_in_the_key_value_metadata(tmp_path: Path) -> None:
    write_parquet(locate(tmp_path), "a.parquet", TABLE.schema, TABLE.to_batches(), PROVENANCE)
    found = pq.read_metadata(tmp_path / "a.parquet").metadata
    assert found[b"vae_ops.model_version"] == b"m1"
    assert found[b"vae_ops.seed"] == b"7"
    assert part_provenance(locate(tmp_path / "a.parquet")) == PROVENANCE


def test_key_values_of_the_source_survive(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("x", pa.int8(), metadata={"unit": "m"})], metadata={"owner": "me"})
    write_parquet(locate(tmp_path), "a.parquet", schema, schema.empty_table().to_batches(), PROVENANCE)
    found = pq.read_schema(tmp_path / "a.parquet")
    assert found.metadata[b"owner"] == b"me"
    assert found.field("x").metadata == {b"unit": b"m"}


@given(tables(min_rows=1), st.booleans())
def test_a_snapshot_reads_back_with_exactly_the_promised_schema(table: pa.Table, include_source: bool) -> None:
    # What a Parquet source can hold: the types after one trip through a file.
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    table = pq.read_table(pa.BufferReader(sink.getvalue()))
    schema = published_schema(table.schema, include_source=include_source)
    place = locate(f"memory://snapshots/{uuid.uuid4().hex}")
    source = table.to_batches() if include_source else None
    files = stage_snapshot(place, schema, source=source, synthetic=table.to_batches(), provenance=PROVENANCE)
    for file in files:
        with place.child(file.name).open_input() as stream:
            found = pq.read_table(stream)
        assert found.schema.remove_metadata().equals(schema.remove_metadata(), check_metadata=True)
        for name in table.schema.names:
            assert exact(found[name]) == exact(table[name])
    place.remove()


def test_rows_survive_arrow_files_in_types_that_parquet_lacks(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([1, None], pa.timestamp("s")), "d": pa.array(["a", "b"]).dictionary_encode()})
    write_rows(locate(tmp_path), "rows.arrow", table)
    assert read_rows(locate(tmp_path / "rows.arrow")).equals(table)


@pytest.mark.parametrize("damage", ["truncate", "schema"])
def test_a_file_that_does_not_read_back_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(locate(tmp_path), path.name, TABLE.schema, TABLE.to_batches(), PROVENANCE)
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-100])
    expected = TABLE.schema if damage == "truncate" else pa.schema([("x", pa.int64())])
    with pytest.raises(OutputError, match="nothing was published"):
        verify_part(locate(path), expected)


def test_bit_rot_in_the_data_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(locate(tmp_path), path.name, TABLE.schema, TABLE.to_batches(), PROVENANCE)
    data = bytearray(path.read_bytes())
    data[40:60] = bytes(20)
    path.write_bytes(data)
    with pytest.raises(OutputError):
        verify_part(locate(path), TABLE.schema)


def test_the_pointer_names_a_whole_snapshot(output: Output) -> None:
    latest = publish(output, TABLE)
    assert load_latest(output.root.uri) == latest
    assert (latest.rows_source, latest.rows_synthetic, latest.verdict) == (3000, 5, "pass")
    rows = pq.read_table(latest.snapshot_path)
    assert rows.schema.names == ["x", "s", "_is_synthetic"]
    assert rows["_is_synthetic"].to_pylist() == [False] * 3000 + [True] * 5
    assert rows.drop_columns(["_is_synthetic"])[:3000].equals(TABLE)


def test_the_pointer_outlives_a_move_of_the_output(output: Output, tmp_path: Path) -> None:
    publish(output, TABLE)
    (tmp_path / "out").rename(tmp_path / "moved")
    assert pq.read_table(load_latest(tmp_path / "moved").snapshot_path).num_rows == 3005


def test_publishing_the_same_again_leaves_the_snapshot_untouched(output: Output) -> None:
    first = publish(output, TABLE)
    files = {path: path.stat().st_mtime_ns for path in Path(first.snapshot_path).iterdir()}
    second = publish(output, TABLE, run_id="r2")
    assert second.snapshot_path == first.snapshot_path
    assert {path: path.stat().st_mtime_ns for path in Path(first.snapshot_path).iterdir()} == files
    assert second.published_at > first.published_at
    assert output.snapshots.list() == [first.snapshot_id]


def test_a_damaged_snapshot_of_the_same_content_is_replaced(output: Output) -> None:
    first = publish(output, TABLE)
    Path(first.snapshot_path, "source-00000.parquet").unlink()
    second = publish(output, TABLE)
    assert pq.read_table(second.snapshot_path).num_rows == 3005


def test_old_snapshots_go_and_the_latest_stays(output: Output) -> None:
    published = [publish(output, TABLE[:rows], keep=2).snapshot_id for rows in (10, 20, 30)]
    assert output.snapshots.list() == sorted(published[1:])


def test_an_older_snapshot_can_become_the_latest_again(output: Output) -> None:
    first = publish(output, TABLE[:10])
    publish(output, TABLE[:20])
    point_to(output, first.snapshot_id)
    assert load_latest(output.root.uri).snapshot_id == first.snapshot_id
    with pytest.raises(OutputError, match="no longer whole"):
        point_to(output, "missing")


def test_nothing_published_is_said_so(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SourceError, match="No snapshot has been published"):
            load_latest(place)


def test_a_reader_beside_two_publishers_always_finds_whole_snapshots(output: Output) -> None:
    publish(output, TABLE[:1])

    def write(run_id: str, offset: int) -> None:
        for rows in range(offset, offset + 10):
            publish(output, TABLE[:rows], run_id=run_id, keep=50)

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, "r1", 100), pool.submit(write, "r2", 200)]
        while not all(writer.done() for writer in writers):
            latest = load_latest(output.root.uri)
            rows = pq.ParquetFile(Path(latest.snapshot_path, "source-00000.parquet")).metadata.num_rows
            assert rows == latest.rows_source
        for writer in writers:
            writer.result()
    assert len(output.snapshots.list()) == 21


def test_object_stores_get_the_manifest_last(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(locate(f"memory://{uuid.uuid4().hex}"))
    copied: list[str] = []
    copy = type(output.root.fs).cp_file
    monkeypatch.setattr(
        type(output.root.fs), "cp_file", lambda fs, a, b, **kwargs: (copied.append(b), copy(fs, a, b, **kwargs))[1]
    )
    latest = publish(output, TABLE)
    assert copied[-1].endswith("_manifest.json")
    assert load_latest(output.root.uri) == latest
    place: Location = output.snapshot(latest.snapshot_id)
    parts = ["source-00000.parquet", "synthetic-00000.parquet"]
    assert place.list() == ["_manifest.json", "_report.html", "_report.json", *parts]
    assert output.snapshots.list() == [latest.snapshot_id]
    manifest = Output.manifest(place).read_json()
    assert json.dumps(manifest)
    assert [file["rows"] for file in manifest["files"]] == [3000, 5]
