"""Two models on the same real rows: how much further one lies from them than the other, and what chance does to that.

Pure functions of encoded rows. Chance moves the real rows for both models alike, so differences are known better than
either value. The metrics are those of `fidelity.py`, `joint.py` and `closeness.py`; `trial.py` says what a difference
means.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, t

from vae_ops.validation.closeness import are_near_copies
from vae_ops.validation.columns import EncodedTable, row_count
from vae_ops.validation.evidence import Interval
from vae_ops.validation.fidelity import (
    Counted,
    coarsen_columns,
    count_columns,
    dependences_of_counts,
    distances_of_counts,
)
from vae_ops.validation.joint import FOLDS, C2stScores
from vae_ops.validation.neighbours import NeighbourIndex, Places, nearest

__all__ = [
    "FEWEST_GROUPS",
    "FEWEST_REAL",
    "Difference",
    "compare_aucs",
    "compare_closeness",
    "compare_columns",
    "compare_pairs",
    "compare_shares_of_training",
]

Numbers = NDArray[np.float64]
Codes = NDArray[np.int64]

GROUPS = 20
FEWEST_GROUPS = 5
_SHARED_FOLDS = 1 + FOLDS / (FOLDS - 1)  # (1 / folds + test rows / training rows) × folds
FEWEST_REAL = 10  # on either side; of fewer, chance brings most models' rows to one side


@dataclass(frozen=True)
class Difference:
    """One metric of two models, as the jackknife sees it.

    Attributes:
        champion: Measured on the champion's rows.
        challenger: The same of the challenger's.
        standard_error: Of challenger minus champion.
        freedom: Degrees of freedom of that standard error.
    """

    champion: float
    challenger: float
    standard_error: float
    freedom: float

    def sureness(self, margin: float) -> float:
        """By how many standard errors the challenger is worse by more than a margin."""
        beyond = self.challenger - self.champion - margin
        return beyond / self.standard_error if self.standard_error > 0 else math.copysign(math.inf, beyond)

    def interval(self, level: float) -> Interval:
        """Student's interval of the difference that misses it with odds of `level`."""
        reach = float(t.ppf(1 - level / 2, self.freedom)) * self.standard_error
        difference = self.challenger - self.champion
        return Interval(difference - reach, difference + reach)


# --- distances of columns and pairs --------------------------------------------------------------------------------


def compare_columns(real: EncodedTable, models: Sequence[EncodedTable], *, seed: int) -> list[Difference]:
    """Distance of each column's distribution from the real one, and the mean over columns as the last.

    Args:
        real: Real rows that neither model saw.
        models: Rows of the champion and as many of the challenger, encoded together with `real`.
        seed: Decides the jackknife's groups.
    """
    groups = _all_groups(real, models, seed)
    measured = []
    for name, column in real.items():
        sides = count_columns(column, [column, *(table[name] for table in models)])
        counts = [_count(side.codes, side.size, group) for side, group in zip(sides, groups, strict=True)]
        measured.append([distances_of_counts(counts[0], other, sides[0].ordered) for other in counts[1:]])
    return _with_mean(measured)


def compare_pairs(
    real: EncodedTable, models: Sequence[EncodedTable], pairs: Sequence[tuple[str, str]], *, seed: int
) -> tuple[list[Difference], list[Difference]]:
    """Distances of the pairs' joint distributions, and of their dependences beyond the columns' own errors.

    Numbers are taken in tenths of the real ones, so that no outlier moves a bin.

    Args:
        real: Real rows that neither model saw.
        models: Rows of the champion and as many of the challenger, encoded together with `real`.
        pairs: Pairs of columns.
        seed: Decides the jackknife's groups.

    Returns:
        Joint distributions and dependences, each pair by pair, and the mean over pairs as the last.
    """
    groups = _all_groups(real, models, seed)
    used = {name for pair in pairs for name in pair}
    coarse = {
        name: coarsen_columns(column, [column, *(table[name] for table in models)])
        for name, column in real.items()
        if name in used
    }
    joint, dependence = [], []
    for first, second in pairs:
        counts = [_contingency(a, b, group) for a, b, group in zip(coarse[first], coarse[second], groups, strict=True)]
        flat = [part.reshape(len(part), -1) for part in counts]
        joint.append([distances_of_counts(flat[0], other) for other in flat[1:]])
        dependence.append([dependences_of_counts(counts[0], other) for other in counts[1:]])
    return _with_mean(joint), _with_mean(dependence)


def _all_groups(real: EncodedTable, models: Sequence[EncodedTable], seed: int) -> list[Codes]:
    """Group of each row of each table; every table has all groups, as nearly of one size as can be."""
    rows = [row_count(table) for table in (real, *models)]
    groups = min(GROUPS, *rows)
    if groups < FEWEST_GROUPS:
        raise ValueError(f"A paired comparison needs {FEWEST_GROUPS} rows of each side, got {rows}.")
    return [_groups(count, groups, seed) for count in rows]


def _groups(rows: int, groups: int, seed: int) -> Codes:
    return np.random.default_rng([seed, rows]).permutation(np.arange(rows) % groups)


def _count(codes: Codes, size: int, group: Codes) -> Codes:
    """Rows by code, of the whole table first and then without one group after the other, `(1 + groups, size)`."""
    groups = int(group.max()) + 1
    parts = np.bincount(group * size + codes, minlength=groups * size).reshape(groups, size)
    whole = parts.sum(axis=0)
    return np.concatenate([whole[None], whole - parts])


def _contingency(first: Counted, second: Counted, group: Codes) -> Codes:
    """The same of a pair, `(1 + groups, first, second)`."""
    counts = _count(first.codes * second.size + second.codes, first.size * second.size, group)
    return counts.reshape(len(counts), first.size, second.size)


def _with_mean(measured: Sequence[Sequence[Numbers]]) -> list[Difference]:
    """Differences of metrics measured `(1 + groups)` for champion and challenger, and of their mean."""
    if not measured:
        return []
    every = np.array(measured)
    return [_jackknifed(*both) for both in (*every, every.mean(axis=0))]


def _jackknifed(champion: Numbers, challenger: Numbers) -> Difference:
    """Delete-a-group jackknife (Kott, Journal of Official Statistics 17, 2001): all tables lose a group at once.

    Distances have a kink where two tables agree. Between two models that are next to perfect the standard error is
    therefore up to 1.7 times too large, which is on the safe side; where one of them is off, it is right.
    """
    left_out = (challenger - champion)[1:]
    groups = len(left_out)
    variance = (groups - 1) / groups * ((left_out - left_out.mean()) ** 2).sum()
    return Difference(float(champion[0]), float(challenger[0]), float(np.sqrt(variance)), groups - 1)


# --- all columns at once ---------------------------------------------------------------------------------------------


def compare_aucs(champion: C2stScores, challenger: C2stScores) -> Difference:
    """AUC of the two-sample test of each model against the same real rows.

    The variance is DeLong's (Biometrics 44, 1988), real rows paired and synthetic rows not, enlarged because the folds'
    trees share most of their rows (Nadeau and Bengio, Machine Learning 52, 2003): without that, the differences of two
    ideal samplers scatter by a quarter more than their standard errors say where both sides are equally many.
    """
    placed = [_placements(scores.real, scores.synthetic) for scores in (champion, challenger)]
    real, synthetic = zip(*placed, strict=True)
    variance = (real[1] - real[0]).var(ddof=1) / len(real[0])
    variance += sum(side.var(ddof=1) / len(side) for side in synthetic)
    spread = math.sqrt(_SHARED_FOLDS * variance)
    return Difference(float(real[0].mean()), float(real[1].mean()), spread, len(real[0]) - 1)


def _placements(low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
    """Share of the high scores above each low one, and of the low scores below each high one, ties counting half."""
    ranks = rankdata(np.concatenate([low, high]))
    above = 1 - (ranks[: len(low)] - rankdata(low)) / len(high)
    below = (ranks[len(low) :] - rankdata(high)) / len(low)
    return above, below


# --- closeness to training rows --------------------------------------------------------------------------------------


def compare_closeness(
    training: Places, members: Codes, holdout: Places, models: Sequence[Places], *, seed: int
) -> tuple[Difference, Difference]:
    """Shares of exact and of near copies of training rows, beyond those among real rows.

    Who keeps away from the training rows is no better for it, so shares below those of the real rows count as none.

    Args:
        training: Rows that the challenger was trained on, in units of their deviations, at least one.
        members: Numbers of those training rows that, looked for among all others, stand for real rows as well.
        holdout: Real rows that neither model saw.
        models: Rows of the champion and as many of the challenger.
        seed: Decides projections and the jackknife's groups.

    Returns:
        Exact copies, and near copies, copies included; shares from 0 to 1.
    """
    index = NeighbourIndex(training, seed=seed)
    real = np.concatenate([index.query(training.take(members), own=members), index.query(holdout)])
    found = [real, *(index.query(places) for places in models)]
    return _excess(found, lambda pair: pair[:, 0] == 0, seed), _excess(found, are_near_copies, seed)


def _excess(found: Sequence[Numbers], telling: Callable[[Numbers], NDArray[np.bool_]], seed: int) -> Difference:
    groups = min(GROUPS, *(len(pair) for pair in found))
    counts = [_count(telling(pair).astype(np.int64), 2, _groups(len(pair), groups, seed)) for pair in found]
    real, *models = (count[:, 1] / count.sum(axis=1) for count in counts)
    return _jackknifed(*(np.maximum(share - real, 0.0) for share in models))


def compare_shares_of_training(training: Places, holdout: Places, models: Sequence[Places], *, seed: int) -> Difference:
    """Share of each model's rows whose closest record is a training row and not one of as many held-out rows.

    A share below one half, which no memory explains, counts as one half. The standard error is that under lots: what
    the difference would scatter by if it were drawn which real rows are training rows and which are held out.

    Args:
        training: Rows that the challenger was trained on, in units of their ranges.
        holdout: Rows that neither model saw; of the more numerous kind a sample as large as the other is used.
        models: Rows of the champion and as many of the challenger.
        seed: Decides the samples.
    """
    rows = min(len(training), len(holdout))
    if rows < FEWEST_REAL:
        raise ValueError(f"The share needs {FEWEST_REAL} training and held-out rows, got only {rows} of a kind.")
    generator = np.random.default_rng([seed, rows])
    sides = [places.take(np.sort(generator.permutation(len(places))[:rows])) for places in (training, holdout)]
    shares, followers = zip(*(_followed(model, sides) for model in models), strict=True)
    scatter = (followers[1] - followers[0]).var(ddof=1) * rows / 2
    champion, challenger = (max(share, 0.5) for share in shares)
    return Difference(champion, challenger, float(np.sqrt(scatter)), 2 * rows - 1)


def _followed(model: Places, sides: Sequence[Places]) -> tuple[float, Numbers]:
    """Share of rows nearer to the first side, and the share of all rows that follows each real row of either side."""
    (near, first), (far, second) = (nearest(model, side) for side in sides)
    wins, losses = near < far, near > far
    parts = (first[wins], len(sides[0])), (second[losses], len(sides[1]))
    followers = np.concatenate([np.bincount(rows, minlength=size) for rows, size in parts]) / len(model)
    return float(wins.mean() + (~wins & ~losses).mean() / 2), followers
