"""Bundles: there and back, and a refusal of whatever was tampered with, cut short, smuggled in or made up."""

import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from vae_ops.bundle import BUNDLE_FORMAT, Bundle
from vae_ops.errors import BundleError

TREE: dict[str, Any] = {
    "schema": "text",
    "encoding": {"columns": [{"exact": np.arange(3)}, {"exact": np.zeros(0)}, None, 1.5, {"array": "no/array"}]},
    "network": {"bias": np.ones((2, 3), dtype=np.float32), "step": np.array(7)},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Bundle.pack(TREE).write(tmp_path / "model")
    return tmp_path / "model"


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def put(directory: Path, name: str, data: bytes) -> None:
    """Puts a file into a bundle as somebody would who means to be believed: size, hash and version are right."""
    (directory / name).write_bytes(data)
    contents = [(directory / one).read_bytes() for one in ("model.json", "weights.safetensors")]
    facts = {"bytes": len(data), "blake2b": hashlib.blake2b(data, digest_size=32).hexdigest()}

    def sign(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = facts
        manifest["version"] = hashlib.blake2b(b"".join(contents), digest_size=16).hexdigest()

    edit_json(directory / "manifest.json", sign)


def check_refused(directory: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Bundle.read(directory).unpack()


def test_a_tree_comes_back(saved: Path) -> None:
    bundle = Bundle.read(saved)
    tree = bundle.unpack()
    assert tree.pop("format") == BUNDLE_FORMAT
    np.testing.assert_equal(tree, TREE)
    assert tree["network"]["step"].shape == ()
    assert bundle == Bundle.pack(TREE)
    assert sorted(os.listdir(saved)) == ["manifest.json", "model.json", "weights.safetensors"]


def test_the_version_follows_from_the_content(saved: Path) -> None:
    assert Bundle.read(saved).version == Bundle.pack(TREE).version
    assert Bundle.pack({**TREE, "schema": "other"}).version != Bundle.pack(TREE).version
    assert Bundle.pack({**TREE, "network": {}}).version != Bundle.pack(TREE).version


def test_writing_replaces_a_bundle_and_leaves_nothing_else(saved: Path) -> None:
    (saved / "old").touch()
    staged = saved.with_name(f".{saved.name}.staging")
    staged.mkdir()
    Bundle.pack({"other": 1}).write(saved)
    assert Bundle.read(saved).unpack()["other"] == 1
    assert os.listdir(saved.parent) == ["model"]
    assert not (saved / "old").exists()


def test_a_bundle_lies_on_any_filesystem() -> None:
    Bundle.pack(TREE).write("memory://bundles/one")
    try:
        assert Bundle.read("memory://bundles/one") == Bundle.pack(TREE)
        fsspec.filesystem("memory").rm("/bundles/one/manifest.json")
        with pytest.raises(BundleError, match="no model"):
            Bundle.read("memory://bundles/one")
    finally:
        fsspec.filesystem("memory").rm("/bundles", recursive=True)


def test_numbers_that_are_not_finite_are_not_written() -> None:
    with pytest.raises(BundleError, match="not finite"):
        Bundle.pack({"loss": float("nan")})


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_altered_truncated_and_missing_files_are_refused(saved: Path, name: str) -> None:
    data = (saved / name).read_bytes()
    middle = len(data) // 2
    for altered in (data[:-1], data[:middle], data + b" ", b"", data[:middle] + b"?" + data[middle + 1 :]):
        (saved / name).write_bytes(altered)
        check_refused(saved, re.escape(name))
    (saved / name).unlink()
    check_refused(saved, re.escape(name))


def test_manifests_that_are_none_are_refused(saved: Path) -> None:
    manifest = saved / "manifest.json"
    whole = manifest.read_bytes()
    for text in (b"", b"[]", b"{}", b"7", b"\xff\xfe", b"[" * 100_000, whole[:-10]):
        manifest.write_bytes(text)
        check_refused(saved, "manifest")
    manifest.unlink()
    check_refused(saved, "no model")
    manifest.mkdir()
    check_refused(saved, "not a file")


@pytest.mark.parametrize(
    ("written", "message"),
    [(BUNDLE_FORMAT + 1, "newer than"), (10**30, "newer than"), (1, "older than"), (-1, "older than")]
    + [(bad, "names no format") for bad in (None, "2", 2.0, True, [2], float("nan"))],
)
def test_other_formats_are_refused(saved: Path, written: object, message: str) -> None:
    edit_json(saved / "manifest.json", lambda manifest: manifest.update(format=written))
    check_refused(saved, message)


@pytest.mark.parametrize(
    "name",
    ["../model.json", "/etc/passwd", "sub/../../x", "..", "weights.pkl", "model.json/", "", "\0", "manifest.json"],
)
def test_a_manifest_names_the_two_files_and_no_other(saved: Path, name: str) -> None:
    (saved.parent / "model.json").write_bytes((saved / "model.json").read_bytes())

    def rename(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop("model.json")

    edit_json(saved / "manifest.json", rename)
    check_refused(saved, "and no other")


@pytest.mark.parametrize("facts", [None, [], "x", {}, {"bytes": float("nan")}, {"bytes": -1}, {"bytes": 10**30}])
def test_facts_of_a_file_that_are_none_are_refused(saved: Path, facts: object) -> None:
    edit_json(saved / "manifest.json", lambda manifest: manifest["files"].update({"model.json": facts}))
    check_refused(saved, "size or hash")


def test_another_version_than_that_of_the_content_is_refused(saved: Path) -> None:
    edit_json(saved / "manifest.json", lambda manifest: manifest.update(version="0" * 32))
    check_refused(saved, "another version")


def test_files_outside_the_directory_are_never_read(saved: Path) -> None:
    outside = saved.parent / "outside"
    for name in ("model.json", "manifest.json"):
        (saved / name).rename(outside)
        (saved / name).symlink_to(outside)
        check_refused(saved, "not a file of its own directory")
        (saved / name).unlink()
        outside.rename(saved / name)
    (saved / "model.json").rename(saved / "inside")
    (saved / "model.json").symlink_to("inside")
    assert Bundle.read(saved) == Bundle.pack(TREE)


def test_what_is_no_plain_file_is_never_opened(saved: Path) -> None:
    weights = saved / "weights.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    check_refused(saved, "not a file")
    weights.unlink()
    weights.mkdir()
    check_refused(saved, "not a file")


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


@pytest.mark.parametrize(
    "name", ["weights.pkl", "model.pickle", "x.PT", "arrays.npy", "model.keras", "encodings.joblib"]
)
def test_a_bundle_with_a_file_that_tools_would_execute_is_refused(saved: Path, name: str) -> None:
    (saved / name).write_bytes(pickle.dumps(Bomb(saved / "mark")))
    check_refused(saved, re.escape(name))
    assert not (saved / "mark").exists()


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_pickle_under_a_good_name_is_refused_and_not_executed(saved: Path, name: str) -> None:
    put(saved, name, pickle.dumps(Bomb(saved / "mark")))
    check_refused(saved, "not JSON and tensors")
    assert not (saved / "mark").exists()


def test_other_files_beside_a_model_are_let_be(saved: Path) -> None:
    for name in ("lineage.json", "profile.json", "rehearsal.arrow", ".model.json.tmp", "README"):
        (saved / name).write_bytes(b"anything")
    assert Bundle.read(saved) == Bundle.pack(TREE)


def header(**tensors: object) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


HUGE = {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (2**63).to_bytes(8, "little"),
        header(**{"network/bias": HUGE}),
        header(**{"network/bias": {**HUGE, "data_offsets": [0, 0]}}),
        header(**{"network/bias": {**HUGE, "dtype": "O"}}),
        header(**{"network/bias": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
    ],
)
def test_tensors_that_are_none_or_not_there_are_refused(saved: Path, data: bytes) -> None:
    put(saved, "weights.safetensors", data)
    check_refused(saved, "not JSON and tensors")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{",
        '{"network": NaN}',
        '{"a": 1e999, "b": Infinity}',
        "[" * 100_000,
        '{"x": {"array": "x"}}',
        "{}",
    ],
)
def test_json_that_is_no_model_is_refused(saved: Path, text: str) -> None:
    put(saved, "model.json", text.encode())
    check_refused(saved, "The content of a model")
