"""What a validation found: frozen records with a JSON round trip, from single columns to the verdict.

`gate.py` fills and weighs them, with the measurements of `fidelity.py`, `privacy.py` and `utility.py`;
`report.py` shows them and computes nothing of its own. What is in percent says so in its name.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from vae_ops.validation.succession import RefreshEvidence

__all__ = [
    "MILDEST_FIRST",
    "AttackEvidence",
    "C2stEvidence",
    "ColumnEvidence",
    "Distances",
    "Distribution",
    "DoseCurve",
    "DosePoint",
    "Finding",
    "Interval",
    "Leak",
    "LeakCount",
    "PairEvidence",
    "PrivacyEvidence",
    "TwoSidedEvidence",
    "UtilityEvidence",
    "Validation",
    "Verdict",
]

Verdict = Literal["pass", "borderline", "fail"]
MILDEST_FIRST: tuple[Verdict, ...] = ("pass", "borderline", "fail")


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Finding:
    """One judged metric.

    Attributes:
        metric: Name in `metrics`, `noise_floor` and `limits`.
        aspect: What it speaks of.
        verdict: What this metric alone would decide.
        value: Measured between real and synthetic rows.
        interval: Of the value; None where there is nothing to resample.
        noise: The same metric between disjoint real parts of matching sizes: what a perfect sampler scores.
        limit: The value from which on it is no longer a pass.
        weight: 0 at perfect, 1 at the limit; the heaviest finding decides the verdict.
        sentence: What was found, for a person.
        remedy: What to do about it; empty for a pass.
        columns: Columns it names, the worst first.
    """

    metric: str
    aspect: Literal["fidelity", "utility", "privacy"]
    verdict: Verdict
    value: float
    interval: Interval | None
    noise: float
    limit: float
    weight: float
    sentence: str
    remedy: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Distribution:
    """One column's two distributions, ready to draw.

    Attributes:
        kind: `histogram`: `edges` has one number more than the shares. `categories`: `labels` has as many.
        edges: Bin edges in the column's units (dates and timestamps: seconds since the epoch; other times: seconds).
        labels: Categories as text, the most frequent in the real rows first; the last may be `(all others)`.
        real: Share of the real rows in each bin or category, of all rows, nulls included.
        synthetic: The same of the synthetic rows.
    """

    kind: Literal["histogram", "categories"]
    edges: tuple[float, ...]
    labels: tuple[str, ...]
    real: tuple[float, ...]
    synthetic: tuple[float, ...]


@dataclass(frozen=True)
class ColumnEvidence:
    """One column.

    Attributes:
        column: Its name.
        semantic_type: Its semantic type.
        metric: `KS` or `TV`.
        error_percent: 100 × the distance of the two distributions.
        interval: Bootstrap interval of the error, percent.
        noise_percent: The same distance between disjoint real parts.
        verdict: What this column alone would decide.
        wasserstein: Wasserstein-1 distance in the column's units (times as seconds); None for categories.
        mean_shift_sd: Difference of means in real standard deviations; None for categories.
        null_percent_real: Null or NaN among the real rows.
        null_percent_synthetic: The same among the synthetic rows.
        range_coverage: Share of the real range that the synthetic range covers; None for categories.
        category_coverage: Share of the real rows whose category occurs among the synthetic rows; None for numbers.
        reconstruction_error_percent: The error of posterior reconstructions, where the model was at hand.
        distribution: To draw.
    """

    column: str
    semantic_type: str
    metric: str
    error_percent: float
    interval: Interval
    noise_percent: float
    verdict: Verdict
    wasserstein: float | None
    mean_shift_sd: float | None
    null_percent_real: float
    null_percent_synthetic: float
    range_coverage: float | None
    category_coverage: float | None
    reconstruction_error_percent: float | None
    distribution: Distribution


@dataclass(frozen=True)
class PairEvidence:
    """One pair of columns.

    Attributes:
        first: A column.
        second: Another.
        kind: `correlation` or `contingency`.
        error_percent: 100 × the distance of the two dependences.
        strength_real: How strongly they depend on each other in the real rows: |r| or Cramér's V. Pairs without a trend
            do not count in the mean.
        strength_synthetic: The same in the synthetic rows.
        counts: Whether the pair is part of the trend error.
    """

    first: str
    second: str
    kind: Literal["correlation", "contingency"]
    error_percent: float
    strength_real: float
    strength_synthetic: float
    counts: bool


@dataclass(frozen=True)
class C2stEvidence:
    """The classifier two-sample test: boosted trees telling synthetic from held-out rows."""

    auc: float
    interval: Interval
    noise_auc: float
    rows: int
    columns: int
    telling: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class TwoSidedEvidence:
    """The same distances for posterior reconstructions and for prior samples, and which part of the model they accuse.

    Attributes:
        reconstruction: Metric → value, for rows encoded and decoded again.
        prior: Metric → value, for rows drawn from the prior.
        faulty: `none`, `encoding` (reconstructions are off as well) or `prior` (only prior samples are).
        sentence: The same for a person.
        kl_by_dimension: KL per latent dimension, nats.
        active_units: Latent dimensions in use.
    """

    reconstruction: Mapping[str, float]
    prior: Mapping[str, float]
    faulty: Literal["none", "encoding", "prior"]
    sentence: str
    kl_by_dimension: tuple[float, ...] = ()
    active_units: int | None = None


@dataclass(frozen=True)
class Distances:
    """Distances to the closest training row, for drawing: shares of rows in the bins between `edges`."""

    edges: tuple[float, ...]
    synthetic: tuple[float, ...]
    holdout: tuple[float, ...]


@dataclass(frozen=True)
class AttackEvidence:
    """Membership inference: how well training rows are told from held-out rows by the synthetic rows alone.

    Attributes:
        group: `all rows`, `outliers`, …
        auc: 0.5 is no leak.
        interval: Of the AUC.
        rows: Training rows attacked.
        rows_holdout: Held-out rows they were to be told from.
        caught_percent: Training rows recognised where 1 % of the held-out rows are falsely accused; 1 is no leak.
    """

    group: str
    auc: float
    interval: Interval
    rows: int
    rows_holdout: int = 0
    caught_percent: float = 1.0


@dataclass(frozen=True)
class Leak:
    """A rare category or an extreme of one column that reached the synthetic rows.

    Attributes:
        column: Where.
        kind: `rare category` or `extreme` (a least or greatest value that a single training row holds).
        value: The value as text.
        rows_real: Training rows that hold it.
        rows_synthetic: Synthetic rows that hold it.
    """

    column: str
    kind: str
    value: str
    rows_real: int
    rows_synthetic: int


@dataclass(frozen=True)
class LeakCount:
    """How many values of one kind leaked.

    Attributes:
        kind: As in `Leak`.
        at_risk: Such values among the training rows.
        leaked: Those that occur among the synthetic rows.
        noise_percent: Share of the values at risk that fresh real rows would show, at most.
    """

    kind: str
    at_risk: int
    leaked: int
    noise_percent: float


@dataclass(frozen=True)
class PrivacyEvidence:
    """Everything measured about privacy, and what was not.

    Attributes:
        copy_percent: Synthetic rows equal to a training row in every compared column.
        holdout_copy_percent: The same among held-out rows: chance.
        near_copy_percent: Synthetic rows at least ten times nearer to one training row than to any other; copies
            included.
        holdout_near_copy_percent: The same among held-out rows.
        dcr_share_percent: Synthetic rows nearer to training than to held-out rows, equal numbers of both; ideal 50.
        dcr_interval: Of that share.
        nndr_synthetic: Median ratio of the distances to the nearest and the second-nearest training row; 0 is a copy.
        nndr_holdout: The same of held-out rows.
        distances: Histograms of the distance to the closest training row: sum over columns of the difference in
            standard deviations, a differing category counting 2.
        attacks: Membership inference, all rows first.
        leaks: Rare categories and extremes that leaked, the rarest first; of many only some.
        not_tested: What nobody looked at, in plain words.
        real_copy_percent: Copies among held-out rows and among training rows, each against the other training rows.
        real_near_copy_percent: Near copies among the same.
        copy_noise_percent: Excess of copies over that share which chance may cause.
        near_copy_noise_percent: The same of near copies.
        dcr_noise_percent: Share that a perfect sampler stays under.
        leak_counts: One per kind of leak.
        sizes: Rows that each part looked at.
    """

    copy_percent: float
    holdout_copy_percent: float
    near_copy_percent: float
    holdout_near_copy_percent: float
    dcr_share_percent: float
    dcr_interval: Interval
    nndr_synthetic: float
    nndr_holdout: float
    distances: Distances
    attacks: tuple[AttackEvidence, ...]
    leaks: tuple[Leak, ...]
    not_tested: tuple[str, ...]
    real_copy_percent: float = 0.0
    real_near_copy_percent: float = 0.0
    copy_noise_percent: float = 0.0
    near_copy_noise_percent: float = 0.0
    dcr_noise_percent: float = 50.0
    leak_counts: tuple[LeakCount, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DosePoint:
    """Real rows plus `dose` parts synthetic: the score on the test fold and its gain over dose 0.

    Attributes:
        dose: Synthetic rows per real row.
        score: Mean over the repeats.
        interval: Of the score.
        gain: Score minus the score of dose 0, on the same test rows.
        gain_interval: Of the gain, simultaneous over all doses: with 95 % confidence all of them hold at once.
        secondary: The secondary metric, where there is one.
    """

    dose: float
    score: float
    interval: Interval
    gain: float
    gain_interval: Interval
    secondary: float | None = None


@dataclass(frozen=True)
class DoseCurve:
    """Score by dose, and the dose that was picked.

    Attributes:
        points: By rising dose, dose 0 first.
        picked: The dose with the surest gain among those whose gain is significant, 0 if there is none.
        reason: Why, for a person.
        rows_real: Real rows in every fit.
        repeats: Draws of synthetic rows, and fits, behind each point.
    """

    points: tuple[DosePoint, ...]
    picked: float
    reason: str
    rows_real: int = 0
    repeats: int = 0


@dataclass(frozen=True)
class UtilityEvidence:
    """How useful synthetic rows are for learning the target.

    Attributes:
        target: The target column.
        task: `regression`, `binary` or `multiclass`; None where nothing could be measured, as all that follows.
        metric: `ROC AUC` (binary), `macro ROC AUC` (multiclass) or `R²` (regression); higher is better.
        score_real: Trained on real rows, scored on the test fold.
        score_synthetic: Trained on as many synthetic rows.
        gap: `score_real - score_synthetic`.
        gap_interval: Of the gap.
        secondary_metric: `average precision` for an imbalanced target, else empty.
        secondary_real: Of the model trained on real rows.
        secondary_synthetic: Of the one trained on synthetic rows.
        rows_train: Real rows trained on.
        rows_test: Rows of the test fold, none of which reached the generator.
        dose_curve: None where too few synthetic rows are at hand.
        not_measured: Why there is nothing above, for a person; empty where there is.
        caveat: What puts the figures in doubt, for a person; empty where nothing is known to.
    """

    target: str
    task: Literal["regression", "binary", "multiclass"] | None
    metric: str = ""
    score_real: float | None = None
    score_synthetic: float | None = None
    gap: float | None = None
    gap_interval: Interval | None = None
    secondary_metric: str = ""
    secondary_real: float | None = None
    secondary_synthetic: float | None = None
    rows_train: int = 0
    rows_test: int = 0
    dose_curve: DoseCurve | None = None
    not_measured: str = ""
    caveat: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the record from plain JSON values, as `asdict` and JSON leave them."""
        curve, gap = values["dose_curve"], values["gap_interval"]
        return cls(
            **{
                **values,
                "gap_interval": gap and Interval(**gap),
                "dose_curve": curve and DoseCurve(**{**curve, "points": tuple(map(_dose_point, curve["points"]))}),
            }
        )


def _dose_point(values: Mapping[str, Any]) -> DosePoint:
    intervals = {name: Interval(**values[name]) for name in ("interval", "gain_interval")}
    return DosePoint(**{**values, **intervals})


@dataclass(frozen=True)
class Validation:
    """The verdict and everything it rests on.

    Attributes:
        verdict: The worst of the findings.
        findings: Every judged metric; those that decide first, and of these the heaviest of each aspect.
        columns: Every compared column, the worst first.
        pairs: The compared pairs, the worst first.
        c2st: The joint test; None where it is switched off or there is nothing to judge.
        two_sided: None where no model was at hand.
        privacy: None where it is switched off or there is nothing to judge.
        utility: None where no target was named.
        sizes: Rows, columns and pairs that were there and that were judged, so that sampling is on record.
        seed: Decides every sample, fold and resample.
        provenance: Model version, run, settings and the like, name → text, for the report.
        history: Training curves: one record per evaluation.
        refresh: Which model drew the rows, and why that one; None where no run drew them.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    columns: tuple[ColumnEvidence, ...]
    pairs: tuple[PairEvidence, ...]
    c2st: C2stEvidence | None
    two_sided: TwoSidedEvidence | None
    privacy: PrivacyEvidence | None
    utility: UtilityEvidence | None
    sizes: Mapping[str, int]
    seed: int
    provenance: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()
    refresh: "RefreshEvidence | None" = None

    @property
    def metrics(self) -> dict[str, float]:
        """Value of each judged metric."""
        return {finding.metric: finding.value for finding in sorted(self.findings, key=lambda f: f.metric)}

    @property
    def noise_floor(self) -> dict[str, float]:
        """What a perfect sampler scores in each of them."""
        return {finding.metric: finding.noise for finding in sorted(self.findings, key=lambda f: f.metric)}

    @property
    def limits(self) -> dict[str, float]:
        """From where on each is no longer a pass."""
        return {finding.metric: finding.limit for finding in sorted(self.findings, key=lambda f: f.metric)}

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences of the three findings that weighed most."""
        return tuple(finding.sentence for finding in self.findings[:3])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with `metrics`, `noise_floor`, `limits` and `reasons` beside the evidence."""
        return {
            **asdict(self),
            "metrics": self.metrics,
            "noise_floor": self.noise_floor,
            "limits": self.limits,
            "reasons": list(self.reasons),
        }
