"""table.py and parquet_files.py: every bad source has its one sentence, every odd but honest one simply works."""

import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import hypothesis
import numpy as np
import pandas as pd  # noqa: TID253
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from tests.strategies import NASTY_NAMES, SCALAR_TYPES, arrays, exact, tables
from vae_ops.errors import ContentError, InputError, SchemaError, SourceError, VaeOpsError
from vae_ops.holdout import split_holdout
from vae_ops.storage import locate
from vae_ops.table import check_values, filter_rows, open_source

PLAIN = pa.table({"a": [1, 2, 3], "b": ["x", "y", None]})
NESTED = {
    "list": pa.list_(pa.int64()),
    "large_list": pa.large_list(pa.int64()),
    "fixed": pa.list_(pa.float64(), 2),
    "struct": pa.struct([("q", pa.int64())]),
    "map": pa.map_(pa.string(), pa.int64()),
}


def write(path: Path, table: pa.Table = PLAIN, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def refused(kind: type[VaeOpsError], action: Callable[[], object], *words: str) -> None:
    """Asserts that an action raises one sentence of the right class which holds the words."""
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in message
    assert re.search(r"[.?]$", message), message
    for word in words:
        assert word in message


# --- bad sources ---------------------------------------------------------------------------------------------------


def test_missing_path(tmp_path: Path) -> None:
    refused(SourceError, lambda: open_source(tmp_path / "no.parquet"), "no.parquet", "does not exist")
    refused(SourceError, lambda: open_source(str(tmp_path / "*.parquet")), "nothing matches")
    refused(SourceError, lambda: open_source("/dev/null"), "neither")


@pytest.mark.parametrize("content", [b"", b"PA", b"a,b\n1,2\n" * 50])
def test_not_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    refused(SourceError, lambda: open_source(tmp_path / "x.parquet"), "Expected Parquet", "x.parquet")


def test_encrypted_parquet(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PARE" + bytes(100) + b"PARE")
    refused(SourceError, lambda: open_source(tmp_path / "x.parquet"), "encrypted")


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_truncated_parquet(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path / "x.parquet", pa.table({"a": range(10_000)}))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    refused(SourceError, lambda: open_source(path), "truncated", "write it again")


def test_parquet_with_its_middle_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", pa.table({"a": range(100_000)}))
    whole = path.read_bytes()
    path.write_bytes(whole[:1000] + whole[100_000:])
    refused(SourceError, lambda: open_source(path), "truncated")


def test_parquet_with_garbage_in_its_pages(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", pa.table({"a": [str(i) for i in range(50_000)]}))
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 5000 + whole[5004:])
    refused(SourceError, lambda: open_source(path).sample(10, 0), "Cannot read", "x.parquet")


def test_garbage_in_the_footer(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:-60] + b"\xff" * 40 + whole[-20:])
    refused(SourceError, lambda: open_source(path), "Cannot read", "x.parquet")


def test_directories_without_parquet(tmp_path: Path) -> None:
    refused(SourceError, lambda: open_source(tmp_path), "found none")
    (tmp_path / "notes.txt").write_text("nothing here")
    refused(SourceError, lambda: open_source(tmp_path), "notes.txt")
    write(tmp_path / "_temporary" / "x.parquet")
    write(tmp_path / ".hidden.parquet")
    refused(SourceError, lambda: open_source(tmp_path), "notes.txt")


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows(tmp_path: Path, rows: int) -> None:
    path = write(tmp_path / "x.parquet", PLAIN.slice(0, rows))
    refused(ContentError, lambda: open_source(path), "at least 2 rows", f"has {rows}")
    assert open_source(path, min_rows=0).num_rows == rows


def test_zero_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", PLAIN.select([]))
    refused(SchemaError, lambda: open_source(path), "at least one column")
    refused(SchemaError, lambda: open_source(PLAIN, exclude=["a", "b"]), "at least one column")


def test_duplicate_column_names(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1, 2])] * 3, names=["a", "a", "b"])
    path = write(tmp_path / "x.parquet", twice)
    for source in (path, twice, tmp_path):
        refused(SchemaError, lambda source=source: open_source(source), "'a'", "2 times", "rename")
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    refused(SchemaError, lambda: open_source(frame), "'a'", "rename")
    assert open_source(path, exclude=["a"]).sample(9, 0).to_pydict() == {"b": [1, 2]}


@pytest.mark.parametrize("kind", NESTED)
def test_nested_column(tmp_path: Path, kind: str) -> None:
    table = pa.table({"good": pa.array([1, 2]), "bad one": pa.nulls(2, NESTED[kind])})
    for source in (write(tmp_path / "x.parquet", table), table):
        refused(SchemaError, lambda source=source: open_source(source), "'bad one'", "nested", "exclude='bad one'")
        assert open_source(source, exclude=["bad one"]).sample(9, 0).to_pydict() == {"good": [1, 2]}


def test_types_that_are_no_scalars_of_parquet() -> None:
    for column in (pa.nulls(2, pa.month_day_nano_interval()), pa.RunEndEncodedArray.from_arrays([2], [1])):
        refused(SchemaError, lambda column=column: open_source(pa.table({"x": column})), "'x'", "exclude='x'")


def test_unknown_excluded_column() -> None:
    refused(SchemaError, lambda: open_source(pa.table({"income": [1, 2]}), exclude=["incme"]), "did you mean 'income'?")
    refused(SchemaError, lambda: open_source(PLAIN, exclude=["zzz"]), "'zzz'", "'a', 'b'")


def test_rows_written_by_vae_ops(tmp_path: Path) -> None:
    labelled = PLAIN.append_column("_is_synthetic", pa.array([True, False, True]))
    path = write(tmp_path / "x.parquet", labelled)
    refused(SchemaError, lambda: open_source(path), "_is_synthetic", "original source")
    refused(SchemaError, lambda: open_source(path, exclude=["_is_synthetic"]), "original source")
    assert open_source(path, synthetic="keep").num_rows == 3


def test_all_null_table(tmp_path: Path) -> None:
    empty = pa.table({"a": pa.nulls(5, pa.int64()), "b": pa.nulls(5)})
    path = write(tmp_path / "x.parquet", empty)
    refused(ContentError, lambda: open_source(path).sample(10, 0), "all 5 rows of 2 columns")


@pytest.mark.parametrize("type_", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize("infinity", [float("inf"), -float("inf")])
def test_infinities(type_: pa.DataType, infinity: float) -> None:
    table = pa.table({"ok": pa.array([1.0, 2.0]), "hot": pa.array([None, infinity]).cast(type_)})
    refused(ContentError, lambda: open_source(table).sample(10, 0), "'hot'", "infinities", "exclude='hot'")
    assert open_source(table, exclude=["hot"]).sample(10, 0).num_rows == 2


def test_text_that_is_not_utf8() -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
    )
    refused(ContentError, lambda: check_values(pa.table({"name": broken})), "'name'", "UTF8")


def test_what_is_no_table_at_all() -> None:
    for source in (None, [1, 2], 7, pd.DataFrame({"a": [1, object()]})):
        refused(InputError, lambda source=source: open_source(source), type(source).__name__)  # type: ignore[arg-type]


# --- partitions ----------------------------------------------------------------------------------------------------


def test_partitions_with_conflicting_types(tmp_path: Path) -> None:
    write(tmp_path / "day=1" / "a.parquet")
    write(tmp_path / "day=2" / "a.parquet", pa.table({"a": ["1", "2"], "b": ["x", "y"]}))
    refused(SourceError, lambda: open_source(tmp_path), "'a'", "int64", "string", "day=1/a.parquet", "day=2/a.parquet")
    assert open_source(tmp_path, exclude=["a"]).schema.names == ["b", "day"]


def test_partitions_with_conflicting_columns(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet")
    write(tmp_path / "2.parquet", PLAIN.select(["a"]))
    refused(SourceError, lambda: open_source(tmp_path), "'b'", "1.parquet", "2.parquet", "exclude='b'")
    assert open_source(tmp_path, exclude=["b"]).sample(9, 0).to_pydict() == {"a": [1, 2, 3, 1, 2, 3]}
    write(tmp_path / "0.parquet", PLAIN.select(["a"]))
    assert open_source(tmp_path, exclude=["b"]).schema.names == ["a"]


@pytest.mark.parametrize("other", ["q=2/x.parquet", "x.parquet", "p=1/q=2/x.parquet"])
def test_partitions_with_conflicting_keys(tmp_path: Path, other: str) -> None:
    write(tmp_path / "p=1" / "x.parquet")
    write(tmp_path / other.replace("/x", "/y"))
    if other == "x.parquet":
        write(tmp_path / other)
    refused(SourceError, lambda: open_source(tmp_path), "hive partition", "exclude=")
    keys = {name for name in ("p", "q") if f"{name}=" in str(list(tmp_path.rglob("*")))}
    assert open_source(tmp_path, exclude=sorted(keys)).schema == PLAIN.schema


def test_hive_partitions_are_columns(tmp_path: Path) -> None:
    write(tmp_path / "year=2023" / "city=S%C3%A3o%20Paulo" / "x.parquet")
    write(tmp_path / "year=2024" / "city=__HIVE_DEFAULT_PARTITION__" / "x.parquet")
    (tmp_path / "_SUCCESS").touch()
    source = open_source(tmp_path)
    assert source.schema.types == [pa.int64(), pa.string(), pa.int32(), pa.string()]
    assert source.sample(9, 0).to_pydict() == {
        "a": [1, 2, 3] * 2,
        "b": ["x", "y", None] * 2,
        "year": [2023] * 3 + [2024] * 3,
        "city": ["São Paulo"] * 3 + [None] * 3,
    }
    assert next(source.batches(["city", "a"])).to_pydict() == {"city": ["São Paulo"] * 3, "a": [1, 2, 3]}
    assert next(source.batches(["year"])).to_pydict() == {"year": [2023] * 3}
    assert open_source(tmp_path / "*" / "*" / "*.parquet").schema == source.schema
    assert open_source(tmp_path, exclude=["year"]).schema.names == ["a", "b", "city"]


def test_partition_types_are_those_of_pyarrow(tmp_path: Path) -> None:
    for value in ("007", "-5", "99999999999"):
        write(tmp_path / "wide" / f"k={value}" / "x.parquet")
    for value in ("1", "2"):
        write(tmp_path / "narrow" / f"k={value}" / "x.parquet")
    for name in ("wide", "narrow"):
        expected = ds.dataset(tmp_path / name, partitioning="hive").schema.field("k").type
        assert open_source(tmp_path / name).schema.field("k").type == expected


def test_a_column_in_the_file_wins_over_its_name_in_the_path(tmp_path: Path) -> None:
    write(tmp_path / "a=9" / "x.parquet")
    assert open_source(tmp_path).sample(9, 0) == PLAIN


def test_files_that_differ_in_ways_that_do_not_matter(tmp_path: Path) -> None:
    first = pa.schema(
        [pa.field("a", pa.int64(), nullable=False, metadata={"unit": "m"}), ("b", pa.null()), ("c", pa.int8())]
    )
    second = pa.schema([("c", pa.int8()), ("b", pa.string()), pa.field("a", pa.int64(), metadata={"unit": "km"})])
    write(tmp_path / "1.parquet", pa.Table.from_pydict({"a": [1], "b": [None], "c": [5]}, first))
    write(tmp_path / "2.parquet", pa.Table.from_pydict({"a": [None], "b": ["x"], "c": [6]}, second))
    write(tmp_path / "3.parquet", pa.Table.from_pydict({"a": [], "b": [], "c": []}, second))
    source = open_source(tmp_path)
    assert source.sample(9, 0).to_pydict() == {"a": [1, None], "b": [None, "x"], "c": [5, 6]}
    assert source.schema.field("a").nullable
    assert source.schema.field("a").metadata == {b"unit": b"m"}
    assert source.schema.field("b").type == pa.string()


def test_dictionaries_of_different_width_and_content(tmp_path: Path) -> None:
    write(
        tmp_path / "1.parquet",
        pa.table({"c": pa.array(["x", "y"]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))}),
    )
    write(tmp_path / "2.parquet", pa.table({"c": pa.array(["z", "x"]).dictionary_encode()}))
    sample = open_source(tmp_path).sample(9, 0)
    assert sample.schema.field("c").type == pa.dictionary(pa.int32(), pa.string())
    assert sample["c"].to_pylist() == ["x", "y", "z", "x"]
    assert len({str(chunk.dictionary.to_pylist()) for chunk in sample["c"].chunks}) == 1


def test_other_files_in_a_directory_are_left_alone_but_unnamed_parquet_is_read(tmp_path: Path) -> None:
    write(tmp_path / "000000_0")
    write(tmp_path / "part.snappy.PARQUET")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / ".part.crc").write_bytes(b"crc")
    assert open_source(tmp_path).num_rows == 6
    (tmp_path / "broken.parquet").write_bytes(b"oops")
    refused(SourceError, lambda: open_source(tmp_path), "broken.parquet")


def test_a_path_that_looks_like_a_pattern_but_exists(tmp_path: Path) -> None:
    assert open_source(write(tmp_path / "run[1]" / "x*.parquet")).num_rows == 3
    assert open_source(tmp_path / "run[1]").num_rows == 3


# --- what must simply work -----------------------------------------------------------------------------------------


@hypothesis.settings(deadline=None, max_examples=60, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(table=tables())
def test_any_table_comes_back_as_pyarrow_reads_it(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.mktemp("any") / "x.parquet", table, row_group_size=7)
    expected = pq.read_table(path)
    source = open_source(path)
    assert source.schema.equals(expected.schema, check_metadata=True)
    assert source.num_rows == expected.num_rows
    assert _same(source.sample(10**6, 0), expected)
    assert _same(pa.Table.from_batches(source.batches(), source.schema), expected)


@hypothesis.settings(deadline=None, max_examples=40, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(table=tables(min_rows=3), seed=st.integers(0, 2**32))
def test_any_table_in_memory_is_sampled_and_split(table: pa.Table, seed: int) -> None:
    source = open_source(table)
    assert source.schema.equals(table.schema, check_metadata=True)
    assert source.fingerprint() == open_source(pa.concat_tables([table.slice(0, 1), table.slice(1)])).fingerprint()
    training, holdout = split_holdout(table, 0.3, seed)
    assert training.schema.equals(table.schema, check_metadata=True)
    assert training.num_rows + holdout.num_rows == table.num_rows
    assert min(training.num_rows, holdout.num_rows) >= 1


@pytest.mark.parametrize("type_", SCALAR_TYPES, ids=str)
@hypothesis.settings(deadline=None, max_examples=10)
@hypothesis.given(data=st.data())
def test_rows_of_every_type_can_be_filtered(type_: pa.DataType, data: st.DataObject) -> None:
    column = data.draw(arrays(type_, min_size=4, max_size=9))
    table = pa.table({"x": column})
    kept = filter_rows(table, np.arange(len(column)) % 2 == 0)
    assert kept.schema == table.schema
    assert exact(kept["x"]) == exact(column)[::2]


def _same(left: pa.Table, right: pa.Table) -> bool:
    return left.schema == right.schema and all(exact(left[name]) == exact(right[name]) for name in left.column_names)


def test_extremes_survive(tmp_path: Path) -> None:
    table = pa.table(
        {
            "big": pa.array([2**63 - 1, -(2**63), None], pa.int64()),
            "unsigned": pa.array([2**64 - 1, 0, None], pa.uint64()),
            "far": pa.array([2**62, -(2**62), 0], pa.timestamp("us")),
            "date": pa.array([2**30, -(2**30), None], pa.int32()).cast(pa.date32()),
            "long": ["ä" * 10_000, "🦊" * 3000, ""],
            "nan": [float("nan"), None, 0.0],
            "constant": ["k"] * 3,
            "null": pa.nulls(3),
            **{name: [1, 2, 3] for name in NASTY_NAMES},
        }
    )
    sample = open_source(write(tmp_path / "x.parquet", table)).sample(10, 0)
    assert sample.schema == table.schema
    for name in set(table.column_names) - {"nan", "far", "date"}:
        assert sample[name].to_pylist() == table[name].to_pylist()
    assert sample["far"].cast(pa.int64()).to_pylist() == [2**62, -(2**62), 0]
    assert sample["date"].cast(pa.int32()).to_pylist() == [2**30, -(2**30), None]
    assert str(sample["nan"].to_pylist()) == "[nan, None, 0.0]"


def test_extension_types_come_back_when_written(tmp_path: Path) -> None:
    stored = pa.array([uuid.uuid4().bytes for _ in range(3)], pa.binary(16))
    table = pa.table({"id": pa.ExtensionArray.from_storage(pa.uuid(), stored)})
    for source in (write(tmp_path / "in.parquet", table), table):
        sample = open_source(source).sample(10, 0)
        assert sample.schema.field("id").type == pa.binary(16)
        assert pq.read_schema(write(tmp_path / "out" / "x.parquet", sample)) == table.schema


def test_wide_table_and_dotted_names(tmp_path: Path) -> None:
    table = pa.table({f"c{i}": [i, i + 1] for i in range(300)} | {"c1.x": [7, 8]})
    source = open_source(write(tmp_path / "x.parquet", table))
    assert source.sample(10, 0) == table
    assert next(source.batches(["c1.x", "c1"])).to_pydict() == {"c1.x": [7, 8], "c1": [1, 2]}


def test_pandas_frames_and_datasets(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "b": pd.Categorical(["x", "y", None])}, index=[7, 8, 9])
    source = open_source(frame)
    assert source.schema.names == ["a", "b"]
    assert source.sample(9, 0)["b"].to_pylist() == ["x", "y", None]
    write(tmp_path / "p=1" / "x.parquet")
    dataset = open_source(ds.dataset(tmp_path, partitioning="hive"), exclude="a")
    assert dataset.sample(9, 0).to_pydict() == {"b": ["x", "y", None], "p": [1, 1, 1]}
    assert dataset.uri is None
    assert len(dataset.fingerprint()) == 32


def test_object_store(tmp_path: Path) -> None:
    bucket = f"memory://{uuid.uuid4().hex}"
    data = write(tmp_path / "x.parquet").read_bytes()
    for part in ("p=1/x.parquet", "p=2/x.parquet"):
        with fsspec.open(f"{bucket}/{part}", "wb") as file:
            file.write(data)
    source = open_source(bucket)
    assert [locate(file).path[-13:] for file in source.files] == ["p=1/x.parquet", "p=2/x.parquet"]
    assert source.sample(9, 0)["p"].to_pylist() == [1, 1, 1, 2, 2, 2]
    assert open_source(f"{bucket}/*/*.parquet").num_rows == 6
    assert open_source(f"{bucket}/p=1/x.parquet").fingerprint() == open_source(tmp_path / "x.parquet").fingerprint()
    refused(SourceError, lambda: open_source(f"{bucket}/no"), "does not exist")


def test_importing_leaves_heavy_packages_out() -> None:
    script = (
        "import sys, vae_ops.profiling, vae_ops.schema\n"
        "print([name for name in ('pandas', 'tensorflow', 'keras', 'airflow') if name in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


# --- fingerprints, samples, memory ---------------------------------------------------------------------------------


def test_fingerprint_follows_content_only(tmp_path: Path) -> None:
    write(tmp_path / "one" / "p=1" / "x.parquet")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.copytree(tmp_path / "one" / "p=1", tmp_path / "three" / "p=2")
    write(tmp_path / "four" / "p=1" / "x.parquet", PLAIN.slice(1))
    digests = [open_source(tmp_path / name).fingerprint() for name in ("one", "two", "three", "four")]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)


def test_a_single_file_may_be_renamed(tmp_path: Path) -> None:
    first = write(tmp_path / "2026-01-01.parquet")
    second = shutil.copy(first, tmp_path / "other.parquet")
    assert open_source(first).fingerprint() == open_source(second).fingerprint()


def test_sample_does_not_depend_on_row_groups(tmp_path: Path) -> None:
    table = pa.table({"i": range(50_000)})
    small = open_source(write(tmp_path / "a.parquet", table, row_group_size=999))
    large = open_source(write(tmp_path / "b.parquet", table))
    for size in (100, 20_000):
        sample = small.sample(size, 3)
        assert sample == large.sample(size, 3)
        rows = sample["i"].to_pylist()
        assert rows == sorted(set(rows))
        assert len(rows) == size
        assert rows != small.sample(size, 4)["i"].to_pylist()
    assert small.sample(50_000, 0) == table


@pytest.mark.parametrize("size", [2, 20])
def test_sample_is_uniform(size: int) -> None:
    source = open_source(pa.table({"i": range(30)}))
    counts = np.zeros(30)
    for seed in range(1500):
        counts[source.sample(size, seed)["i"].to_numpy()] += 1
    share = size / 30
    assert np.abs(counts - 1500 * share).max() < 4.5 * np.sqrt(1500 * share * (1 - share))


def test_streaming_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=2_000_000)
    peaks = []
    for rows in (500_000, 2_000_000):
        # One row group, which a reader that is not careful would hold as a whole.
        path = write(tmp_path / "x.parquet", pa.table({"x": numbers[:rows]}), row_group_size=rows)
        before = pa.total_allocated_bytes()
        peaks.append(max(pa.total_allocated_bytes() - before for _ in open_source(path).batches()))
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < numbers.nbytes / 3


def test_long_rows_come_in_small_batches(tmp_path: Path) -> None:
    table = pa.table({"s": [chr(97 + i % 26) * 10_000 + str(i) for i in range(10_000)]})
    path = write(tmp_path / "x.parquet", table, use_dictionary=False, compression="none")
    assert max(batch.nbytes for batch in open_source(path).batches()) < 40 * 1024**2
