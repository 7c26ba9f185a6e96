"""What the privacy evidence owes its callers for any Arrow types: ranges, plain JSON, and copies called copies."""

import json
from dataclasses import asdict

import pyarrow as pa
from hypothesis import given, settings

from tests.strategies import tables
from vae_ops.schema import infer_semantic_types
from vae_ops.settings import GateSettings
from vae_ops.validation.columns import align_table
from vae_ops.validation.evidence import PrivacyEvidence
from vae_ops.validation.privacy import measure_privacy, privacy_findings

STRICT = GateSettings(max_extreme_leak_percent=0.0)


def measured(table: pa.Table) -> PrivacyEvidence:
    """Evidence on thirds of one table, as training, held-out and synthetic rows."""
    aligned = align_table(table, table.schema, "training")
    third = max(1, aligned.num_rows // 3)
    training, holdout, synthetic = (aligned.slice(begin, third) for begin in (0, third, aligned.num_rows - third))
    types = infer_semantic_types(training)
    return measure_privacy(training, holdout, synthetic, types, seed=0, sample_rows=1_000)


@settings(deadline=None)
@given(tables(min_rows=1, max_rows=40))
def test_every_figure_is_finite_and_within_its_range(table: pa.Table) -> None:
    evidence = measured(table)
    json.dumps(asdict(evidence), allow_nan=False)
    for name, value in asdict(evidence).items():
        if name.endswith("_percent"):
            assert 0 <= value <= 100, name
    assert 0 <= evidence.nndr_synthetic <= 1
    assert evidence.dcr_interval.low <= evidence.dcr_share_percent <= evidence.dcr_interval.high
    assert evidence.copy_percent <= evidence.near_copy_percent + 1e-9
    for finding in privacy_findings(evidence, STRICT):
        assert finding.noise <= finding.limit or finding.limit >= 100
        assert finding.verdict == "pass" or finding.value > finding.limit
        assert (finding.verdict == "pass") == (finding.remedy == "")


@settings(deadline=None)
@given(tables(min_rows=1, max_rows=20))
def test_training_rows_as_synthetic_are_all_copies(table: pa.Table) -> None:
    aligned = align_table(table, table.schema, "training")
    types = infer_semantic_types(aligned)
    evidence = measure_privacy(aligned, aligned.slice(0, 0), aligned, types, seed=0, sample_rows=1_000)
    assert evidence.copy_percent == evidence.near_copy_percent == 100.0
    assert all(count.leaked == count.at_risk for count in evidence.leak_counts)
