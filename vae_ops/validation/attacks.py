"""Membership inference: can an attacker who sees only the synthetic rows tell who was among the training rows?

`privacy.py` finds the neighbours that this attack weighs, and judges its success.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from vae_ops.validation.evidence import AttackEvidence, Interval

__all__ = ["attack_membership", "auc_with_interval", "membership_scores", "null_deviation"]

OUTLIER_SHARE = 0.1
FEWEST_ROWS = 20  # an AUC between fewer rows says nothing
FALSE_ALARMS = 0.01
Z95 = 1.959964


def membership_scores(to_real: NDArray[np.float64], to_synthetic: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much denser synthetic than real rows lie around each candidate: the score of DOMIAS.

    DOMIAS (van Breugel et al., arXiv 2302.12580) takes the ratio of the density of synthetic rows to that of a
    reference. By nearest neighbours, a density is one over a power of the distance, so that the ratio of the distances
    ranks candidates alike, whatever the dimension and the numbers of rows. The reference is all other training rows:
    a better one than any outside attacker has.

    Args:
        to_real: Distance of each candidate to the nearest other real row, `(candidates,)`.
        to_synthetic: Distance to the nearest synthetic row.

    Returns:
        float64 `(candidates,)` from 0 to 1: 1 where a synthetic row coincides, 0.5 where both are as near.
    """
    total = to_real + to_synthetic
    known = np.isfinite(total) & (total > 0)
    scores: NDArray[np.float64] = np.divide(to_real, total, out=np.full(len(total), 0.5), where=known)
    return scores


def attack_membership(
    members: tuple[NDArray[np.float64], NDArray[np.float64]], others: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> tuple[AttackEvidence, ...]:
    """Attacks all candidates, and the most isolated tenth of them, where such an attack works best.

    Args:
        members: Of training rows, the distance to the nearest other training row and to the nearest synthetic row.
        others: The same of rows that no generator saw.

    Returns:
        `all rows`, then `outliers`; a group with fewer than 20 rows of either kind is left out.
    """
    # A distance that is there, because nothing can be interpolated towards infinity.
    isolated = np.quantile(np.concatenate([members[0], others[0]]), 1 - OUTLIER_SHARE, method="higher")
    scores = membership_scores(*members), membership_scores(*others)
    far = members[0] >= isolated, others[0] >= isolated
    groups = {"all rows": scores, "outliers": (scores[0][far[0]], scores[1][far[1]])}
    return tuple(_attacked(group, *parts) for group, parts in groups.items() if min(map(len, parts)) >= FEWEST_ROWS)


def _attacked(group: str, members: NDArray[np.float64], others: NDArray[np.float64]) -> AttackEvidence:
    auc, interval = auc_with_interval(members, others)
    caught = members > np.quantile(others, 1 - FALSE_ALARMS, method="higher")
    return AttackEvidence(group, auc, interval, len(members), len(others), 100 * float(caught.mean()))


def auc_with_interval(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> tuple[float, Interval]:
    """Chance that a positive scores above a negative, ties half, with its 95 % interval.

    The interval is DeLong's (Biometrics 44, 1988), by midranks (Sun and Xu, IEEE Signal Processing Letters 21, 2014).

    Args:
        positives: Scores, at least two.
        negatives: Scores, at least two.
    """
    ranks = rankdata(np.concatenate([positives, negatives]))
    first, second = len(positives), len(negatives)
    beaten = (ranks[:first] - rankdata(positives)) / second  # share of negatives below each positive
    unbeaten = 1 - (ranks[first:] - rankdata(negatives)) / first  # share of positives above each negative
    auc = float(beaten.mean())
    spread = Z95 * float(np.sqrt(beaten.var(ddof=1) / first + unbeaten.var(ddof=1) / second))
    return auc, Interval(max(0.0, auc - spread), min(1.0, auc + spread))


def null_deviation(positives: int, negatives: int) -> float:
    """Standard deviation of an AUC between so many scores of one distribution (Mann and Whitney, 1947)."""
    return float(np.sqrt((positives + negatives + 1) / (12 * positives * negatives)))
