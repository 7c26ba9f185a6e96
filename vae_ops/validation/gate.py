"""The verdict: may these synthetic rows be published? Pass, borderline or fail, with the reasons a person needs.

The numbers come from `fidelity.py` and `privacy.py`; limits from `GateSettings`, each widened by what a perfect sampler
could score at these numbers of rows. What follows from a verdict is up to `vae_ops/steps.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from vae_ops.schema import SemanticType, infer_semantic_types
from vae_ops.settings import GateSettings
from vae_ops.validation.columns import EncodedTable, align_table, encode_tables, quoted, take_rows
from vae_ops.validation.fidelity import C2stResult, c2st, choose_pairs, shape_error, trend_errors
from vae_ops.validation.privacy import CopyShares, copy_shares

__all__ = ["ColumnShape", "GateResult", "Verdict", "judge"]

Verdict = Literal["pass", "borderline", "fail"]

MAX_PAIRS = 1_000  # the mean over a fixed-seed sample of pairs is as good as over all of them
NOISE_REPEATS = 10
NOISE_COLUMNS = 600  # columns compared over all repeats: the mean over many columns varies little
FEWEST_REPEATS = 4
NOISE_SIGMAS = 2.0
C2ST_ROWS = 500  # a smaller holdout is topped up with training rows: trees learn nothing from a handful
NAMED_COLUMNS = 3


@dataclass(frozen=True)
class ColumnShape:
    """Shape error of one column, percent."""

    column: str
    shape_error_percent: float


@dataclass(frozen=True)
class GateResult:
    """What the gate decided, and on what grounds.

    Attributes:
        verdict: The worst of the four findings.
        metrics: `shape_error_percent`, `trend_error_percent`, `c2st_auc` and `copy_excess_percent` are judged;
            `copy_percent` and `holdout_copy_percent` explain the last.
        noise_floor: For each judged metric, what a perfect sampler may score at these numbers of rows.
        limits: For each judged metric, the setting widened by the noise floor.
        reasons: One sentence per judged metric, the heaviest first.
        columns: Shape error of each compared column, worst first.
        sizes: Rows, columns and pairs that were there and that were judged, so that sampling is on record.
    """

    verdict: Verdict
    metrics: Mapping[str, float]
    noise_floor: Mapping[str, float]
    limits: Mapping[str, float]
    reasons: tuple[str, ...]
    columns: tuple[ColumnShape, ...]
    sizes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "verdict": self.verdict,
            "metrics": dict(self.metrics),
            "noise_floor": dict(self.noise_floor),
            "limits": dict(self.limits),
            "reasons": list(self.reasons),
            "columns": [asdict(column) for column in self.columns],
            "sizes": dict(self.sizes),
        }


@dataclass(frozen=True)
class _Finding:
    """One metric against its limit."""

    metric: str
    value: float
    perfect: float
    noise: float
    setting: float
    sentence: str

    @property
    def limit(self) -> float:
        return self.setting + self.noise - self.perfect

    @property
    def weight(self) -> float:
        """How much of the allowed distance from perfect is used up beyond noise; above 1 is over the limit."""
        excess, allowed = self.value - self.noise, self.setting - self.perfect
        if excess <= 0 or allowed > 0:
            return excess / allowed if allowed > 0 else 0.0
        return math.inf


@dataclass(frozen=True)
class _Evidence:
    """All that was measured."""

    shapes: Mapping[str, float]
    trends: Mapping[tuple[str, str], float]
    shape_noise: float
    trend_noise: float
    c2st: C2stResult
    copies: CopyShares


def judge(
    training: pa.Table, holdout: pa.Table, synthetic: pa.Table, settings: GateSettings, *, seed: int = 0
) -> GateResult:
    """Judges synthetic rows against the rows a model was trained on and rows it never saw.

    Shape and trend are measured against the training rows, the classifier two-sample test against the holdout, and
    copies of training rows against the copies that the holdout holds by chance. Deterministic for given rows and seed.

    Args:
        training: Rows the model was trained on, at least one.
        holdout: Rows of the same source that it never saw.
        synthetic: Rows drawn from the model.
        settings: Limits and sample size.
        seed: Decides samples, folds and splits.

    Raises:
        SchemaError: The holdout or the synthetic rows lack a column of the training rows, or a column does not fit.
    """
    semantic_types = infer_semantic_types(training)
    tables = [
        align_table(table, training.schema, role)
        for table, role in ((training, "training"), (holdout, "held-out"), (synthetic, "synthetic"))
    ]
    samples = [_sampled(table, settings.sample_rows, [seed, index]) for index, table in enumerate(tables)]
    sizes = {
        "rows_training": training.num_rows,
        "rows_holdout": holdout.num_rows,
        "rows_synthetic": synthetic.num_rows,
        "rows_training_judged": samples[0].num_rows,
        "rows_synthetic_judged": samples[2].num_rows,
        "columns": training.num_columns,
    }
    if synthetic.num_rows == 0:
        return _nothing_to_judge(sizes)
    evidence = _measure(samples, tables[0], semantic_types, seed)
    return _decide(evidence, samples, settings, sizes | _judged_sizes(evidence, semantic_types))


def _sampled(table: pa.Table, most: int, seed: Sequence[int]) -> pa.Table:
    if table.num_rows <= most:
        return table
    return table.take(np.sort(np.random.default_rng(seed).choice(table.num_rows, size=most, replace=False)))


def _nothing_to_judge(sizes: Mapping[str, int]) -> GateResult:
    reason = "There are no synthetic rows, so there is nothing to judge."
    return GateResult("pass", {}, {}, {}, (reason,), (), sizes)


def _judged_sizes(evidence: _Evidence, semantic_types: Mapping[str, SemanticType]) -> dict[str, int]:
    trending = len(_trending(semantic_types))
    return {
        "columns_judged": len(evidence.shapes),
        "pairs": trending * (trending - 1) // 2,
        "pairs_judged": len(evidence.trends),
        "c2st_rows": evidence.c2st.rows,
        "c2st_columns": evidence.c2st.columns,
    }


def _trending(semantic_types: Mapping[str, SemanticType]) -> list[str]:
    """Columns that can depend on others."""
    unrelated = {SemanticType.CONSTANT, SemanticType.NULL, SemanticType.IDENTIFIER}
    return [name for name, semantic_type in semantic_types.items() if semantic_type not in unrelated]


def _measure(
    samples: Sequence[pa.Table], all_training: pa.Table, semantic_types: Mapping[str, SemanticType], seed: int
) -> _Evidence:
    rows, held_out = samples[0].num_rows, samples[1].num_rows
    pool, synthetic = encode_tables([pa.concat_tables(samples[:2]), samples[2]], semantic_types)
    training = take_rows(pool, np.arange(rows))
    pairs = choose_pairs(_trending(semantic_types), MAX_PAIRS, seed)
    shape_noise, trend_noise = _noise(pool, rows + held_out, (rows, samples[2].num_rows), pairs, seed)
    unseen = np.arange(max(0, min(rows, rows + held_out - C2ST_ROWS)), rows + held_out)
    return _Evidence(
        shapes=_shapes(training, synthetic),
        trends=trend_errors(training, synthetic, pairs),
        shape_noise=shape_noise,
        trend_noise=trend_noise,
        c2st=c2st(take_rows(pool, unseen), synthetic, seed=seed),
        copies=copy_shares(all_training, samples[1], samples[2], _copied_columns(semantic_types)),
    )


def _copied_columns(semantic_types: Mapping[str, SemanticType]) -> list[str]:
    plain = [name for name, semantic_type in semantic_types.items() if semantic_type is not SemanticType.IDENTIFIER]
    return plain or list(semantic_types)


def _shapes(real: EncodedTable, synthetic: EncodedTable) -> dict[str, float]:
    return {name: shape_error(column, synthetic[name]) for name, column in real.items()}


def _noise(
    pool: EncodedTable, rows: int, sizes: tuple[int, int], pairs: Sequence[tuple[str, str]], seed: int
) -> tuple[float, float]:
    """Mean shape and trend error that a perfect sampler stays under, measured between disjoint real parts.

    The parts have the sizes of the judged samples where the real rows suffice, else smaller ones, which differ by more:
    the figure is an upper bound. Resampling with replacement instead would put the same rare values on both sides and
    call a perfect sampler of a sparse column faulty.

    Returns:
        Mean plus `NOISE_SIGMAS` standard deviations over random splits, for shape and for trend.
    """
    first = min(sizes[0], max(rows - sizes[1], rows // 2))
    both = min(rows, first + sizes[1])
    if first < 1 or both == first:  # a single real row tells nothing about noise
        return 1.0, 1.0
    errors = np.empty((max(FEWEST_REPEATS, min(NOISE_REPEATS, NOISE_COLUMNS // max(len(pool), 1))), 2))
    for repeat in range(len(errors)):
        order = np.random.default_rng([seed, repeat, rows]).permutation(rows)
        left, right = take_rows(pool, order[:first]), take_rows(pool, order[first:both])
        errors[repeat] = _mean(_shapes(left, right)), _mean(trend_errors(left, right, pairs))
    shape, trend = np.minimum(errors.mean(axis=0) + NOISE_SIGMAS * errors.std(axis=0, ddof=1), 1.0)
    return float(shape), float(trend)


def _mean(errors: Mapping[Any, float]) -> float:
    return float(np.mean(list(errors.values()))) if errors else 0.0


def _decide(
    evidence: _Evidence, samples: Sequence[pa.Table], settings: GateSettings, sizes: Mapping[str, int]
) -> GateResult:
    findings = [
        _shape_finding(evidence, settings),
        _trend_finding(evidence, settings),
        _c2st_finding(evidence, settings),
        _copy_finding(evidence.copies, [table.num_rows for table in samples], settings),
    ]
    findings.sort(key=lambda finding: -finding.weight)
    metrics = {finding.metric: finding.value for finding in findings} | {
        "copy_percent": 100 * evidence.copies.synthetic,
        "holdout_copy_percent": 100 * evidence.copies.holdout,
    }
    worst = sorted(evidence.shapes.items(), key=lambda item: (-item[1], item[0]))
    return GateResult(
        verdict=_verdict(findings[0].weight, settings.borderline),
        metrics=dict(sorted(metrics.items())),
        noise_floor={finding.metric: finding.noise for finding in sorted(findings, key=lambda f: f.metric)},
        limits={finding.metric: finding.limit for finding in sorted(findings, key=lambda f: f.metric)},
        reasons=tuple(finding.sentence for finding in findings),
        columns=tuple(ColumnShape(name, 100 * error) for name, error in worst),
        sizes=sizes,
    )


def _verdict(weight: float, borderline: float) -> Verdict:
    if weight <= 1.0:
        return "pass"
    return "borderline" if weight <= borderline else "fail"


def _shape_finding(evidence: _Evidence, settings: GateSettings) -> _Finding:
    worst = _worst({quoted(name): error for name, error in evidence.shapes.items()})
    return _error_finding(
        "shape_error_percent",
        "The distributions of single columns are",
        (100 * _mean(evidence.shapes), 100 * evidence.shape_noise, settings.max_shape_error_percent),
        worst,
    )


def _trend_finding(evidence: _Evidence, settings: GateSettings) -> _Finding:
    worst = _worst({f"{quoted(a)} with {quoted(b)}": error for (a, b), error in evidence.trends.items()})
    return _error_finding(
        "trend_error_percent",
        "The dependence between pairs of columns is",
        (100 * _mean(evidence.trends), 100 * evidence.trend_noise, settings.max_trend_error_percent),
        worst,
    )


def _error_finding(metric: str, subject: str, numbers: tuple[float, float, float], worst: str) -> _Finding:
    value, noise, setting = numbers
    sentence = (
        f"{subject} off by {_percent(value)} on average, {_side(value, setting + noise)} the {_percent(setting)} "
        f"allowed beyond the {_percent(noise)} that chance may cause{worst}."
    )
    return _Finding(metric, value, perfect=0.0, noise=noise, setting=setting, sentence=sentence)


def _worst(errors: Mapping[str, float]) -> str:
    worst = sorted(((error, name) for name, error in errors.items() if error > 0), key=lambda item: (-item[0], item[1]))
    named = [f"{name} ({_percent(100 * error)})" for error, name in worst[:NAMED_COLUMNS]]
    return f"; worst {_listed(named)}" if named else ""


def _percent(value: float) -> str:
    return f"{value:.1f} %" if value >= 10 else f"{value:.2g} %"


def _side(value: float, limit: float) -> str:
    return "within" if value <= limit else "over"


def _listed(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def _c2st_finding(evidence: _Evidence, settings: GateSettings) -> _Finding:
    outcome = evidence.c2st
    noise = min(1.0, 0.5 + NOISE_SIGMAS * outcome.standard_error)
    limit = min(settings.max_c2st_auc + noise - 0.5, 1.0)
    sentence = (
        f"Boosted trees tell synthetic rows from held-out ones with an AUC of {outcome.auc:.2f} where 0.5 is chance, "
        f"{_side(outcome.auc, limit)} the {limit:.2f} allowed{_given_away(evidence)}."
    )
    return _Finding("c2st_auc", outcome.auc, perfect=0.5, noise=noise, setting=settings.max_c2st_auc, sentence=sentence)


def _given_away(evidence: _Evidence) -> str:
    """Which columns betray synthetic rows, and whether by themselves or only together."""
    telling = [name for name, loss in evidence.c2st.telling if loss > 0]
    if not telling:
        return ""
    # One column's error varies about its expectation by far less than a factor of two.
    alike = all(evidence.shapes[name] <= 2 * evidence.shape_noise for name in telling)
    how = "how columns depend on each other, most" if alike else "the columns"
    return f"; what gives them away is {how} {_listed([quoted(name) for name in telling])}"


def _copy_finding(copies: CopyShares, rows: Sequence[int], settings: GateSettings) -> _Finding:
    """Excess of copies, whose noise follows from how often real rows equal training rows by chance."""
    value, noise = 100 * max(0.0, copies.synthetic - copies.holdout), 100 * _copy_noise(copies, rows)
    setting = settings.max_copy_excess_percent
    sentence = (
        f"{_percent(100 * copies.synthetic)} of the synthetic rows equal a training row in every column, against "
        f"{_percent(100 * copies.holdout)} of the held-out rows, {_side(value, setting + noise)} the excess of "
        f"{_percent(setting)} allowed beyond the {_percent(noise)} that chance may cause."
    )
    return _Finding("copy_excess_percent", value, perfect=0.0, noise=noise, setting=setting, sentence=sentence)


def _copy_noise(copies: CopyShares, rows: Sequence[int]) -> float:
    """Sampling error of the difference of two shares, at the upper Wilson bound of the share among real rows."""
    training, held_out, synthetic = rows
    real, z = training + held_out, NOISE_SIGMAS
    share = (copies.training * training + copies.holdout * held_out) / real
    centre, spread = share + z * z / (2 * real), z * math.sqrt(share * (1 - share) / real + (z / (2 * real)) ** 2)
    upper = min(1.0, (centre + spread) / (1 + z * z / real))
    return z * math.sqrt(upper * (1 - upper) * (1 / synthetic + 1 / max(held_out, 1)))
