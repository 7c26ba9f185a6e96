"""What all tests share: an Airflow of their own, and stand-in interpreters for the operators' child process."""

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]

pytest_plugins = ["tests.browser", "tests.object_store", "tests.system.airflow_server"]

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("unhurried", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("unhurried")

# Airflow reads its configuration when it is first imported, so this stands before any test module.
_AIRFLOW_HOME = tempfile.TemporaryDirectory(prefix="vae-ops-airflow-")
os.environ.update(
    AIRFLOW_HOME=_AIRFLOW_HOME.name,
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="WARNING",
    AIRFLOW__API_AUTH__JWT_SECRET="only for tests, and as long as the algorithm wants it: sixty-four bytes",
)

StandIn = Callable[[str], str]


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    """Makes an interpreter out of a script: it is called as `PYTHON -m vae_ops.steps STEP -`, spec on stdin.

    The script finds `STEP` and `SPEC` set, and `emit(event, **values)` to write an event.
    """

    def make(script: str) -> str:
        path = tmp_path / "stand-in-python"
        prelude = (
            f"#!{sys.executable}\n"
            "import json, os, signal, subprocess, sys, time\n"
            "assert sys.argv[1:3] == ['-m', 'vae_ops.steps'] and sys.argv[4:] == ['-'], sys.argv\n"
            "STEP, SPEC = sys.argv[3], json.load(sys.stdin)\n"
            "def emit(event, **values):\n"
            "    print(json.dumps({'event': event, 'step': STEP, **values}), flush=True)\n"
        )
        path.write_text(prelude + script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make
