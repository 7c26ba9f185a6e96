"""A planted memoriser is caught, fresh rows pass, and what was not looked at is said."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.memorisers import planted
from vae_ops.schema import SemanticType, infer_semantic_types
from vae_ops.settings import GateSettings
from vae_ops.validation import privacy
from vae_ops.validation.evidence import Finding, PrivacyEvidence
from vae_ops.validation.privacy import measure_privacy, privacy_findings

SETTINGS = GateSettings()
Maker = Callable[[int, int], pa.Table]


def people(rows: int, seed: int) -> pa.Table:
    """An identifier, numbers with gaps, categories with a long tail."""
    generator = np.random.default_rng(seed)
    age = generator.gamma(9.0, 5.0, rows).round(1)
    return pa.table(
        {
            "key": [f"{number:016x}" for number in generator.integers(0, 2**62, rows)],
            "age": age,
            "income": pa.array(np.exp(0.02 * age + generator.normal(7, 0.3, rows)).round(2), mask=age < 20),
            "children": generator.poisson(1.2, rows),
            "height": generator.normal(170, 10, rows),
            "town": [f"town {rank}" for rank in generator.zipf(1.6, rows).clip(max=10**6)],
            "plan": generator.choice(["gold", "silver", "basic"], rows, p=[0.1, 0.3, 0.6]),
        }
    )


def answers(rows: int, seed: int) -> pa.Table:
    """Categories only: fourteen answers on a scale, driven by one attitude."""
    generator = np.random.default_rng(seed)
    attitude = generator.normal(size=rows)
    scale = [np.digitize(0.5 * attitude + generator.normal(size=rows), [-1, -0.3, 0.3, 1]) for _ in range(14)]
    return pa.table({f"question {index}": [f"level {code}" for code in codes] for index, codes in enumerate(scale)})


def numbers(rows: int, seed: int) -> pa.Table:
    generator = np.random.default_rng(seed)
    common = generator.normal(size=rows)
    return pa.table({f"n{index}": common + generator.normal(size=rows) for index in range(8)})


def evidence_of(
    training: pa.Table, holdout: pa.Table, synthetic: pa.Table, *, seed: int = 0, sample_rows: int = 20_000
) -> PrivacyEvidence:
    types = infer_semantic_types(training)
    return measure_privacy(training, holdout, synthetic, types, seed=seed, sample_rows=sample_rows)


def parts(make: Maker, rows: int, seed: int) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Training rows, a tenth of them held out, and as many fresh ones."""
    everything = make(2 * rows + rows // 10, seed)
    return everything.slice(0, rows), everything.slice(2 * rows), everything.slice(rows, rows)


def judged(evidence: PrivacyEvidence, settings: GateSettings = SETTINGS) -> dict[str, Finding]:
    return {finding.metric: finding for finding in privacy_findings(evidence, settings)}


@pytest.mark.parametrize("make", [people, answers, numbers])
@pytest.mark.parametrize("share", [1.0, 0.2, 0.05])
def test_a_planted_memoriser_is_caught(make: Maker, share: float) -> None:
    for seed in range(3):
        training, holdout, fresh = parts(make, 3_000, 10 + seed)
        synthetic = planted(fresh, training, share, seed=seed)
        findings = judged(evidence_of(training, holdout, synthetic, seed=seed))
        near = findings["near_copy_excess_percent"]
        assert near.verdict == "fail", near.sentence
        assert near.value == pytest.approx(100 * share, abs=2.5)
        assert near.remedy


@pytest.mark.parametrize("make", [people, answers, numbers])
@pytest.mark.parametrize("rows", [100, 400])
def test_fresh_rows_pass(make: Maker, rows: int) -> None:
    """Real rows that no generator saw are what a perfect sampler draws: at most one of forty may fail."""
    verdicts: Counter[str] = Counter()
    for seed in range(40):
        findings = judged(evidence_of(*parts(make, rows, 1_000 + seed), seed=seed)).values()
        verdicts[max((f.verdict for f in findings), key=["pass", "borderline", "fail"].index)] += 1
    assert verdicts["fail"] <= 1
    assert verdicts["pass"] >= 36


def test_held_out_rows_as_synthetic_pass_and_are_recognised() -> None:
    training, holdout, _ = parts(people, 3_000, 1)
    findings = judged(evidence_of(training, holdout, holdout))
    assert {finding.verdict for finding in findings.values()} == {"pass"}
    assert "may be among them" in findings["dcr_share_percent"].sentence


def test_exact_copies_are_caught_under_fresh_identifiers() -> None:
    training, holdout, fresh = parts(people, 1_000, 1)
    copies = training.set_column(0, "key", fresh["key"])
    evidence = evidence_of(training, holdout, copies)
    findings = judged(evidence)
    assert evidence.copy_percent == 100.0
    assert findings["copy_excess_percent"].verdict == "fail"
    assert findings["membership_auc"].value > 0.95
    assert findings["membership_auc"].verdict == "fail"
    assert evidence.nndr_synthetic == 0.0 < evidence.nndr_holdout
    assert any("'key'" in line for line in evidence.not_tested)


def test_the_attack_recognises_the_planted_share() -> None:
    training, holdout, fresh = parts(numbers, 4_000, 2)
    honest, leaking = (
        evidence_of(training, holdout, synthetic).attacks for synthetic in (fresh, planted(fresh, training, 0.3))
    )
    assert [attack.group for attack in honest] == ["all rows", "outliers"]
    assert honest[0].interval.low < 0.5 < honest[0].interval.high + 0.02
    assert leaking[0].auc == pytest.approx(0.5 + 0.3 * (1 - 0.3 / 2) / 2, abs=0.05)
    assert leaking[0].interval.low > 0.55


def test_leaks_are_listed_and_judged() -> None:
    training, holdout, fresh = parts(people, 3_000, 3)
    spelled = [f"surname {number}" for number in np.random.default_rng(0).integers(0, 10**6, 9_000)]
    training, holdout, fresh = (
        table.append_column("name", pa.array(spelled[begin : begin + table.num_rows]))
        for begin, table in ((0, training), (3_000, holdout), (5_000, fresh))
    )
    assert judged(evidence_of(training, holdout, fresh))["rare_leak_percent"].verdict == "pass"
    leaking = evidence_of(training, holdout, fresh.set_column(7, "name", training["name"]))
    finding = judged(leaking)["rare_leak_percent"]
    assert finding.verdict == "fail"
    assert "name" in finding.columns
    assert "'name'" in finding.sentence
    assert "'name'" in finding.remedy
    assert {leak.kind for leak in leaking.leaks} <= {"rare category", "extreme"}


def test_extremes_are_judged_on_request_only() -> None:
    training, holdout, _ = parts(numbers, 500, 1)
    evidence = evidence_of(training, holdout, training)
    assert "extreme_leak_percent" not in judged(evidence)
    strict = judged(evidence, replace(SETTINGS, max_extreme_leak_percent=0.0))
    assert strict["extreme_leak_percent"].value == 100.0
    assert strict["extreme_leak_percent"].verdict == "fail"


def test_none_switches_a_finding_off() -> None:
    evidence = evidence_of(*parts(people, 300, 1))
    off = replace(
        SETTINGS,
        max_copy_excess_percent=None,
        max_near_copy_excess_percent=None,
        max_dcr_share_percent=None,
        max_membership_auc=None,
        max_rare_leak_percent=None,
    )
    assert judged(evidence, off) == {}
    assert set(judged(evidence)) == {
        "copy_excess_percent",
        "near_copy_excess_percent",
        "dcr_share_percent",
        "membership_auc",
        "membership_auc_outliers",
        "rare_leak_percent",
    } - ({"membership_auc_outliers"} if len(evidence.attacks) < 2 else set())


def test_chance_copies_of_a_coarse_table_are_no_copies() -> None:
    def coarse(rows: int, seed: int) -> pa.Table:
        generator = np.random.default_rng(seed)
        return pa.table({"a": generator.random(rows) < 0.4, "b": generator.choice(["x", "y"], rows)})

    evidence = evidence_of(*parts(coarse, 1_000, 0))
    assert evidence.copy_percent == evidence.near_copy_percent == 100.0
    assert {finding.verdict for finding in judged(evidence).values()} == {"pass"}


def test_without_held_out_rows_the_rest_is_measured_and_the_gap_is_said() -> None:
    training, holdout, fresh = parts(people, 500, 1)
    evidence = evidence_of(training, holdout.slice(0, 0), planted(fresh, training, 1.0))
    findings = judged(evidence)
    assert findings["near_copy_excess_percent"].verdict == "fail"
    assert "dcr_share_percent" not in findings
    assert "membership_auc" not in findings
    assert any(line.startswith("Distance to the closest record") for line in evidence.not_tested)
    assert any(line.startswith("Membership inference on all rows") for line in evidence.not_tested)


def test_what_nobody_looked_at_is_on_the_card() -> None:
    card = " ".join(evidence_of(*parts(numbers, 50, 1)).not_tested)
    for subject in (
        "Linkability",
        "Attribute inference",
        "Singling out",
        "Groups",
        "Repeated releases",
        "Differential",
    ):
        assert subject in card


@pytest.mark.parametrize("rows", [1, 2, 5, 19])
@pytest.mark.parametrize("make", [people, answers, numbers])
def test_the_smallest_tables_are_measured(make: Maker, rows: int) -> None:
    everything = make(3 * rows, rows)
    training, holdout, synthetic = (everything.slice(part * rows, rows) for part in range(3))
    evidence = evidence_of(training, holdout, synthetic)
    json.dumps(asdict(evidence), allow_nan=False)
    assert "fail" not in {finding.verdict for finding in judged(evidence).values()}


def test_a_table_of_identifiers_only_is_judged_by_its_copies() -> None:
    keys = people(400, 1).select(["key"])
    types = {"key": SemanticType.IDENTIFIER}
    training, holdout, fresh = keys.slice(0, 180), keys.slice(180, 20), keys.slice(200)
    for synthetic, verdict in ((fresh, "pass"), (training, "fail")):
        evidence = measure_privacy(training, holdout, synthetic, types, seed=0, sample_rows=1_000)
        assert judged(evidence)["copy_excess_percent"].verdict == verdict


def test_evidence_is_the_same_every_time_and_plain_json() -> None:
    tables = parts(people, 600, 1)
    first, again = evidence_of(*tables, seed=3), evidence_of(*tables, seed=3)
    assert first == again
    values: dict[str, Any] = json.loads(json.dumps(asdict(first), allow_nan=False))
    assert values["sizes"]["training_rows_searched"] == 600


def test_large_tables_are_sampled_and_that_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "INDEX_CELLS", 6_000)
    monkeypatch.setattr(privacy, "DCR_WORK", 500_000)
    training, holdout, fresh = parts(people, 3_000, 1)
    evidence = evidence_of(training, holdout, planted(fresh, training, 1.0), sample_rows=200)
    assert evidence.sizes["training_rows_searched"] == 1_000
    assert evidence.sizes["near_copies_synthetic_rows"] == 200
    assert evidence.sizes["copies_synthetic_rows"] == 200
    assert evidence.sizes["dcr_synthetic_rows"] < 300
    assert evidence.sizes["dcr_real_rows"] < 100
    # A third of the sources is in the sample, so a third of the copies is found.
    assert evidence.near_copy_percent == pytest.approx(33.0, abs=10.0)


def test_names_are_data() -> None:
    nasty = "<script>alert(1)</script>\n'\"" + "x" * 5_000
    training = pa.table({nasty: [f"v{number}" for number in range(199)] + ["v0"]})
    evidence = measure_privacy(
        training, training, training, {nasty: SemanticType.CATEGORICAL}, seed=0, sample_rows=1_000
    )
    for finding in privacy_findings(evidence, replace(SETTINGS, max_extreme_leak_percent=1.0)):
        assert "\n" not in finding.sentence + finding.remedy
        assert len(finding.sentence) < 600


def test_copies_are_not_judged_among_a_handful_of_rows() -> None:
    training, holdout, _ = parts(numbers, 60, 0)
    named = judged(evidence_of(training, holdout, training))
    assert named["copy_excess_percent"].verdict == "fail"
    few = judged(evidence_of(training.slice(0, 4), holdout.slice(0, 2), training.slice(0, 4)))
    assert not {"copy_excess_percent", "near_copy_excess_percent"} & set(few)
