"""Checkpoints: whole, the newest only, tied to one training, and never a reason to fail."""

import errno
import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from vae_ops.checkpoint import Checkpoints, load_checkpoint, save_checkpoint
from vae_ops.errors import BundleError
from vae_ops.storage import Location, locate

STATE: dict[str, Any] = {
    "course": {"done": 12, "stopped_by": "plan"},
    "watch": {"history": [{"loss": 0.1 + 0.2}], "lowest": float("inf")},
    "loop": {"weights": [np.arange(6, dtype=np.float32).reshape(2, 3)], "iterations": np.array(12)},
}


@pytest.fixture
def directory(tmp_path: Path) -> Location:
    return locate(tmp_path / "checkpoint")


def test_a_state_comes_back_bit_by_bit(directory: Location) -> None:
    assert load_checkpoint(directory, "me") is None
    save_checkpoint(directory, "me", 12, STATE)
    found = load_checkpoint(directory, "me")
    np.testing.assert_equal(found, STATE)
    assert found is not None
    assert found["loop"]["iterations"].shape == ()


def test_only_the_newest_is_kept_and_litter_goes(directory: Location) -> None:
    save_checkpoint(directory, "me", 9, {"step": 9})
    directory.child(".000000010-half.safetensors.tmp").write_atomic(b"half")
    save_checkpoint(directory, "me", 10, {"step": 10})
    assert load_checkpoint(directory, "me") == {"step": 10}
    assert len(directory.list()) == 1


def test_a_kill_between_writing_and_removing_leaves_the_newest_in_force(directory: Location) -> None:
    save_checkpoint(directory, "me", 9, {"step": 9})
    name = directory.list()[0]
    data = directory.child(name).read_bytes()
    save_checkpoint(directory, "me", 10, {"step": 10})
    directory.child(name).write_atomic(data)
    assert load_checkpoint(directory, "me") == {"step": 10}


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "longer"])
def test_a_damaged_one_is_refused(directory: Location, damage: str) -> None:
    save_checkpoint(directory, "me", 12, STATE)
    child = directory.child(directory.list()[0])
    data = child.read_bytes()
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    child.write_atomic({"cut": data[:-1], "flip": flipped, "empty": b"", "longer": data + b"\0"}[damage])
    with pytest.raises(BundleError, match="damaged"):
        load_checkpoint(directory, "me")


def test_one_of_another_training_is_refused(directory: Location) -> None:
    save_checkpoint(directory, "another", 12, STATE)
    with pytest.raises(BundleError, match="other rows, settings or versions"):
        load_checkpoint(directory, "me")


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, (2).to_bytes(8, "little") + b"{}", b"\x80\x04N."])
def test_a_file_that_is_none_is_refused(directory: Location, data: bytes) -> None:
    from vae_ops.checkpoint import _digest

    directory.make_dirs()
    directory.child(f"000000001-{_digest(data)}.safetensors").write_atomic(data)
    with pytest.raises(BundleError, match="not a checkpoint"):
        load_checkpoint(directory, "me")


def test_they_lie_on_any_filesystem() -> None:
    directory = locate("memory://checkpoints/run")
    try:
        for step in (3, 4):
            save_checkpoint(directory, "me", step, {"step": step})
        assert load_checkpoint(directory, "me") == {"step": 4}
        assert len(directory.list()) == 1
    finally:
        fsspec.filesystem("memory").rm("/checkpoints", recursive=True)


def test_trouble_is_said_and_never_ends_a_training(directory: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(directory, "another", 1, {})
    checkpoints = Checkpoints(directory, "me")
    assert checkpoints.load() is None
    assert "began anew" in checkpoints.note

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    checkpoints.save(2, dict)
    assert "No space left" in checkpoints.note


def test_one_that_cannot_be_read_is_left_aside(directory: Location) -> None:
    directory.child(f"000000001-{'0' * 32}.safetensors").make_dirs()
    checkpoints = Checkpoints(directory, "me")
    assert checkpoints.load() is None
    assert "began anew" in checkpoints.note
    checkpoints.save(2, lambda: {"step": 2})
    assert checkpoints.load() == {"step": 2}


def test_without_a_directory_none_are_kept() -> None:
    checkpoints = Checkpoints(None, "")
    checkpoints.save(1, lambda: pytest.fail("the state is not asked for"))
    assert checkpoints.load() is None
    assert checkpoints.note == ""


def test_where_writing_is_slow_they_are_further_apart(directory: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    checkpoints = Checkpoints(directory, "me")

    def state(step: int, seconds: float) -> dict[str, int]:
        nonlocal now
        now += seconds
        return {"step": step}

    checkpoints.save(1, lambda: state(1, 2.0))
    now += 30.0
    checkpoints.save(2, lambda: state(2, 2.0))
    assert load_checkpoint(directory, "me") == {"step": 1}
    now += 15.0
    checkpoints.save(3, lambda: state(3, 2.0))
    assert load_checkpoint(directory, "me") == {"step": 3}
