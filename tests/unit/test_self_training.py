"""The self-training guard: rows that vae-ops made are refused as a source, or left out and counted."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from vae_ops.errors import ContentError, SchemaError, SourceError
from vae_ops.profiling import profile_source
from vae_ops.publishing import Provenance, published_schema, stage_snapshot, write_parquet
from vae_ops.storage import locate
from vae_ops.table import SYNTHETIC_COLUMN, SourceTable, open_source

REAL = pa.table({"a": [1, 2, 3], "b": ["x", "y", None]})
MADE = pa.table({"a": [7, 8], "b": ["p", "q"]})
PROVENANCE = Provenance(model_version="m", seed=1)


def labelled(*labels: bool | None) -> pa.Table:
    rows = pa.concat_tables([REAL, MADE]).slice(0, len(labels))
    return rows.append_column(SYNTHETIC_COLUMN, pa.array(labels, pa.bool_()))


def generated(directory: Path, name: str = "drawn.parquet") -> Path:
    """A file without a label, as `generate` and `--no-source` write it."""
    directory.mkdir(parents=True, exist_ok=True)
    write_parquet(locate(directory), name, MADE.schema, MADE.to_batches(), PROVENANCE)
    return directory / name


def snapshot(directory: Path) -> Path:
    """Source rows and synthetic ones, each in files of their own, all with the label."""
    directory.mkdir(parents=True, exist_ok=True)
    schema = published_schema(REAL.schema, include_source=True)
    streams = {"source": REAL.to_batches(), "synthetic": MADE.to_batches()}
    stage_snapshot(locate(directory), schema, **streams, provenance=PROVENANCE)
    return directory


def original(directory: Path, name: str = "real.parquet") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(REAL, directory / name)
    return directory / name


def rows_of(source: SourceTable) -> list[dict[str, object]]:
    return pa.Table.from_batches(source.batches(), source.schema).to_pylist()


@pytest.mark.parametrize("make", [generated, snapshot], ids=["generated", "snapshot"])
def test_what_vae_ops_wrote_is_refused(make: Callable[[Path], Path], tmp_path: Path) -> None:
    made = make(tmp_path / "made")
    with pytest.raises(SchemaError, match=r"vae-ops wrote it.*original source.*read\.synthetic=exclude"):
        open_source(made)
    assert open_source(made, synthetic="keep").num_rows in (2, 5)


def test_one_made_file_among_real_ones_is_refused_by_its_name(tmp_path: Path) -> None:
    original(tmp_path)
    generated(tmp_path)
    with pytest.raises(SchemaError, match=r"drawn\.parquet' says in its metadata that vae-ops wrote it; point"):
        open_source(tmp_path)
    generated(tmp_path, "more.parquet")
    with pytest.raises(SchemaError, match=r"drawn\.parquet' says .*, and 1 more files are like it"):
        open_source(tmp_path)


def test_made_files_are_left_out_and_counted(tmp_path: Path) -> None:
    original(tmp_path)
    generated(tmp_path)
    snapshot(tmp_path)
    source = open_source(tmp_path, synthetic="exclude")
    assert (source.num_rows, source.synthetic_rows) == (6, 4)
    assert source.schema.equals(REAL.schema)
    assert rows_of(source) == REAL.to_pylist() * 2
    assert source.sample(10, 0).to_pylist() == REAL.to_pylist() * 2
    assert [Path(uri).name for uri in source.files] == ["real.parquet", "source-00000.parquet"]
    profile = profile_source(source)
    assert (profile.rows, profile.synthetic_rows) == (6, 4)


def test_a_source_without_made_rows_is_as_it_was(tmp_path: Path) -> None:
    path = original(tmp_path)
    refusing, excluding = open_source(path), open_source(path, synthetic="exclude")
    assert excluding.synthetic_rows == 0
    assert excluding.fingerprint() == refusing.fingerprint()
    assert rows_of(excluding) == rows_of(refusing)


def test_rows_of_one_file_are_told_apart_by_their_label(tmp_path: Path) -> None:
    table = labelled(False, True, None, False, True)
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    expected = [{"a": 1, "b": "x"}, {"a": 7, "b": "p"}]
    for made in (tmp_path / "x.parquet", table, ds.dataset(tmp_path / "x.parquet"), ds.dataset(table)):
        source = open_source(made, synthetic="exclude")
        assert (source.num_rows, source.synthetic_rows) == (2, 3), type(made)
        assert source.schema.names == ["a", "b"]
        assert rows_of(source) == expected
        assert rows_of(open_source(made, synthetic="exclude", exclude=["b", SYNTHETIC_COLUMN])) == [{"a": 1}, {"a": 7}]
        with pytest.raises(SchemaError, match=r"has the column '_is_synthetic'.*original source"):
            open_source(made)


def test_files_of_other_columns_do_not_count_when_they_are_left_out(tmp_path: Path) -> None:
    original(tmp_path)
    fewer = MADE.select(["a"])
    write_parquet(locate(tmp_path), "drawn.parquet", fewer.schema, fewer.to_batches(), PROVENANCE)
    with pytest.raises(SourceError, match="same columns"):
        _ = open_source(tmp_path, synthetic="keep").schema
    assert open_source(tmp_path, synthetic="exclude").num_rows == 3


def test_synthetic_files_that_change_make_no_other_source(tmp_path: Path) -> None:
    original(tmp_path)
    snapshot(tmp_path)
    before = open_source(tmp_path, synthetic="exclude")
    pq.write_table(labelled(True, True), tmp_path / "synthetic-00000.parquet")
    generated(tmp_path)
    after = open_source(tmp_path, synthetic="exclude")
    assert after.fingerprint() == before.fingerprint()
    assert after.files_seen() == before.files_seen()


def test_nothing_but_made_rows_is_too_few(tmp_path: Path) -> None:
    generated(tmp_path)
    for made in (tmp_path, ds.dataset(tmp_path), labelled(True, True)):
        with pytest.raises(
            ContentError, match=r"at least 2 rows.*0 that are not labelled synthetic, beside 2 that are"
        ):
            open_source(made, synthetic="exclude")
        assert rows_of(open_source(made, synthetic="exclude", min_rows=0)) == []


def test_a_label_that_is_no_boolean_is_refused(tmp_path: Path) -> None:
    words = REAL.append_column(SYNTHETIC_COLUMN, pa.array(["no", "no", "yes"]))
    pq.write_table(words, tmp_path / "x.parquet")
    for made in (tmp_path, words, ds.dataset(tmp_path)):
        with pytest.raises(SchemaError, match=r"Expected booleans in the column '_is_synthetic'.*string"):
            open_source(made, synthetic="exclude")


def test_a_dataset_says_which_of_its_files_are_made(tmp_path: Path) -> None:
    original(tmp_path / "day=1")
    path = generated(tmp_path / "day=2")
    dataset = ds.dataset(tmp_path, partitioning="hive")
    with pytest.raises(SchemaError, match=r"drawn\.parquet' says in its metadata"):
        open_source(dataset)
    source = open_source(dataset, synthetic="exclude")
    assert (source.num_rows, source.synthetic_rows) == (3, 2)
    assert source.sample(9, 0)["day"].to_pylist() == [1, 1, 1]
    with pytest.raises(SchemaError, match="without a filter"):
        open_source(dataset.filter(ds.field("a") > 1), synthetic="exclude")
    path.unlink()
    assert open_source(ds.dataset(tmp_path).filter(ds.field("a") > 1)).num_rows == 2
