"""Walks in forked children and kills them with SIGKILL at a chosen touch of the filesystem; see `test_kill.py`.

Reads one JSON object a line, `{"source", "output", "die_at"}`, and answers with `{"signal", "touches"}`. Everything is
imported once, so that hundreds of walks take minutes instead of an hour.
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.stand_in_model import LENIENT, StandInModel
from vae_ops.settings import RunSettings
from vae_ops.steps import augment
from vae_ops.validation.gate import judge

TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock", "shutil.rmtree"}


def walk(source: str, output: str, die_at: int) -> int:
    """Walks and returns how often the filesystem was touched; at touch number `die_at`, dies."""
    touches = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal touches
        if event not in TOUCHES or (event == "open" and not str(arguments[0]).startswith(output)):
            return
        touches += 1
        if touches == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    augment(
        source,
        output,
        settings=RunSettings.from_dict({**LENIENT, "publish": {"keep_snapshots": 2}}),
        engine=StandInModel,
    )
    return touches


def in_a_child(source: str, output: str, die_at: int) -> dict[str, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        os.write(writing, str(walk(source, output, die_at)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        touches = answer.read()
    _, status = os.waitpid(child, 0)
    return {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, "touches": int(touches or 0)}


if __name__ == "__main__":
    assert judge, "imported before the first fork"
    for line in sys.stdin:
        sys.stdout.write(json.dumps(in_a_child(**json.loads(line))) + "\n")
        sys.stdout.flush()
