"""SIGKILL at random moments of training, again and again: what comes out in the end are the bytes of a whole try."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("VAE_OPS_RESUME_KILLS", "2"))
SEED = int(os.environ.get("VAE_OPS_RESUME_SEED", "0"))
STEPS = 600

Train = Callable[..., dict[str, int]]


@pytest.fixture(scope="module")
def train() -> Iterator[Train]:
    """Trains in a process that can be told when to die."""
    command = [sys.executable, str(Path(__file__).with_name("dying_training.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def ask(bundle: Path, checkpoints: Path | str = "", die_at: int = 0, delay: float = 0.0) -> dict[str, int]:
            request = {"bundle": str(bundle), "checkpoints": str(checkpoints), "die_at": die_at, "delay": delay}
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            answer: dict[str, int] = json.loads(server.stdout.readline())
            return answer

        yield ask
        server.stdin.close()


def contents(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@pytest.mark.timeout(1800)
def test_killed_again_and_again_it_ends_with_the_same_bytes(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path / "whole")["status"] == 0
    rng = random.Random(SEED)
    bundle, checkpoints = tmp_path / "bundle", tmp_path / "checkpoints"
    # In rising order, so that each try has something to do before it dies.
    moments = sorted(rng.sample(range(1, STEPS * 9 // 10), KILLS))
    began = []
    for die_at in moments:
        answer = train(bundle, checkpoints, die_at, rng.uniform(0.0, 0.03))
        assert answer["status"] == -signal.SIGKILL
        assert not bundle.exists()
        assert len(list(checkpoints.glob("*"))) <= 3
        began.append(answer["began"])
    answer = train(bundle, checkpoints)
    assert answer["status"] == 0
    assert contents(bundle) == contents(tmp_path / "whole")
    assert answer["began"] > began[0], "it went on from a checkpoint instead of beginning anew"
