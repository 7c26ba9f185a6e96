"""SIGKILL at any moment of `augment`: readers keep a whole snapshot, the next run succeeds, no litter grows."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.stand_in_model import some_rows
from vae_ops import load_latest

pytestmark = pytest.mark.slow

# Every touch of the filesystem is a moment to die at; a prime stride over them meets all kinds.
STRIDE = int(os.environ.get("VAE_OPS_KILL_STRIDE", "7"))
REAL_KILLS = int(os.environ.get("VAE_OPS_KILLS", "2"))

Walk = Callable[[Path, Path, int], dict[str, int]]


@pytest.fixture(scope="module")
def walk() -> Iterator[Walk]:
    """Walks in a process that can be told when to die."""
    command = [sys.executable, str(Path(__file__).with_name("dying_walk.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def ask(source: Path, output: Path, die_at: int) -> dict[str, int]:
            request = {"source": str(source), "output": str(output), "die_at": die_at}
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            answer: dict[str, int] = json.loads(server.stdout.readline())
            return answer

        yield ask
        server.stdin.close()


def names_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def check_intact(output: Path) -> str:
    """Checks every visible snapshot against its manifest, and returns the id of the latest one."""
    for snapshot in (output / "snapshots").iterdir():
        if not snapshot.name.startswith("."):
            manifest = json.loads((snapshot / "_manifest.json").read_text())
            for file in manifest["files"]:
                assert hashlib.sha256((snapshot / file["name"]).read_bytes()).hexdigest() == file["sha256"]
            assert json.loads((snapshot / "_report.json").read_text())["verdict"] == "pass"
    latest = load_latest(output)
    assert pq.read_table(latest.snapshot_path).num_rows == latest.rows_source + latest.rows_synthetic
    return latest.snapshot_id


@pytest.mark.timeout(1800)
def test_death_at_any_touch_of_the_filesystem(walk: Walk, tmp_path: Path) -> None:
    nights = [tmp_path / f"night{night}.parquet" for night in range(3)]
    for night, path in enumerate(nights):
        pq.write_table(some_rows(60, seed=night), path)
    before, clean = tmp_path / "before", tmp_path / "clean"
    # Two nights fill what is kept, so that the third also has something to remove.
    for source in nights[:2]:
        assert walk(source, before, 0)["signal"] == 0
    shutil.copytree(before, clean)
    touches = walk(nights[2], clean, 0)["touches"]
    assert touches > 100
    old, new = check_intact(before), check_intact(clean)
    seen = set()
    for die_at in range(1, touches + 1, STRIDE):
        output = tmp_path / "out"
        shutil.copytree(before, output)
        assert walk(nights[2], output, die_at)["signal"] == signal.SIGKILL
        seen.add(check_intact(output))
        assert walk(nights[2], output, 0)["signal"] == 0
        assert check_intact(output) == new
        assert names_below(output) == names_below(clean)
        shutil.rmtree(output)
    assert seen == {old, new}


@pytest.mark.timeout(1800)
def test_death_of_a_first_run_leaves_nothing_that_looks_published(walk: Walk, tmp_path: Path) -> None:
    source, clean = tmp_path / "source.parquet", tmp_path / "clean"
    pq.write_table(some_rows(60), source)
    touches = walk(source, clean, 0)["touches"]
    for die_at in range(2, touches + 1, 5 * STRIDE):
        output = tmp_path / "out"
        assert walk(source, output, die_at)["signal"] == signal.SIGKILL
        if (output / "_latest.json").exists():
            check_intact(output)
        assert walk(source, output, 0)["signal"] == 0
        assert names_below(output) == names_below(clean)
        shutil.rmtree(output)


@pytest.mark.timeout(1800)
def test_death_of_the_command_at_random_moments(tmp_path: Path) -> None:
    source, output = tmp_path / "source.parquet", tmp_path / "out"
    pq.write_table(some_rows(300), source)
    limits = [f"gate.{name}=100" for name in ("max_shape_error_percent", "max_trend_error_percent", "borderline")]
    settings = [part for setting in ("train.steps=30", *limits) for part in ("--set", setting)]
    command = [str(Path(sys.executable).with_name("vae-ops")), "augment", str(source), str(output), *settings]
    first = subprocess.run([*command, "--json", "--seed", "0"], capture_output=True, text=True, check=True)
    seconds = json.loads(first.stdout)["seconds"]["total"]
    expected = check_intact(output)
    names = names_below(output)
    moments = random.Random(0)
    for _ in range(REAL_KILLS):
        with subprocess.Popen([*command, "--seed", "0"], stderr=subprocess.DEVNULL) as running:
            try:
                running.wait(timeout=moments.uniform(0.5, seconds + 2.0))
            except subprocess.TimeoutExpired:
                running.kill()
        assert check_intact(output) == expected
    subprocess.run([*command, "--seed", "0"], stderr=subprocess.DEVNULL, check=True)
    assert check_intact(output) == expected
    assert names_below(output) == names
