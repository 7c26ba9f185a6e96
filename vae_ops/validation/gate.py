"""The verdict: may these synthetic rows be published? Pass, borderline or fail, with the reasons a person needs.

`comparison.py` and its neighbours measure, `findings.py`, `privacy.py` and `utility.py` weigh; here the evidence is
gathered and the worst finding decides. What follows from a verdict is up to `vae_ops/steps.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from vae_ops.schema import SemanticType, infer_semantic_types
from vae_ops.settings import GateSettings, UtilitySettings
from vae_ops.validation.column_facts import describe_column
from vae_ops.validation.columns import EncodedTable, NumberColumn, align_table, encode_tables, row_count, take_rows
from vae_ops.validation.comparison import Comparison, compare_tables, trending_columns, unseen_rows
from vae_ops.validation.evidence import (
    MILDEST_FIRST,
    C2stEvidence,
    ColumnEvidence,
    Finding,
    Interval,
    PairEvidence,
    PrivacyEvidence,
    TwoSidedEvidence,
    UtilityEvidence,
    Validation,
)
from vae_ops.validation.findings import column_verdicts, fidelity_findings
from vae_ops.validation.two_sided import Reconstruction, compare_sides, measure_reconstruction

__all__ = ["judge"]

JUDGED_CELLS = 6_000_000  # rows × columns of each side, so that 300 columns are judged on 20,000 rows
FEWEST_ROWS = 1_000
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def judge(
    training: pa.Table,
    holdout: pa.Table,
    synthetic: pa.Table,
    settings: GateSettings,
    *,
    seed: int = 0,
    semantic_types: Mapping[str, SemanticType] | None = None,
    reconstructed: tuple[pa.Table, pa.Table] | None = None,
    training_record: Mapping[str, Any] = _NOTHING,
    utility: UtilityEvidence | None = None,
    utility_settings: UtilitySettings | None = None,
    provenance: Mapping[str, str] = _NOTHING,
) -> Validation:
    """Judges synthetic rows against the rows a model was trained on and rows it never saw.

    Shape and trend are measured against the training rows, the classifier two-sample test and privacy against the
    holdout. Deterministic for given rows, settings and seed.

    Args:
        training: Rows the model was trained on, at least one.
        holdout: Rows of the same source that it never saw.
        synthetic: Rows drawn from the model.
        settings: Limits and sample size.
        seed: Decides samples, parts, folds and resamples.
        semantic_types: What each column means; None infers it from the training rows.
        reconstructed: Real rows and what the model makes of them when it encodes and decodes them.
        training_record: What training left: `diagnosis` and `history` are shown.
        utility: How useful the rows are, where that was measured.
        utility_settings: Limits of the utility.
        provenance: Facts for the report, name → text.

    Raises:
        SchemaError: The holdout or the synthetic rows lack a column of the training rows, or a column does not fit.
    """
    types = dict(semantic_types or infer_semantic_types(training))
    tables = [
        align_table(table, training.schema, role)
        for table, role in ((training, "training"), (holdout, "held-out"), (synthetic, "synthetic"))
    ]
    history = tuple(dict(record) for record in training_record.get("history", ()))
    blank = Validation("pass", (), (), (), None, None, None, utility, _sizes(tables), seed, dict(provenance), history)
    if synthetic.num_rows == 0:
        return replace(blank, findings=(_nothing_to_judge(),))
    evidence = _measure(tables, types, settings, reconstructed, training_record, seed)
    findings = _weigh(evidence, settings, utility, utility_settings or UtilitySettings())
    return replace(
        blank,
        verdict=findings[0].verdict if findings else "pass",
        findings=tuple(findings),
        columns=_column_evidence(evidence, types, settings),
        pairs=_pair_evidence(evidence.found),
        c2st=_c2st_evidence(evidence.found),
        two_sided=evidence.two_sided,
        privacy=evidence.privacy,
        sizes={**blank.sizes, **_judged_sizes(evidence, types)},
    )


def _sizes(tables: Sequence[pa.Table]) -> dict[str, int]:
    names = ("rows_training", "rows_holdout", "rows_synthetic")
    rows = {name: table.num_rows for name, table in zip(names, tables, strict=True)}
    return rows | {"columns": tables[0].num_columns}


def _nothing_to_judge() -> Finding:
    sentence = "There are no synthetic rows, so there is nothing to judge."
    return Finding("rows_synthetic", "fidelity", "pass", 0.0, None, 0.0, 0.0, 0.0, sentence)


# --- measuring -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Evidence:
    """All that was measured."""

    training: EncodedTable
    synthetic: EncodedTable
    found: Comparison
    fidelity: tuple[Finding, ...]
    reconstruction: Reconstruction | None
    two_sided: TwoSidedEvidence | None
    privacy: PrivacyEvidence | None


def _measure(
    tables: Sequence[pa.Table],
    types: Mapping[str, SemanticType],
    settings: GateSettings,
    reconstructed: tuple[pa.Table, pa.Table] | None,
    training_record: Mapping[str, Any],
    seed: int,
) -> _Evidence:
    most = min(settings.sample_rows, max(FEWEST_ROWS, JUDGED_CELLS // max(len(types), 1)))
    samples = [_sampled(table, most, [seed, index]) for index, table in enumerate(tables)]
    aligned = [align_table(table, tables[0].schema, "reconstructed") for table in reconstructed or ()]
    rebuilt = [_sampled(table, most, [seed, 9]) for table in aligned]
    pool, synthetic, *sides = encode_tables([pa.concat_tables(samples[:2]), samples[2], *rebuilt], types)
    rows, jointly = samples[0].num_rows, settings.max_c2st_auc is not None
    found = compare_tables(pool, rows, synthetic, types, jointly=jointly, seed=seed)
    fidelity = tuple(fidelity_findings(found, settings))
    rebuilding = _reconstruction(sides, unseen_rows(pool, rows), found, seed)
    return _Evidence(
        training=take_rows(pool, np.arange(rows)),
        synthetic=synthetic,
        found=found,
        fidelity=fidelity,
        reconstruction=rebuilding,
        two_sided=compare_sides(rebuilding, fidelity, training_record) if rebuilding else None,
        privacy=_privacy(tables, types, settings, seed),
    )


def _sampled(table: pa.Table, most: int, seed: Sequence[int]) -> pa.Table:
    if table.num_rows <= most:
        return table
    return table.take(np.sort(np.random.default_rng(seed).choice(table.num_rows, size=most, replace=False)))


def _reconstruction(
    sides: Sequence[EncodedTable], unseen: EncodedTable, found: Comparison, seed: int
) -> Reconstruction | None:
    if not sides or not row_count(sides[0]):
        return None
    return measure_reconstruction(sides[0], sides[1], unseen, found, seed=seed)


def _privacy(
    tables: Sequence[pa.Table], types: Mapping[str, SemanticType], settings: GateSettings, seed: int
) -> PrivacyEvidence | None:
    from vae_ops.validation.privacy import measure_privacy

    if not settings.judges_privacy:
        return None
    training, holdout, synthetic = tables
    return measure_privacy(training, holdout, synthetic, types, seed=seed, sample_rows=settings.sample_rows)


# --- deciding ------------------------------------------------------------------------------------------------------


def _weigh(
    evidence: _Evidence, settings: GateSettings, utility: UtilityEvidence | None, utility_settings: UtilitySettings
) -> list[Finding]:
    """All findings, those that decide first.

    Among those of one verdict the heaviest of each aspect leads, so that three ways of saying that rows were copied do
    not hide that a column is off as well.
    """
    from vae_ops.validation.privacy import privacy_findings
    from vae_ops.validation.utility import utility_findings

    findings = [
        *evidence.fidelity,
        *(privacy_findings(evidence.privacy, settings) if evidence.privacy else ()),
        *(utility_findings(utility, utility_settings) if utility else ()),
    ]
    findings.sort(key=lambda finding: (-MILDEST_FIRST.index(finding.verdict), -finding.weight, finding.metric))
    leading = {(finding.verdict, finding.aspect): finding.metric for finding in reversed(findings)}
    return sorted(
        findings, key=lambda f: (-MILDEST_FIRST.index(f.verdict), leading[f.verdict, f.aspect] != f.metric, -f.weight)
    )


# --- what the report shows -----------------------------------------------------------------------------------------


def _column_evidence(
    evidence: _Evidence, types: Mapping[str, SemanticType], settings: GateSettings
) -> tuple[ColumnEvidence, ...]:
    found = evidence.found
    rebuilt = evidence.reconstruction.column_errors if evidence.reconstruction else {}
    columns = []
    for name, figure, verdict in zip(found.names, found.shapes(), column_verdicts(found, settings), strict=True):
        facts = describe_column(evidence.training[name], evidence.synthetic[name])
        columns.append(
            ColumnEvidence(
                column=name,
                semantic_type=str(types[name]),
                metric="KS" if isinstance(evidence.training[name], NumberColumn) else "TV",
                error_percent=100 * figure.value,
                interval=Interval(100 * figure.interval.low, 100 * figure.interval.high),
                noise_percent=100 * figure.noise,
                verdict=verdict,
                mean_shift_sd=found.shifts.get(name),
                reconstruction_error_percent=rebuilt.get(name),
                **{field: getattr(facts, field) for field in facts.__dataclass_fields__},
            )
        )
    return tuple(sorted(columns, key=lambda c: (-MILDEST_FIRST.index(c.verdict), -c.error_percent, c.column)))


def _pair_evidence(found: Comparison) -> tuple[PairEvidence, ...]:
    pairs = [
        PairEvidence(p.first, p.second, p.kind, 100 * p.error, p.strength_real, p.strength_synthetic, p.counts)
        for p in found.pairs
    ]
    return tuple(sorted(pairs, key=lambda pair: (-pair.error_percent, pair.first, pair.second)))


def _c2st_evidence(found: Comparison) -> C2stEvidence | None:
    outcome = found.c2st
    if outcome is None:
        return None
    return C2stEvidence(
        outcome.auc, outcome.interval, found.c2st_noise, outcome.rows, outcome.columns, tuple(outcome.telling)
    )


def _judged_sizes(evidence: _Evidence, types: Mapping[str, SemanticType]) -> dict[str, int]:
    found, trending = evidence.found, len(trending_columns(types))
    return {
        "rows_training_judged": row_count(evidence.training),
        "rows_synthetic_judged": row_count(evidence.synthetic),
        "columns_judged": len(found.names),
        "pairs": trending * (trending - 1) // 2,
        "pairs_judged": len(found.pairs),
        "c2st_rows": found.c2st.rows if found.c2st else 0,
        "c2st_columns": found.c2st.columns if found.c2st else 0,
        "noise_floor_repeats": len(found.floor.shapes) if found.floor else 0,
        "resamples": len(found.resampled.errors.shapes),
        **(evidence.privacy.sizes if evidence.privacy else {}),
    }
