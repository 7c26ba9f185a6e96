"""One night as the operators run it, a process a step: a killed training is taken up, and TensorFlow imported once.

A second, quiet night with the same source shows that nothing is trained or imported where nothing moved. That a
training taken up ends with the same bytes is shown by `test_resume_after_kill.py`, what it saves by
`benchmarks/tasks.py`.
"""

import dataclasses
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vae_ops.errors import StepFailedError
from vae_ops.progress import Progress
from vae_ops.settings import GateSettings, RunSettings
from vae_ops_provider.process import StepProcess

pytestmark = pytest.mark.slow

_LIMITS = {field.name: "off" for field in dataclasses.fields(GateSettings) if field.name.startswith("max_")}
SETTINGS = RunSettings.from_dict({"train": {"steps": 600, "hidden_units": 32}, "gate": _LIMITS})
KILL_AT = 0.5


class Night:
    """The steps of one run, and what was heard of them."""

    def __init__(self, folder: Path, python: str, run_id: str, output: str) -> None:
        self._python = python
        self._spec = {
            "source": str(folder / "source.parquet"),
            "output": str(folder / output),
            "run_id": run_id,
            "settings": SETTINGS.to_dict(),
        }
        self.imports: dict[str, int] = {}
        self.progress: list[Progress] = []

    def run(self, step: str, *, kill_at: float = 1.0) -> dict[str, Any]:
        self.progress = []
        self.imports.setdefault(step, 0)

        def hear(progress: Progress) -> None:
            self.progress.append(progress)
            if kill_at <= progress.fraction < 1.0:
                for child in psutil.Process().children():
                    child.kill()

        def count(line: str) -> None:
            self.imports[step] += line.rpartition("|")[2].strip() == "tensorflow"

        return StepProcess(step, self._spec, python=self._python).run(on_progress=hear, on_chatter=count)

    def optimiser_steps(self) -> list[int]:
        return [int(p.values["optimiser_step"] or 0) for p in self.progress if "optimiser_step" in p.values]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nights")
    rng = np.random.default_rng(0)
    x = rng.normal(size=3000)
    city = np.array(["Graz", "Linz", "Wien"])[np.digitize(x, [-0.5, 0.5])]
    pq.write_table(
        pa.table({"x": np.round(x, 3), "city": city, "n": rng.poisson(np.exp(x))}), folder / "source.parquet"
    )
    return folder


@pytest.fixture(scope="module")
def python(folder: Path) -> str:
    """An interpreter that tells of every import."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -X importtime "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_killed_training_is_taken_up_and_a_night_imports_tensorflow_once(folder: Path, python: str) -> None:
    night = Night(folder, python, "first", "out")
    night.run("profile")
    with pytest.raises(StepFailedError, match="killed"):
        night.run("train", kill_at=KILL_AT)
    done = max(night.optimiser_steps())
    night.run("train")
    # The last checkpoint before the kill may be a report old.
    assert min(night.optimiser_steps()) > done / 2
    assert any("went on from step" in progress.message for progress in night.progress)

    for step in ("generate", "validate", "publish"):
        night.run(step)
    assert night.imports == {"profile": 0, "train": 2, "generate": 0, "validate": 0, "publish": 0}

    quiet = Night(folder, python, "second", "out")
    quiet.run("profile")
    assert quiet.run("train")["decision"] == "reuse"
    assert quiet.imports == {"profile": 0, "train": 0}
