"""Which part of a model is at fault: the same metrics for rows encoded and decoded again and for rows of the prior.

Reconstructions that are off accuse the encoding or the decoder; prior samples that are off while reconstructions are
not accuse the gap between posterior and prior. `gate.py` calls this where a model is at hand; the limits are those of
the findings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vae_ops.validation.columns import EncodedTable, quoted
from vae_ops.validation.comparison import Comparison
from vae_ops.validation.evidence import Finding, TwoSidedEvidence
from vae_ops.validation.joint import MAX_CELLS, c2st
from vae_ops.validation.noise_floor import Errors, measure_errors, prepare_tables

__all__ = ["Reconstruction", "compare_sides", "measure_reconstruction"]

_METRICS = ("shape_error_percent", "trend_error_percent", "pair_error_percent", "c2st_auc")
_COSTLY_COLUMNS = 3


@dataclass(frozen=True)
class Reconstruction:
    """What was measured between rows and their posterior reconstructions.

    Attributes:
        metrics: Value by metric, named as the findings are.
        column_errors: Shape error of each column, percent.
    """

    metrics: Mapping[str, float]
    column_errors: Mapping[str, float]


def measure_reconstruction(
    rows: EncodedTable, reconstructed: EncodedTable, unseen: EncodedTable, found: Comparison, *, seed: int
) -> Reconstruction:
    """Measures reconstructions as synthetic rows are measured.

    Args:
        rows: Real rows.
        reconstructed: Their reconstructions.
        unseen: Real rows to tell reconstructions from.
        found: The comparison of synthetic rows; its pairs are measured again.
        seed: Decides the folds of the two-sample test.
    """
    pairs = [(pair.first, pair.second) for pair in found.pairs]
    real, other = prepare_tables(rows, [rows, reconstructed])
    errors = measure_errors(real, other, pairs)
    metrics = {
        "shape_error_percent": 100 * _mean(errors.shapes),
        "trend_error_percent": 100 * _mean_trend(errors, found, counting=True),
        "pair_error_percent": 100 * _mean_trend(errors, found, counting=False),
    }
    if found.c2st is not None:
        metrics["c2st_auc"] = c2st(unseen, reconstructed, seed=seed, max_cells=MAX_CELLS // 3).auc
    columns = dict(zip(found.names, (100 * float(error) for error in errors.shapes), strict=True))
    return Reconstruction(metrics, columns)


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _mean_trend(errors: Errors, found: Comparison, *, counting: bool) -> float:
    return _mean([e for e, pair in zip(errors.trends, found.pairs, strict=True) if pair.counts or not counting])


def compare_sides(
    reconstruction: Reconstruction, findings: Sequence[Finding], training_record: Mapping[str, Any]
) -> TwoSidedEvidence:
    """Says which part of the model the metrics accuse.

    Args:
        reconstruction: Of posterior reconstructions.
        findings: Of prior samples, with their limits.
        training_record: What training left; its `diagnosis` tells how much of the latent is in use.
    """
    judged = {finding.metric: finding for finding in findings if finding.metric in _METRICS}
    prior = {metric: finding.value for metric, finding in judged.items()}
    over = [metric for metric, finding in judged.items() if finding.value > finding.limit]
    also = [metric for metric in over if reconstruction.metrics[metric] > judged[metric].limit]
    faulty: Literal["none", "encoding", "prior"] = "none" if not over else "encoding" if also else "prior"
    diagnosis = training_record.get("diagnosis") or {}
    kl = tuple(map(float, diagnosis.get("kl_by_dimension", ())))
    active = diagnosis.get("active_units")
    return TwoSidedEvidence(
        reconstruction={metric: reconstruction.metrics[metric] for metric in judged},
        prior=prior,
        faulty=faulty,
        sentence=f"{_accusation(faulty, over, diagnosis)} {_collapse(kl, active)}".strip(),
        kl_by_dimension=kl,
        active_units=None if active is None else int(active),
    )


def _accusation(faulty: str, over: Sequence[str], diagnosis: Mapping[str, Any]) -> str:
    metrics = ", ".join(over)
    if faulty == "none":
        return "Prior samples are within every limit, so no part of the model is accused."
    if faulty == "prior":
        return (
            f"Rows encoded and decoded again are faithful where rows drawn from the prior are not ({metrics}): the "
            "fault lies between posterior and prior, so train longer or change train.latent_dim."
        )
    return (
        f"Rows encoded and decoded again are off as well ({metrics}): the fault lies in the encoding or the decoder, "
        f"before the prior has a say{_costly(diagnosis.get('loss_by_column') or {})}."
    )


def _costly(loss_by_column: Mapping[str, float]) -> str:
    costly = sorted(loss_by_column, key=lambda name: -loss_by_column[name])[:_COSTLY_COLUMNS]
    return f"; the columns that cost it most are {', '.join(map(quoted, costly))}" if costly else ""


def _collapse(kl: Sequence[float], active: int | None) -> str:
    if active is None or not kl:
        return ""
    if active == 0:
        return (
            f"None of the {len(kl)} latent dimensions is in use (posterior collapse): the decoder draws each column "
            "from those before it alone, so encoding a row says nothing about it."
        )
    return f"{active} of {len(kl)} latent dimensions are in use, with a KL of {sum(kl):.2f} nats in all."
