"""How far apart chance alone brings two samples of one population: pure functions of counts and of a level.

A level is the odds with which the noise that is returned is exceeded. `columns.py` and `pairs.py` share it out among
their tests.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, chdtri, gammaln

__all__ = [
    "absence_odds",
    "fewest_telling",
    "gumbel_quantile",
    "ks_noise",
    "kuiper_noise",
    "total_variation",
    "variation_noise",
]

_CHI_DEGREES = np.geomspace(1.0, 1e5, 500)
# Squared mean over mean square of a chi variable, which rises from 2/π with its degrees of freedom.
_CHI_RATIOS = 2 / _CHI_DEGREES * np.exp(2 * (gammaln((_CHI_DEGREES + 1) / 2) - gammaln(_CHI_DEGREES / 2)))


def total_variation(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """Half the sum of the absolute differences of shares, from 0 to 1.

    Args:
        before: `(categories,)` rows of each category in one sample, at least one in all.
        now: The same in the other.
    """
    return float(np.abs(before / before.sum() - now / now.sum()).sum() / 2)


def variation_noise(before: NDArray[np.float64], now: NDArray[np.float64], level: float) -> float:
    """The total variation that two samples of one population exceed with odds of `level`.

    The differences of shares are nearly normal, so mean and variance of half the sum of their absolute values are known
    (Nabeya, "Absolute moments in 2-dimensional normal distribution", 1951). A chi distribution with that mean and
    variance is exact for two categories and nearly normal for many. Bernstein's second term makes room for counts that
    are too few to be normal.

    Args:
        before: `(categories,)` rows of each category in one sample, at least one in all.
        now: The same in the other.
        level: Above 0, at most 1.
    """
    shares = (before + now) / (before.sum() + now.sum())
    shares = shares[(shares > 0) & (shares < 1)]
    if not len(shares):
        return 0.0
    deviations = np.sqrt(shares * (1 - shares) * (1 / before.sum() + 1 / now.sum()))
    odds = np.sqrt(shares / (1 - shares))
    correlations = np.maximum(-np.outer(odds, odds), -1.0)
    np.fill_diagonal(correlations, 1.0)
    bends = correlations * np.arcsin(correlations) + np.sqrt(1 - correlations**2) - 1
    variance = 2 / np.pi * (bends * np.outer(deviations, deviations)).sum() / 4
    few = -np.log(level) / 3 / min(before.sum(), now.sum())
    return min(_chi_quantile(np.sqrt(2 / np.pi) * deviations.sum() / 2, variance, level) + float(few), 1.0)


def _chi_quantile(mean: float, variance: float, level: float) -> float:
    square = mean**2 + variance
    degrees = float(np.interp(mean**2 / square, _CHI_RATIOS, _CHI_DEGREES))
    return float(np.sqrt(square / degrees * chdtri(degrees, level)))


def ks_noise(rows: int, others: int, level: float) -> float:
    """The Kolmogorov-Smirnov distance that two samples of one population exceed with odds of at most `level`.

    Smirnov, "Estimate of deviation between empirical distribution functions in two independent samples" (1939); two
    samples with ties stay closer still.
    """
    return min(float(np.sqrt(np.log(2 / level) / 2 * (1 / rows + 1 / others))), 1.0)


def kuiper_noise(rows: int, others: int, level: float) -> float:
    """The distance of Kuiper that two samples of one population exceed with odds of at most about `level`.

    It is the largest difference of the shares of any interval. The first term of the series of Kuiper, "Tests
    concerning random points on a circle" (1960), is all of it that counts for a level of at most a tenth.
    """
    square = 1.0
    # Contracts to three digits or more.
    for _ in range(20):
        square = float(np.log(2 * (4 * square - 1) / level)) / 2
    return min(float(np.sqrt(square * (1 / rows + 1 / others))), 1.0)


def absence_odds(counts: NDArray[np.float64], rows: int, others: int, missed: int = 0) -> NDArray[np.float64]:
    """Odds that a value falls into so few of the other rows by chance: binomial, given its rows in both samples.

    Args:
        counts: Rows of each value in one sample, at least one.
        rows: All rows of that sample.
        others: Rows of the other sample, none of which is known to hold the value.
        missed: Rows there that may hold it nevertheless.
    """
    return np.asarray(betainc(counts, missed + 1, rows / (rows + others)), dtype=np.float64)


def fewest_telling(rows: int, others: int, level: float, missed: int = 0) -> int:
    """The least number of rows whose value cannot be missing from the other sample by chance; see `absence_odds`."""
    low, high = 1, rows + 1
    while low < high:
        middle = (low + high) // 2
        is_telling = absence_odds(np.array([middle]), rows, others, missed)[0] < level
        low, high = (low, middle) if is_telling else (middle + 1, high)
    return low


def gumbel_quantile(largest: NDArray[np.float64], level: float) -> float:
    """What the largest of many variables exceeds with odds of `level`, from a few draws of it.

    The Gumbel distribution of the draws' mean and variance (Gumbel, "Statistics of extremes", 1958).
    """
    scale = largest.std(ddof=1) * np.sqrt(6) / np.pi
    return float(largest.mean() - scale * (np.euler_gamma + np.log(-np.log1p(-level))))
