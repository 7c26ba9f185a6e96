"""How good predictions are, on resampled test rows: ROC AUC, macro ROC AUC, R² and average precision.

Pure functions of truth, predictions and row weights; a bootstrap resample is a column of weights, so hundreds of them
cost little more than one. What is predicted, and what follows from the scores, is decided by `utility.py`.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

__all__ = ["average_precision", "macro_auc", "r_squared", "resampling_weights", "weighted_auc"]

Weights = NDArray[np.float64]


def resampling_weights(strata: NDArray[np.int64], resamples: int, generator: np.random.Generator) -> Weights:
    """How often each row occurs in each bootstrap resample; within a stratum, as many rows are drawn as it has.

    Returns:
        float64 `(rows, 1 + resamples)`; the first column is the rows as they are.
    """
    weights = np.ones((len(strata), 1 + resamples))
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        weights[rows, 1:] = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples).T
    return weights


def weighted_auc(positive: NDArray[np.bool_], scores: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """Area under the ROC curve: the chance that a positive row scores above a negative one, ties counting half.

    Args:
        positive: `(rows,)`; some, but not all.
        scores: `(rows,)`, higher for the positive.
        weights: `(rows, resamples)`.

    Returns:
        `(resamples,)`, from 0 to 1; 0.5 is chance.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    at, is_positive = weights[order], positive[order][:, None]
    positives = np.add.reduceat(at * is_positive, starts, axis=0)
    negatives = np.add.reduceat(at * ~is_positive, starts, axis=0)
    below = np.cumsum(negatives, axis=0) - negatives / 2
    won: NDArray[np.float64] = (positives * below).sum(axis=0) / (positives.sum(axis=0) * negatives.sum(axis=0))
    return won


def macro_auc(truth: NDArray[np.int64], chances: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """Mean over classes of the AUC of one class against the rest, over the classes that occur in the test rows.

    Args:
        truth: Class number `(rows,)`, at least two different.
        chances: Predicted chance of each class, `(rows, classes)`.
        weights: `(rows, resamples)`, of strata that keep every class.
    """
    found = np.unique(truth)
    areas = [weighted_auc(truth == number, chances[:, number], weights) for number in found]
    return np.asarray(np.mean(areas, axis=0))


def r_squared(truth: NDArray[np.float64], predicted: NDArray[np.float64], weights: Weights) -> NDArray[np.float64]:
    """Share of the truth's variance that is explained: 1 is perfect, 0 as good as the mean, below is worse."""
    centre, scale = truth.mean(), truth.std() or 1.0
    truth, predicted = (truth - centre) / scale, (predicted - centre) / scale
    total = weights.sum(axis=0)
    spread = truth**2 @ weights / total - (truth @ weights / total) ** 2
    error = (truth - predicted) ** 2 @ weights / total
    return np.asarray(1.0 - error / np.maximum(spread, np.finfo(np.float64).tiny))


def average_precision(truth: NDArray[np.int64], chances: NDArray[np.float64]) -> float:
    """Area under the precision-recall curve of the rarer of two classes, or its mean over more; chance is its share."""
    found = np.unique(truth)
    rarer = found[1:] if len(found) == 2 else found
    return float(np.mean([average_precision_score(truth == number, chances[:, number]) for number in rarer]))
