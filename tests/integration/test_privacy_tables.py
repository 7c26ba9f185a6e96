"""Privacy on Adult and MAGIC: the memoriser is caught, held-out rows pass, and DCR is the scoring script's."""

import importlib.util
import json
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.memorisers import planted
from tests.public_tables import NAMES, SHARED, public_table
from vae_ops.schema import infer_semantic_types
from vae_ops.settings import GateSettings
from vae_ops.validation.closeness import DcrShare, dcr_share
from vae_ops.validation.columns import encode_tables
from vae_ops.validation.neighbours import measure_units, place_rows
from vae_ops.validation.privacy import measure_privacy, privacy_findings


def verdicts(training: pa.Table, holdout: pa.Table, synthetic: pa.Table) -> dict[str, str]:
    types = infer_semantic_types(training)
    evidence = measure_privacy(training, holdout, synthetic, types, seed=0, sample_rows=20_000)
    return {finding.metric: finding.verdict for finding in privacy_findings(evidence, GateSettings())}


def thirds(name: str) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Training rows, held-out rows and as many further real rows, in a fixed-seed order."""
    training, test = public_table(name)
    everything = pa.concat_tables([training, test])
    everything = everything.take(np.random.default_rng(0).permutation(everything.num_rows))
    rows = everything.num_rows // 21 * 10
    return everything.slice(0, rows), everything.slice(2 * rows), everything.slice(rows, rows)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
def test_a_planted_memoriser_is_caught(name: str, share: float) -> None:
    training, holdout, fresh = thirds(name)
    assert verdicts(training, holdout, planted(fresh, training, share))["near_copy_excess_percent"] == "fail"


@pytest.mark.parametrize("name", NAMES)
def test_fresh_and_held_out_rows_pass(name: str) -> None:
    training, holdout, fresh = thirds(name)
    for synthetic in (fresh, holdout):
        assert set(verdicts(training, holdout, synthetic).values()) == {"pass"}


@pytest.fixture(scope="module")
def score() -> ModuleType:
    """The scoring script as a module; its figures come from its own code."""
    pytest.importorskip("pandas")
    path = SHARED / "score.py"
    if not path.exists():
        pytest.skip(f"{path} is not here; VAE_OPS_SHARED may name another place.")
    spec = importlib.util.spec_from_file_location("score", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shares(
    score: ModuleType, name: str, training: pa.Table, holdout: pa.Table, synthetic: pa.Table
) -> tuple[dict[str, Any], DcrShare]:
    """The script's figures and ours, over the same synthetic rows."""
    info = json.loads((SHARED / "tables" / name / "info.json").read_text())
    frames = score.frames(info, *(table.to_pandas() for table in (training, holdout, synthetic)))
    places = place_rows(encode_tables([training, holdout, synthetic], infer_semantic_types(training)))
    ranges = measure_units(places[0]).ranges
    real, unseen, drawn = (part.scaled(ranges) for part in places)
    return score.privacy(info, *frames), dcr_share(drawn, real, unseen, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_dcr_share_is_that_of_the_scoring_script(score: ModuleType, name: str) -> None:
    training, holdout, fresh = thirds(name)
    synthetic = planted(fresh, training, 0.5).take(np.random.default_rng(1).permutation(fresh.num_rows)[:4_000])
    theirs, ours = shares(score, name, training, holdout, synthetic)
    assert 100 * ours.share == pytest.approx(theirs["dcr_share"], abs=2 * theirs["dcr_share_sd"])


@pytest.mark.parametrize("name", NAMES)
def test_over_the_same_rows_dcr_share_is_the_same_number(score: ModuleType, name: str) -> None:
    training, holdout, fresh = thirds(name)
    synthetic = planted(fresh, training, 0.5).take(np.random.default_rng(1).permutation(fresh.num_rows)[:2_000])
    theirs, ours = shares(score, name, training.slice(0, holdout.num_rows), holdout, synthetic)
    assert 100 * ours.share == pytest.approx(theirs["dcr_share"], abs=1e-9)
