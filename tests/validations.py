"""Validation records made by hand, for tests of what shows them: small, whole, and nothing in them was measured."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from vae_ops.drift import ColumnDrift, Drift, PairDrift
from vae_ops.validation.evidence import (
    AttackEvidence,
    C2stEvidence,
    ColumnEvidence,
    Distances,
    Distribution,
    DoseCurve,
    DosePoint,
    Finding,
    Interval,
    Leak,
    LeakCount,
    PairEvidence,
    PrivacyEvidence,
    TwoSidedEvidence,
    UtilityEvidence,
    Validation,
)
from vae_ops.validation.succession import RefreshEvidence, Trial, TrialMetric

NAMES = ("age", "income", "plan", "since")


def make_validation(
    names: Sequence[str] = NAMES, words: Sequence[str] = ("gold", "basic"), **changed: Any
) -> Validation:
    """A failed validation with every kind of evidence; `names` become columns and `words` whatever else is data."""
    whole = Validation(
        verdict="fail",
        findings=_findings(names[0], words[0]),
        columns=tuple(_column(place, name, words) for place, name in enumerate(names)),
        pairs=_pairs(names),
        c2st=C2stEvidence(0.63, Interval(0.61, 0.65), 0.503, 6_514, len(names), tuple((n, 0.01) for n in names[:3])),
        two_sided=_two_sided(words[0]),
        privacy=_privacy(names[0], words),
        utility=_utility(names[-1], words[0]),
        sizes={
            "rows_training": 29_304,
            "rows_training_judged": 20_000,
            "rows_synthetic": 29_304,
            "columns": len(names),
        },
        seed=7,
        provenance={
            "model_version": "9eb6d5d8",
            "source": words[0],
            "settings": json.dumps({"gate": {"max_c2st_auc": 0.75}, "read": {"exclude": list(words)}}),
        },
        history=tuple(_evaluation(step) for step in range(100, 1_000, 100)),
        refresh=make_refresh(names, words),
    )
    return dataclasses.replace(whole, **changed)


def _findings(name: str, word: str) -> tuple[Finding, ...]:
    narrow = Interval(0.61, 0.65)
    return (
        Finding(
            "shape_error_percent", "fidelity", "fail", 4.4, Interval(4.1, 4.6), 0.4, 1.3, 3.2,
            f"Column {name!r} is off.", f"Look at {word}.", (name,),
        ),
        Finding("c2st_auc", "fidelity", "borderline", 0.63, narrow, 0.52, 0.6, 1.2, "Trees tell.", "Train.", (name,)),
        Finding("dcr_share_percent", "privacy", "pass", 50.8, Interval(49.6, 52.0), 51.1, 53.0, 0.2, "Near.", "", ()),
        Finding("copy_excess_percent", "privacy", "pass", 0.0, None, 0.2, 0.5, 0.0, "No copies.", "", ()),
    )  # fmt: skip


def _column(place: int, name: str, words: Sequence[str]) -> ColumnEvidence:
    categorical = place % 3 == 2
    kinds = ("numeric", "datetime", "categorical")
    return ColumnEvidence(
        column=name,
        semantic_type=kinds[place % 3],
        metric="TV" if categorical else "KS",
        error_percent=20.0 / (1 + place),
        interval=Interval(18.0 / (1 + place), 22.0 / (1 + place)),
        noise_percent=0.6,
        verdict="fail" if place == 0 else "pass",
        wasserstein=None if categorical else 3.2,
        mean_shift_sd=None if categorical else 0.4,
        null_percent_real=5.0,
        null_percent_synthetic=4.9,
        range_coverage=None if categorical else 0.998,
        category_coverage=1.0 if categorical else None,
        reconstruction_error_percent=0.3,
        distribution=_categories(words) if categorical else _histogram(place),
    )


def _categories(words: Sequence[str]) -> Distribution:
    share = 1 / len(words)
    return Distribution("categories", (), tuple(words), (share,) * len(words), (share / 2,) * len(words))


def _histogram(place: int) -> Distribution:
    generator = np.random.default_rng(place)
    real, synthetic = (generator.dirichlet(np.ones(30)) for _ in range(2))
    edges = 1e9 + 1e6 * np.arange(31) if place % 3 == 1 else np.linspace(-3, 12, 31)
    return Distribution("histogram", tuple(edges.tolist()), (), tuple(real.tolist()), tuple(synthetic.tolist()))


def _pairs(names: Sequence[str]) -> tuple[PairEvidence, ...]:
    pairs = [(a, b) for place, a in enumerate(names) for b in names[:place]][:1_000]
    return tuple(
        PairEvidence(a, b, "correlation", 100 / (2 + place), 1 / (1 + place), 1 / (2 + place), place % 5 < 4)
        for place, (a, b) in enumerate(pairs)
    )


def _two_sided(word: str) -> TwoSidedEvidence:
    reconstruction, prior = (
        {"shape_error_percent": 0.2, "c2st_auc": 0.51},
        {"shape_error_percent": 4.4, "c2st_auc": 0.63},
    )
    return TwoSidedEvidence(
        reconstruction, prior, "prior", f"Only prior samples are off, {word}.", (2.1, 0.4, 0.001), 2
    )


def _privacy(name: str, words: Sequence[str]) -> PrivacyEvidence:
    edges = tuple(np.linspace(0, 3, 31).tolist())
    shares = tuple(np.full(30, 1 / 30).tolist())
    return PrivacyEvidence(
        copy_percent=0.0,
        holdout_copy_percent=0.1,
        near_copy_percent=0.9,
        holdout_near_copy_percent=1.0,
        dcr_share_percent=50.8,
        dcr_interval=Interval(49.6, 52.0),
        nndr_synthetic=0.93,
        nndr_holdout=0.92,
        distances=Distances(edges, shares, shares[::-1]),
        attacks=(AttackEvidence("all rows", 0.51, Interval(0.5, 0.52), 3_000, 3_000, 1.1),),
        leaks=tuple(Leak(name, "rare category", word, 1, 2) for word in words),
        not_tested=(f"Linkage with {words[0]}.",),
        leak_counts=(LeakCount("rare category", 12, 2, 20.0),),
    )


def _utility(target: str, word: str) -> UtilityEvidence:
    points = [
        DosePoint(dose, 0.91 + gain, Interval(0.9, 0.92), gain, Interval(gain - 0.002, gain + 0.002), 0.7)
        for dose, gain in ((0.0, 0.0), (0.5, 0.003), (1.0, 0.001), (4.0, -0.004))
    ]
    return UtilityEvidence(
        target=target,
        task="binary",
        metric="ROC AUC",
        score_real=0.911,
        score_synthetic=0.903,
        gap=0.008,
        gap_interval=Interval(0.002, 0.014),
        secondary_metric="average precision",
        secondary_real=0.78,
        secondary_synthetic=0.76,
        rows_train=29_304,
        rows_test=1_628,
        dose_curve=DoseCurve(tuple(points), 0.5, f"Half a part gains {word}.", 29_304, 5),
    )


def make_refresh(names: Sequence[str] = NAMES, words: Sequence[str] = ("gold",), **changed: Any) -> RefreshEvidence:
    """A refreshed model that lost its trial, after a night on which a column and a pair have moved."""
    moved = ColumnDrift(names[0], "quantiles", 0.12, 0.02, "moved", f"Column {names[0]!r} moved, {words[0]}.")
    calm = [ColumnDrift(name, "quantiles", 0.01, 0.02, "quiet", "Nothing.") for name in names[1:]]
    pair = PairDrift(names[0], names[1], 0.08, 0.03, "moved", f"A pair moved, {words[0]}.")
    whole = RefreshEvidence(
        decision="refresh",
        reason=f"Column {names[0]!r} moved, {words[0]}.",
        model_version="5d17c0ffee42",
        champion="5d17c0ffee42",
        drift=Drift("moved", 28_950, 29_304, (moved, *calm), (pair,)),
        trial=Trial(False, f"The challenger is worse in {words[0]}.", _trial_metrics(names), 20_000, 2_930),
        lineage=("5d17c0ffee42", "0ddba11c0de5", "ba5eba11f00d"),
    )
    return dataclasses.replace(whole, **changed)


def _trial_metrics(names: Sequence[str]) -> tuple[TrialMetric, ...]:
    return (
        TrialMetric("shape_error_percent", 1.32, 2.51, Interval(0.95, 1.43), 0.15),
        TrialMetric("column_error_percent", 1.2, 9.4, Interval(7.1, 9.3), 0.3, (names[0],)),
        TrialMetric("dependence_error_percent", 2.3, 2.9, Interval(-1.1, 2.3), 1.0, tuple(names[:2])),
        TrialMetric("c2st_auc", 0.56, 0.52, Interval(-0.06, -0.02), 0.0125),
        TrialMetric("near_copy_excess_percent", 0.0, 0.0, Interval(0.0, 0.0), 0.05),
    )


def _evaluation(step: int) -> dict[str, float]:
    return {"step": float(step), "loss": 20 + 1_000 / step, "holdout_loss": 20.2 + 1_000 / step, "kl": step / 100}
