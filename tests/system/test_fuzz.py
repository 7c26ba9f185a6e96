"""Made-up bundles and Parquet files: refused in our words, without a hang, a crash or much memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CASES = int(os.environ.get("VAE_OPS_FUZZ_CASES", "150"))
FIRST = int(os.environ.get("VAE_OPS_FUZZ_FIRST", "0"))
GIB = 2**30


def fuzz(kind: str, directory: Path) -> dict[str, Any]:
    """Opens the cases in a process of their own; how it ends tells of crashes and hangs."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("fuzzing.py")),
        kind,
        str(FIRST),
        str(CASES),
        str(directory),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    facts: dict[str, Any] = json.loads(ended.stdout)
    assert facts["faults"] == []
    assert facts["peak_bytes"] < GIB
    assert sum(facts["outcomes"].values()) == CASES
    return facts


@pytest.mark.timeout(1800)
def test_bundles(tmp_path: Path) -> None:
    outcomes = fuzz("bundles", tmp_path)["outcomes"]
    # Whoever cannot sign cannot alter what is loaded.
    assert "bytes: loaded" not in outcomes
    assert "files: loaded" not in outcomes
    # Some must get as far as the checks behind the hashes, and some beyond them.
    assert outcomes["json: refused: BundleError"] > 0
    assert outcomes["json: loaded"] > 0
    assert {outcome.partition(": ")[2] for outcome in outcomes} == {"loaded", "refused: BundleError"}


@pytest.mark.timeout(1800)
def test_parquet_files(tmp_path: Path) -> None:
    outcomes = fuzz("tables", tmp_path)["outcomes"]
    assert outcomes["footer: refused: SourceError"] > 0
    assert outcomes["pages: refused: SourceError"] > 0
    assert sum(count for outcome, count in outcomes.items() if outcome.endswith("read")) > 0
