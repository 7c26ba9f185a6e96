"""The scores of utility, against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from vae_ops.validation.scores import average_precision, macro_auc, r_squared, resampling_weights, weighted_auc

ROWS = 60


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([2, 5, 1000]))
def test_auc_is_scikit_learns_under_any_weights_and_ties(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    positive = np.arange(ROWS) % 3 == 0
    scores = rng.integers(0, levels, ROWS) / levels + 0.1 * positive
    weights = resampling_weights(positive.astype(np.int64), 4, rng)
    expected = [roc_auc_score(positive, scores, sample_weight=column) for column in weights.T]
    assert weighted_auc(positive, scores, weights) == pytest.approx(expected, abs=1e-12)


def test_macro_auc_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat([0, 1, 2], [30, 20, 10]))
    chances = rng.dirichlet(np.ones(3), ROWS) + 0.3 * np.eye(3)[truth]
    chances /= chances.sum(axis=1, keepdims=True)
    expected = roc_auc_score(truth, chances, multi_class="ovr", average="macro")
    assert macro_auc(truth, chances, np.ones((ROWS, 1))) == pytest.approx([expected])


def test_a_class_that_the_test_rows_lack_does_not_count() -> None:
    truth, chances = np.array([0, 0, 2, 2]), np.array([[0.9, 0, 0.1], [0.8, 0, 0.2], [0.7, 0, 0.3], [0.1, 0, 0.9]])
    assert macro_auc(truth, chances, np.ones((4, 1))) == pytest.approx([1.0])


@given(seed=st.integers(0, 10_000), offset=st.sampled_from([0.0, 1e9, -1e15]))
def test_r_squared_is_scikit_learns_however_far_from_zero(seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 50, ROWS).astype(float)
    predicted = truth + rng.integers(-9, 9, ROWS)
    weights = resampling_weights(np.zeros(ROWS, np.int64), 3, rng)
    expected = [r2_score(truth, predicted, sample_weight=column) for column in weights.T]
    assert r_squared(truth + offset, predicted + offset, weights) == pytest.approx(expected, abs=1e-6)


def test_average_precision_is_of_the_rarer_class() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random(ROWS) < 0.2).astype(np.int64)
    chance = rng.random(ROWS)
    expected = average_precision_score(truth, chance)
    assert average_precision(truth, np.column_stack([1 - chance, chance])) == pytest.approx(expected)


def test_a_resample_keeps_the_size_of_each_stratum_and_begins_with_the_rows_themselves() -> None:
    strata = np.repeat([0, 1, 2], [5, 1, 14])
    weights = resampling_weights(strata, 30, np.random.default_rng(0))
    assert (weights[:, 0] == 1).all()
    for stratum in range(3):
        assert (weights[strata == stratum].sum(axis=0) == (strata == stratum).sum()).all()
    assert len(np.unique(weights, axis=1).T) > 20
