"""SIGKILL of the real command at random moments, network and all; `test_faults.py` kills at every named point."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.stand_in_model import some_rows
from tests.system.faults.promises import latest_id, names_below, violations_for_readers
from vae_ops.storage import locate

pytestmark = pytest.mark.slow

REAL_KILLS = int(os.environ.get("VAE_OPS_KILLS", "2"))


@pytest.mark.timeout(1800)
def test_death_of_the_command_at_random_moments(tmp_path: Path) -> None:
    source, output = tmp_path / "source.parquet", locate(tmp_path / "out")
    pq.write_table(some_rows(300), source)
    limits = [f"gate.{name}=100" for name in ("max_shape_error_percent", "max_trend_error_percent", "borderline")]
    settings = [part for setting in ("train.steps=30", *limits) for part in ("--set", setting)]
    command = [str(Path(sys.executable).with_name("vae-ops")), "augment", str(source), output.path, *settings]
    first = subprocess.run([*command, "--json", "--seed", "0"], capture_output=True, text=True, check=True)
    seconds = json.loads(first.stdout)["seconds"]["total"]
    published, names = latest_id(output), names_below(output)
    moments = random.Random(0)
    for _ in range(REAL_KILLS):
        with subprocess.Popen([*command, "--seed", "0"], stderr=subprocess.DEVNULL) as running:
            try:
                running.wait(timeout=moments.uniform(0.5, seconds + 2.0))
            except subprocess.TimeoutExpired:
                running.kill()
        assert violations_for_readers(output, {published}) == []
    subprocess.run([*command, "--seed", "0"], stderr=subprocess.DEVNULL, check=True)
    assert violations_for_readers(output, {published}) == []
    assert names_below(output) == names
