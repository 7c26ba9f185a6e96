"""How close synthetic rows come to training rows, beside how close other real rows come: pure functions of whole rows.

Exact copies by hashes; near copies, the distance to the closest record (DCR) and the nearest-neighbour distance ratio
(NNDR) by the distances of `neighbours.py`. `privacy.py` decides which rows are looked at and what is too close.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vae_ops.validation.evidence import Distances
from vae_ops.validation.neighbours import Places, nearest
from vae_ops.validation.row_hashes import are_among, row_hashes

__all__ = [
    "CopyShares",
    "DcrShare",
    "are_near_copies",
    "copy_shares",
    "dcr_share",
    "distance_histograms",
    "median_ratio",
]

NEAR = 0.1
HISTOGRAM_BINS = 40
DCR_REPEATS = 5


# --- exact copies ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CopyShares:
    """Shares of rows, from 0 to 1, that equal a training row in every compared column.

    Attributes:
        synthetic: Among synthetic rows; 1 is a pure copier.
        holdout: Among held-out rows, which are copies by chance only.
        training: Training rows that equal another training row: the same chance, measured on many more rows.
    """

    synthetic: float
    holdout: float
    training: float


def copy_shares(training: pa.Table, holdout: pa.Table, synthetic: pa.Table, columns: Sequence[str]) -> CopyShares:
    """Counts exact copies of training rows.

    Args:
        training: Rows that the model was trained on; all of them are compared.
        holdout: Real rows that it never saw, of the same schema.
        synthetic: Rows drawn from the model, of the same schema.
        columns: Columns that must be equal. Leave identifiers out: a copied row with a fresh identifier is a copy.
    """
    known, held_out, drawn = row_hashes([training, holdout, synthetic], columns)
    distinct, inverse, counts = np.unique(known, return_inverse=True, return_counts=True)
    return CopyShares(
        synthetic=_share(are_among(drawn, distinct)),
        holdout=_share(are_among(held_out, distinct)),
        training=_share(counts[inverse] > 1),
    )


def _share(hits: NDArray[np.bool_]) -> float:
    return float(hits.mean()) if len(hits) else 0.0


# --- distance to the closest record ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DcrShare:
    """Synthetic rows nearer to training than to held-out rows.

    Attributes:
        share: From 0 to 1; 0.5 is perfect. Ties count half.
        deviation: Standard deviation that the share would have if training and held-out rows were interchangeable.
        spread: Standard deviation over the subsamples of the training rows.
        rows: Rows of each real side that were compared at a time.
    """

    share: float
    deviation: float
    spread: float
    rows: int


def dcr_share(
    synthetic: Places, training: Places, holdout: Places, *, seed: int, repeats: int = DCR_REPEATS
) -> DcrShare:
    """Asks of each synthetic row on which side its closest record (DCR) lies, with equally many real rows on both.

    The larger side is cut to the size of the smaller, several times over. A copier whose training rows are many times
    the held-out ones therefore moves the share little: its copies seldom find their source in the sample.

    Args:
        synthetic: Rows to ask, in units of the training range (Zhang et al., TabSyn, arXiv 2310.09656).
        training: Training rows.
        holdout: Rows that no generator saw.
        seed: Decides the subsamples.
        repeats: Subsamples, where one side is larger.
    """
    rows = min(len(training), len(holdout))
    if not rows or not len(synthetic):
        return DcrShare(0.5, 0.5, 0.0, rows)
    generator = np.random.default_rng([seed, rows])
    seen_sets = _subsamples(len(training), rows, repeats, generator)
    unseen_sets = _subsamples(len(holdout), rows, repeats, generator)
    unseen = [nearest(synthetic, holdout.take(part)) for part in unseen_sets]
    shares, variances = [], []
    for repeat, part in enumerate(seen_sets if len(seen_sets) > 1 else seen_sets * len(unseen)):
        share, variance = _compare(nearest(synthetic, training.take(part)), unseen[repeat % len(unseen)], rows)
        shares.append(share)
        variances.append(variance)
    return DcrShare(float(np.mean(shares)), math.sqrt(float(np.mean(variances))), float(np.std(shares)), rows)


def _subsamples(rows: int, size: int, repeats: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    return [generator.permutation(rows)[:size] for _ in range(repeats)] if rows > size else [np.arange(rows)]


def _compare(
    seen: tuple[NDArray[np.float64], NDArray[np.int64]],
    unseen: tuple[NDArray[np.float64], NDArray[np.int64]],
    rows: int,
) -> tuple[float, float]:
    """Share of queries nearer to the seen rows, and its variance if the sides of all real rows were drawn by lot.

    A real row that is the nearest of many queries brings them all to its side at once, so the share varies with the
    spread of these numbers of followers, not like that of independent draws.
    """
    wins, losses = seen[0] < unseen[0], seen[0] > unseen[0]
    sides = ((seen[1][wins], rows), (unseen[1][losses], rows))
    followers = np.concatenate([np.bincount(chosen, minlength=size) for chosen, size in sides])
    # Of tied queries, about half would be tied under any lot.
    scatter = 2 * rows * followers.var(ddof=1) + (len(wins) - followers.sum()) / 2
    return float(wins.mean() + (~wins & ~losses).mean() / 2), float(scatter / (2 * len(wins)) ** 2)


# --- neighbours ------------------------------------------------------------------------------------------------------


def are_near_copies(distances: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows at least ten times nearer to one row than to any other: a yardstick for dense and sparse regions alike.

    Args:
        distances: To the nearest and the second-nearest different row, `(rows, 2)`; a copy has distance 0.
    """
    first, second = distances.T
    near: NDArray[np.bool_] = (first == 0) | (np.isfinite(second) & (first <= NEAR * second))
    return near


def median_ratio(distances: NDArray[np.float64]) -> float:
    """Median of the nearest-neighbour distance ratio (NNDR), from 0 (copies) to 1 (in the midst of others).

    Args:
        distances: To the nearest and the second-nearest different row, `(rows, 2)`.
    """
    first, second = distances.T
    known = np.isfinite(second) & (second > 0)
    return float(np.median(np.divide(first, second, out=np.ones(len(first)), where=known))) if len(first) else 1.0


def distance_histograms(synthetic: NDArray[np.float64], real: NDArray[np.float64]) -> Distances:
    """Shares of rows by distance; the last bin holds all beyond the farthest hundredth."""
    finite = np.concatenate([part[np.isfinite(part)] for part in (synthetic, real)])
    farthest = float(np.quantile(finite, 0.99)) if len(finite) else 0.0
    edges = np.linspace(0.0, farthest or 1.0, HISTOGRAM_BINS + 1)
    counts = [np.histogram(np.minimum(part, edges[-1]), bins=edges)[0] for part in (synthetic, real)]
    shares = [count / max(len(part), 1) for count, part in zip(counts, (synthetic, real), strict=True)]
    return Distances(*(tuple(map(float, values)) for values in (edges, *shares)))
