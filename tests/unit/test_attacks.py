"""Membership inference: the AUC is the usual one, its interval covers, and only a leak moves it."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from vae_ops.validation.attacks import attack_membership, auc_with_interval, membership_scores, null_deviation

Values = NDArray[np.float64]


def candidates(rows: int, seed: int, *, caught: float = 0.0) -> tuple[Values, Values]:
    """Distances to real and synthetic rows; a share of the candidates has a synthetic row upon itself."""
    generator = np.random.default_rng(seed)
    to_real, to_synthetic = generator.gamma(3.0, size=(2, rows))
    to_synthetic[generator.random(rows) < caught] = 0.0
    return to_real, to_synthetic


@pytest.mark.parametrize("digits", [8, 1])
def test_auc_is_scikit_learns_also_with_ties(digits: int) -> None:
    generator = np.random.default_rng(digits)
    positives, negatives = generator.normal(0.3, size=80).round(digits), generator.normal(size=50).round(digits)
    auc, interval = auc_with_interval(positives, negatives)
    labels = np.repeat([1, 0], [80, 50])
    assert auc == pytest.approx(roc_auc_score(labels, np.concatenate([positives, negatives])))
    assert interval.low < auc < interval.high


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator, shift = np.random.default_rng(0), 0.5
    truth, covered = float(norm.cdf(shift / np.sqrt(2))), 0
    for _ in range(2_000):
        _, interval = auc_with_interval(generator.normal(shift, size=120), generator.normal(size=60))
        covered += interval.low <= truth <= interval.high
    assert 0.93 <= covered / 2_000 <= 0.97


def test_null_deviation_is_that_of_simulated_chance() -> None:
    generator = np.random.default_rng(0)
    aucs = [auc_with_interval(generator.normal(size=90), generator.normal(size=40))[0] for _ in range(600)]
    assert null_deviation(90, 40) == pytest.approx(np.std(aucs), rel=0.1)


def test_scores_rise_with_the_synthetic_density() -> None:
    scores = membership_scores(np.array([1.0, 1.0, 1.0, 0.0, 0.0]), np.array([0.0, 1.0, 3.0, 0.0, 2.0]))
    assert list(scores) == [1.0, 0.5, 0.25, 0.5, 0.0]


def test_a_distance_that_is_unknown_tells_nothing() -> None:
    assert list(membership_scores(np.array([np.inf, 1.0]), np.array([0.0, np.inf]))) == [0.5, 0.5]


def test_without_a_leak_nobody_is_recognised() -> None:
    everybody, outliers = attack_membership(candidates(3_000, 1), candidates(2_000, 2))
    assert (everybody.group, outliers.group) == ("all rows", "outliers")
    assert (everybody.rows, everybody.rows_holdout) == (3_000, 2_000)
    for attack in (everybody, outliers):
        assert abs(attack.auc - 0.5) < 4 * null_deviation(attack.rows, attack.rows_holdout)
    assert everybody.caught_percent < 3.0
    assert outliers.rows + outliers.rows_holdout == pytest.approx(500, abs=1)


def test_the_recognised_share_is_the_leaked_share() -> None:
    everybody, _ = attack_membership(candidates(3_000, 1, caught=0.2), candidates(2_000, 2))
    assert everybody.auc == pytest.approx(0.6, abs=0.03)
    assert everybody.caught_percent == pytest.approx(20.0, abs=3.0)


def test_a_leak_among_outliers_alone_shows_there() -> None:
    to_real, to_synthetic = candidates(3_000, 1)
    to_synthetic[to_real > np.quantile(to_real, 0.9)] = 0.0
    everybody, outliers = attack_membership((to_real, to_synthetic), candidates(3_000, 2))
    assert outliers.auc > 0.95
    assert everybody.auc < 0.6


@pytest.mark.parametrize(("rows", "groups"), [(0, 0), (19, 0), (20, 1), (150, 1), (400, 2)])
def test_too_few_rows_give_no_figure(rows: int, groups: int) -> None:
    assert len(attack_membership(candidates(400, 1), candidates(rows, 2))) == groups
