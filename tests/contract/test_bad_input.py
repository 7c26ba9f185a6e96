"""Bad input, each kind: exit 2, one sentence that names what to change, no traceback, nothing written."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tests.stand_in_model import StandInModel, some_rows
from vae_ops.cli import commands

Make = Callable[[Path], Path]


def parquet(table: pa.Table) -> Make:
    def make(path: Path) -> Path:
        pq.write_table(table, path / "source.parquet")
        return path / "source.parquet"

    return make


def text_file(path: Path) -> Path:
    (path / "source.csv").write_text("a,b\n1,2\n")
    return path / "source.csv"


def truncated(path: Path) -> Path:
    whole = parquet(some_rows())(path)
    whole.write_bytes(whole.read_bytes()[:-20])
    return whole


def damaged_inside(path: Path) -> Path:
    whole = parquet(some_rows(5000))(path)
    data = bytearray(whole.read_bytes())
    data[40:400] = bytes(360)
    whole.write_bytes(data)
    return whole


def empty_directory(path: Path) -> Path:
    (path / "source").mkdir()
    return path / "source"


def conflicting_partitions(path: Path) -> Path:
    for day, kind in ((1, pa.int64()), (2, pa.string())):
        folder = path / f"source/day={day}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"amount": pa.array([1, 2]).cast(kind)}), folder / "rows.parquet")
    return path / "source"


def published_before(path: Path) -> Path:
    return parquet(some_rows().append_column("_is_synthetic", pa.array([True] * 400)))(path)


NOTHING = pa.table({"a": pa.nulls(30, pa.int64()), "b": pa.nulls(30, pa.string())})
DOUBLED = pa.Table.from_arrays([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"])
NESTED = pa.table({"amount": [1, 2, 3], "surface": [[1.0], [2.0], [3.0]]})
INFINITE = pa.table({"amount": [1.0, float("inf"), 2.0]})

SOURCES: dict[str, tuple[Make, str]] = {
    "missing path": (lambda path: path / "missing.parquet", "missing.parquet"),
    "not Parquet": (text_file, "source.csv"),
    "truncated Parquet": (truncated, "source.parquet"),
    "damaged Parquet": (damaged_inside, "source.parquet"),
    "empty directory": (empty_directory, "source"),
    "empty table": (parquet(some_rows()[:0]), "rows"),
    "one row": (parquet(some_rows()[:1]), "rows"),
    "zero columns": (parquet(pa.table({})), "column"),
    "duplicate column names": (parquet(DOUBLED), "'a'"),
    "all-null table": (parquet(NOTHING), "null"),
    "a nested column": (parquet(NESTED), "exclude='surface'"),
    "infinities": (parquet(INFINITE), "'amount'"),
    "partitions with conflicting schemas": (conflicting_partitions, "'amount'"),
    "rows that vae-ops wrote": (published_before, "_is_synthetic"),
}

OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "negative rows": (("--rows", "-5"), "rows must be at least 0"),
    "negative ratio": (("--ratio", "-1"), "ratio must be at least 0"),
    "ratio that is no number": (("--ratio", "nan"), "ratio"),
    "infinite ratio": (("--ratio", "inf"), "ratio"),
    "infinite time budget": (("--time-budget", "inf"), "time_budget_seconds"),
    "time budget of zero": (("--time-budget", "0"), "time_budget_seconds"),
    "negative seed": (("--seed", "-1"), "seed"),
    "an unknown column in exclude": (("--exclude", "amuont"), "did you mean 'amount'?"),
    "every column excluded": (("--exclude", "amount", "--exclude", "count", "--exclude", "kind"), "column"),
    "an unknown target": (("--target", "amuont"), "did you mean 'amount'?"),
    "an excluded target": (("--target", "kind", "--exclude", "kind"), "The target 'kind' is excluded"),
    "a target of texts as a regression": (("--target", "kind", "--set", "utility.task=regression"), "'kind'"),
    "a ratio that is no number nor auto": (("--set", "generate.ratio=some"), "ratio"),
    "a misspelt setting": (("--set", "train.stesp=3"), "did you mean 'steps'?"),
    "a misspelt section": (("--set", "trian.steps=3"), "did you mean 'train'?"),
    "a setting of the wrong type": (("--set", "train.steps=many"), "TrainSettings.steps expects int"),
    "a semantic type of an unknown column": (("--set", 'read.semantic_types={"amuont":"numeric"}'), "'amuont'"),
    "an unknown semantic type": (("--set", 'read.semantic_types={"amount":"numerical"}'), "numerical"),
    "an impossible semantic type": (("--set", 'read.semantic_types={"kind":"numeric"}'), "'kind'"),
}


@pytest.fixture(autouse=True)
def stand_in_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_ops.walk.default_engine", lambda: StandInModel)


def tree(directory: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")}


def refused(directory: Path, *arguments: str) -> str:
    """Runs the command, checks that it refuses the way all refusals look, and returns its sentence."""
    before = tree(directory)
    result = CliRunner().invoke(commands, arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    said = [line for line in result.stderr.splitlines() if not line.startswith(("profile ", "train "))]
    assert len(said) == 1, said
    assert said[0].startswith("Error: ")
    assert said[0].endswith((".", "?"))
    assert tree(directory) == before
    return said[0]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_bad_source_is_refused(kind: str, tmp_path: Path) -> None:
    make, words = SOURCES[kind]
    assert words in refused(tmp_path, "augment", str(make(tmp_path)), str(tmp_path / "out/deeper"))


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_bad_option_is_refused(kind: str, tmp_path: Path) -> None:
    options, words = OPTIONS[kind]
    source = str(parquet(some_rows())(tmp_path))
    assert words in refused(tmp_path, "augment", source, str(tmp_path / "out/deeper"), *options)


def test_an_output_inside_the_source_is_refused(tmp_path: Path) -> None:
    parquet(some_rows())(tmp_path)
    for source, output in ((tmp_path, tmp_path), (tmp_path, tmp_path / "out"), (tmp_path / "*", tmp_path / "out")):
        assert "inside the source" in refused(tmp_path, "augment", str(source), str(output))


def test_a_store_inside_the_source_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    parquet(some_rows())(source)
    said = refused(tmp_path, "augment", str(source), str(tmp_path / "out"), "--store", str(source / "store"))
    assert "inside the source" in said


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    source = str(parquet(some_rows())(tmp_path))
    (tmp_path / "file").write_text("")
    for output in ("file", "file/out"):
        assert "not a directory" in refused(tmp_path, "augment", source, str(tmp_path / output))


def test_an_output_where_nobody_may_write_is_refused(tmp_path: Path) -> None:
    source = str(parquet(some_rows())(tmp_path))
    assert "/proc" in refused(tmp_path, "augment", source, "/proc/out")


def test_a_store_that_cannot_be_written_is_refused_before_the_output_is_made(tmp_path: Path) -> None:
    source = str(parquet(some_rows())(tmp_path))
    assert "/proc" in refused(tmp_path, "augment", source, str(tmp_path / "out"), "--store", "/proc/store")


def test_a_source_of_an_unknown_scheme_is_refused(tmp_path: Path) -> None:
    assert "nowhere://" in refused(tmp_path, "augment", "nowhere://bucket/x", str(tmp_path / "out"))


@pytest.mark.parametrize("command", ["train", "validate", "profile"])
def test_other_commands_refuse_the_same_sources(command: str, tmp_path: Path) -> None:
    others = {"train": ("--model", str(tmp_path / "model")), "profile": ()}
    for kind, number in zip(("missing path", "truncated Parquet", "one row"), itertools.count()):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = str(SOURCES[kind][0](folder))
        refused(tmp_path, command, source, *others.get(command, (source, "--report", str(tmp_path / "report"))))


def test_drawing_a_negative_number_of_rows_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "generate", str(tmp_path / "model"), "--rows", "-1", "--output", str(tmp_path / "rows"))
    assert "rows must be at least 0" in said


def test_drawing_from_what_is_no_model_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "generate", str(tmp_path / "model"), "--rows", "1", "--output", str(tmp_path / "rows"))
    assert "model" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_refused(tmp_path: Path) -> None:
    source = str(parquet(some_rows())(tmp_path))
    (tmp_path / "locked").mkdir(mode=0o555)
    assert "Cannot write" in refused(tmp_path, "augment", source, str(tmp_path / "locked/out"))


def test_an_infinity_in_the_last_row_group_of_many_is_found(tmp_path: Path) -> None:
    values = np.zeros(10_000)
    values[-1] = -np.inf
    pq.write_table(pa.table({"amount": values}), tmp_path / "source.parquet", row_group_size=100)
    said = refused(
        tmp_path,
        "augment",
        str(tmp_path / "source.parquet"),
        str(tmp_path / "out"),
        "--set",
        "read.max_training_rows=100",
    )
    assert "'amount'" in said
