"""Trains in forked children and kills them with SIGKILL at a chosen moment; see `test_resume_after_kill.py`.

Reads one JSON object a line, `{"bundle", "checkpoints", "die_at", "delay"}`, and answers with the signal that ended the
child and the step it began at. Keras is imported once, and TensorFlow has computed nothing before a fork.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa

import vae_ops.networks
from vae_ops.settings import TrainSettings
from vae_ops.storage import locate
from vae_ops.training import TrainingProgress
from vae_ops.vae import TabularVAE


def table(rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=rows)
    city = np.array(["Graz", "Linz", "Wien"])[np.digitize(x, [-0.5, 0.5])]
    return pa.table({"x": np.round(x, 3), "city": city, "n": rng.poisson(np.exp(x)), "up": x > rng.normal(size=rows)})


def train(bundle: str, checkpoints: str, die_at: int, delay: float, answer: int) -> None:
    """Trains and saves; `delay` seconds after step `die_at`, dies, wherever it is then."""
    began = False

    def listen(at: TrainingProgress) -> None:
        nonlocal began
        if not began:
            began = True
            os.write(answer, str(at.step).encode())
        if die_at and at.step >= die_at:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    rows = table(2300)
    model = TabularVAE(settings=TrainSettings(steps=600), progress=listen)
    model.fit_tables(rows.slice(0, 2000), rows.slice(2000), checkpoint=locate(checkpoints) if checkpoints else None)
    model.save(bundle)


def in_a_child(bundle: str, checkpoints: str, die_at: int, delay: float) -> dict[str, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            train(bundle, checkpoints, die_at, delay, writing)
        finally:
            os._exit(sys.exc_info()[0] is not None)
    os.close(writing)
    with os.fdopen(reading) as answer:
        began = answer.read()
    _, status = os.waitpid(child, 0)
    return {"status": os.waitstatus_to_exitcode(status), "began": int(began or 0)}


if __name__ == "__main__":
    assert vae_ops.networks, "imported before the first fork"
    for line in sys.stdin:
        sys.stdout.write(json.dumps(in_a_child(**json.loads(line))) + "\n")
        sys.stdout.flush()
