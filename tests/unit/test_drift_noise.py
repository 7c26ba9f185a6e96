"""noise.py: what chance does, held against chance itself."""

import numpy as np
import pytest

from vae_ops.drift.noise import (
    absence_odds,
    fewest_telling,
    gumbel_quantile,
    ks_noise,
    kuiper_noise,
    total_variation,
    variation_noise,
)

DRAWS = 2000


def test_total_variation() -> None:
    assert total_variation(np.array([1.0, 1.0]), np.array([3.0, 1.0])) == pytest.approx(0.25)
    assert total_variation(np.array([2.0, 0.0]), np.array([0.0, 5.0])) == 1
    assert total_variation(np.array([2.0, 1.0]), np.array([4.0, 2.0])) == 0


@pytest.mark.parametrize("categories", [2, 5, 60])
@pytest.mark.parametrize("rows", [(500, 500), (300, 6000)])
def test_variation_exceeds_its_noise_as_often_as_it_should(categories: int, rows: tuple[int, int]) -> None:
    random = np.random.default_rng(categories)
    shares = random.dirichlet(np.full(categories, 2.0))
    pairs = zip(*(random.multinomial(count, shares, DRAWS).astype(np.float64) for count in rows), strict=True)
    beyond = [total_variation(before, now) > variation_noise(before, now, 0.05) for before, now in pairs]
    assert 0.005 < np.mean(beyond) < 0.07


def test_variation_noise_of_one_category_is_none() -> None:
    assert variation_noise(np.array([7.0, 0.0]), np.array([9.0, 0.0]), 0.01) == 0


def test_ks_exceeds_its_noise_as_often_as_it_should() -> None:
    random = np.random.default_rng(0)
    ranks = np.argsort(random.random((DRAWS, 900)), axis=1) < 300
    distances = np.abs(ranks.cumsum(axis=1) / 300 - (~ranks).cumsum(axis=1) / 600).max(axis=1)
    assert 0.02 < np.mean(distances > ks_noise(300, 600, 0.05)) < 0.06
    intervals = np.ptp(ranks.cumsum(axis=1) / 300 - (~ranks).cumsum(axis=1) / 600, axis=1)
    assert 0.02 < np.mean(intervals > kuiper_noise(300, 600, 0.05)) < 0.06


def test_absence_is_a_matter_of_odds() -> None:
    assert absence_odds(np.array([1.0, 3.0]), 100, 100) == pytest.approx([0.5, 0.125])
    assert absence_odds(np.array([3.0]), 100, 300) == pytest.approx([0.25**3])
    assert absence_odds(np.array([1.0]), 100, 100, missed=1) == pytest.approx([0.75])


@pytest.mark.parametrize("missed", [0, 20])
def test_the_fewest_telling_rows_tell_and_one_less_does_not(missed: int) -> None:
    fewest = fewest_telling(5000, 3000, 1e-4, missed)
    odds = absence_odds(np.array([fewest - 1.0, fewest]), 5000, 3000, missed)
    assert odds[1] < 1e-4 <= odds[0]
    assert fewest_telling(3, 3000, 1e-12) == 4, "more rows than there are"


def test_gumbel_quantile_of_largest_values() -> None:
    random = np.random.default_rng(0)
    largest = random.normal(size=(4000, 100)).max(axis=1)
    limit = gumbel_quantile(largest[:60], 0.01)
    assert 0.003 < np.mean(largest > limit) < 0.03
