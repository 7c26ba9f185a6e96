"""storage.py: the same behaviour on a local path and on an object store (fsspec's memory filesystem stands for one)."""

import errno
import multiprocessing
import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs
import pytest

from vae_ops.errors import OutputError, UsageError
from vae_ops.storage import Location, check_apart, check_writable, has_wildcard, locate, use_storage_options


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    if request.param == "local":
        yield locate(tmp_path)
        return
    location = locate(f"memory://{uuid.uuid4().hex}")
    yield location
    location.remove()


def test_relative_path_home_and_file_uri_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert locate("a/../b.parquet").path == str(tmp_path / "b.parquet")
    assert locate("~/b").path == "/home/somebody/b"
    assert locate(f"file://{tmp_path}/b") == locate(tmp_path / "b")
    assert locate(tmp_path).uri == str(tmp_path)
    assert locate(tmp_path).is_local


def test_other_schemes_go_through_fsspec() -> None:
    location = locate("memory://bucket/key/")
    assert not location.is_local
    assert location.uri == "memory://bucket/key"
    assert location.child("a", "b").uri == "memory://bucket/key/a/b"
    assert locate(location.child("a").uri).path == location.child("a").path


@pytest.mark.parametrize("uri", ["", "a\0b", "nosuchscheme://bucket/key"])
def test_what_is_no_path_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError) as caught:
        locate(uri)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("path", "expected"), [("a/*.parquet", True), ("a?", True), ("a[01]", True), ("a/b", False)])
def test_wildcards(path: str, expected: bool) -> None:
    assert has_wildcard(path) is expected


def test_write_read_list_move_remove(root: Location) -> None:
    below = root.child("below")
    below.make_dirs()
    file = below.child("x.bin")
    file.write_atomic(b"first and long")
    file.write_atomic(b"second")
    assert file.exists()
    assert not file.is_dir()
    assert below.is_dir()
    assert (file.read_bytes(), file.size(), file.name) == (b"second", 6, "x.bin")
    with below.child("a.bin").open_output() as stream:
        stream.write(b"abc")
    with below.child("a.bin").open_input() as stream:
        assert stream.read() == b"abc"
    assert below.list() == ["a.bin", "x.bin"]
    assert root.list() == ["below"]
    below.move_to(root.child("moved"))
    assert root.list() == ["moved"]
    assert root.child("moved").list() == ["a.bin", "x.bin"]
    root.child("moved").remove()
    root.child("moved").remove()
    assert root.list() == []
    assert root.child("never").list() == []


def test_equal_json_values_give_equal_bytes(root: Location) -> None:
    root.make_dirs()
    root.child("1.json").write_json({"b": [1, 2.5, None], "a": "é"})
    root.child("2.json").write_json({"a": "é", "b": [1, 2.5, None]})
    assert root.child("1.json").read_bytes() == root.child("2.json").read_bytes()
    assert root.child("1.json").read_json() == {"a": "é", "b": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        root.child("3.json").write_json(float("nan"))
    assert not root.child("3.json").exists()


def test_pyarrow_reads_what_was_written(root: Location) -> None:
    root.make_dirs()
    root.child("x").write_atomic(b"abc")
    filesystem = root.arrow_filesystem()
    assert isinstance(filesystem, pyarrow.fs.FileSystem)
    with filesystem.open_input_stream(root.child("x").path) as stream:
        assert stream.read() == b"abc"


def test_removing_a_link_spares_its_target(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    locate(tmp_path / "link").remove()
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["file"]


def test_the_leftover_of_a_killed_writer_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".latest.json.tmp").write_bytes(b"half of something much longer")
    locate(tmp_path / "latest.json").write_atomic(b"{}")
    assert os.listdir(tmp_path) == ["latest.json"]
    assert (tmp_path / "latest.json").read_bytes() == b"{}"


def test_a_failed_write_leaves_the_old_bytes(tmp_path: Path) -> None:
    target = locate(tmp_path / "x")
    target.write_atomic(b"old")
    with pytest.raises(TypeError):
        target.write_atomic("text")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    target.write_atomic(b"new")
    assert os.listdir(tmp_path) == ["x"]


def _write_often(path: str, letter: int) -> None:
    for _ in range(40):
        locate(path).write_atomic(bytes([letter]) * 100_000)


def test_writers_at_once_never_mix_and_leave_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "x"
    locate(target).write_atomic(b"a")
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_often, args=(str(target), letter)) for letter in b"bc"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert len(set(target.read_bytes())) == 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert os.listdir(tmp_path) == ["x"]


def test_a_file_is_created_once(root: Location) -> None:
    root.make_dirs()
    place = root.child("record.json")
    assert place.create_json({"token": "a"})
    assert not place.create_json({"token": "b"})
    assert place.read_json() == {"token": "a"}
    assert root.list() == ["record.json"]


def test_of_many_creators_at_once_one_succeeds(tmp_path: Path) -> None:
    place = locate(tmp_path / "record.json")
    barrier = threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return place.create_json(number)

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert created.count(True) == 1
    assert place.read_json() == created.index(True)
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_creator_that_collides_on_the_way_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    place = locate(f"memory://created-{uuid.uuid4().hex}/record.json")
    collisions = iter([OSError(errno.EBUSY, "409")])
    pipe = place.fs.pipe_file

    def collide(*arguments: Any, **options: Any) -> None:
        if error := next(collisions, None):
            raise error
        pipe(*arguments, **options)

    monkeypatch.setattr(place.fs, "pipe_file", collide)
    assert place.create_json({"token": "a"})


def test_the_parent_of_a_location(root: Location) -> None:
    child = root.child("a")
    assert (child.parent.path, child.parent.uri) == (root.path, root.uri)


def test_a_probe_leaves_nothing_behind(root: Location) -> None:
    root.make_dirs()
    check_writable(root)
    check_writable(root.child("not", "yet", "there"))
    assert root.list() == []


@pytest.mark.parametrize("below", ["file", "file/out", "file/deeper/out", "dangling", "x" * 300, "/proc/out"])
def test_places_that_cannot_be_written(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="choose") as caught:
        check_writable(locate(tmp_path / below))
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file"]


def test_a_read_only_object_store_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("AccessDenied")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "pipe_file", refuse)
    with pytest.raises(OutputError, match="AccessDenied"):
        check_writable(locate("memory://bucket/out"))


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("in", "in"),
        ("in", "in/out"),
        ("in/x.parquet", "in/x.parquet"),
        ("in", "link/out"),
        ("link", "in/out"),
        ("in/**/*.parquet", "in/out"),
        ("in/**", "in"),
        ("in/*/*.parquet", "in/out"),
        ("in/*.parquet", "in"),
        ("in/day=*", "in/day=1/out"),
        ("link/*/*.parquet", "in/out"),
        ("in[1]", "in[1]/out"),
    ],
)
def test_output_inside_the_source(tmp_path: Path, source: str, output: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in[1]").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(OutputError, match="inside the source"):
        check_apart(locate(tmp_path / source), locate(tmp_path / output))


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("in", "in2"),
        ("in", "out"),
        ("in/x.parquet", "in"),
        ("in/x.parquet", "in/out"),
        ("in/*.parquet", "in/out"),
        ("in/day=*/*.parquet", "in/out"),
        ("in/**/*.parquet", "out"),
    ],
)
def test_output_beside_the_source(tmp_path: Path, source: str, output: str) -> None:
    (tmp_path / "in").mkdir()
    check_apart(locate(tmp_path / source), locate(tmp_path / output))


def test_apart_on_object_stores() -> None:
    with pytest.raises(OutputError, match="inside the source"):
        check_apart(locate("memory://bucket/in"), locate("memory://bucket/in/out"))
    check_apart(locate("memory://bucket/in"), locate("memory://bucket/out"))
    check_apart(locate("memory://bucket/in"), locate("/bucket/in"))


@pytest.fixture
def lake() -> str:
    """What stands before the @ of a connection that this process knows."""
    name = f"lake-{uuid.uuid4().hex}"
    use_storage_options({f"memory://{name}@": {"password": "hunter2"}})
    return name


def test_a_connection_opens_its_uris_and_stays_in_their_names(lake: str) -> None:
    place = locate(f"memory://{lake}@bucket/trades/")
    assert (place.path, place.uri) == ("/bucket/trades", f"memory://{lake}@bucket/trades")
    assert place.fs.storage_options["password"] == "hunter2"
    assert place.child("a").parent == place
    assert locate(place.child("a").uri) == place.child("a")
    assert "hunter2" not in repr(place)


def test_files_found_below_a_uri_keep_its_connection(lake: str, tmp_path: Path) -> None:
    place = locate(f"memory://{lake}@bucket")
    assert place.at("/bucket/a/b").uri == f"memory://{lake}@bucket/a/b"
    assert locate("memory://bucket/a").at("/bucket/b").uri == "memory://bucket/b"
    assert locate(tmp_path).at("/elsewhere") == locate("/elsewhere")


def test_options_belong_to_one_connection(lake: str) -> None:
    assert "password" not in locate("memory://bucket/key").fs.storage_options
    assert "password" not in locate(f"memory://{lake}-other@bucket/key").fs.storage_options


def test_a_connection_that_nobody_has_told_of_is_named() -> None:
    with pytest.raises(UsageError, match=r"'s3://moon@bucket/key' names the connection 'moon'.*outside Airflow"):
        locate("s3://moon@bucket/key")


@pytest.mark.parametrize("uri", ["s3://key:hunter2@bucket/x", "sftp://me:hunter2@host/x", "zip::s3://k:hunter2@b/x"])
def test_a_password_in_a_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(UsageError, match="no password in a URI") as caught:
        locate(uri)
    assert "hunter2" not in str(caught.value)
