"""Warm start: a network with an earlier one's weights says the same of the values that both know."""

import numpy as np
import pytest

from vae_ops.encoding.base import NO_VALUE, Codes, Token, unordered
from vae_ops.encoding.row import TokenLayout
from vae_ops.errors import CannotRefreshError
from vae_ops.sampling import TokenSampler
from vae_ops.warm_start import Placement, carry_weights

pytestmark = pytest.mark.slow

LATENT = 3


def layout(categories: int, bins: int = 12) -> TokenLayout:
    edges = np.linspace(-1, 1, bins + 1, dtype=np.float32)
    spans = np.column_stack([edges[:-1], edges[1:]])
    tokens = (unordered(categories), Token(bins, spans, first_bin=2), unordered(3, parent=1))
    return TokenLayout(tokens, (0, 1, 2))


def network(found: TokenLayout, seed: int, **size: object):
    from vae_ops.networks import NetworkSize, TabularNetwork

    shares = [np.full(token.size, 1 / token.size) for token in found.tokens]
    widths = NetworkSize(**{"hidden_units": 16, "latent_dim": LATENT, "head_units": 8, **size})
    made = TabularNetwork(found, widths, shares=shares, seed=seed)
    rng = np.random.default_rng(seed)
    # Every weight is random, so that none that is forgotten goes unnoticed; but of bins nothing is ever learned.
    arrays = {name: array + 0.1 * rng.normal(size=array.shape) for name, array in made.arrays().items()}
    made.assign({**arrays, "embedding": arrays["embedding"] * found.embedded})
    return made, shares


def place(model) -> Placement:
    groups = [(group.size, group.start, group.stop) for group in model.groups]
    return Placement(model.layout, model.token_order.tolist(), groups)


def log_likelihood(at: Placement, arrays, codes: Codes, latent) -> np.ndarray:
    return TokenSampler(at.layout, arrays, list(at.order), list(at.groups), LATENT).log_likelihood(codes, latent)


def carried(before: TokenLayout, after: TokenLayout) -> list[np.ndarray]:
    values = [np.arange(token.size) for token in after.tokens]
    return [np.where(v < t.size, v, NO_VALUE) for v, t in zip(values, before.tokens, strict=True)]


# Nine categories are padded to 32 instead of 8, so all heads change places.
@pytest.mark.parametrize("categories", [7, 9])
@pytest.mark.parametrize("size", [{}, {"context_rank": 4}, {"head_layers": 2}], ids=str)
def test_known_values_keep_their_odds(categories: int, size: dict[str, object]) -> None:
    (earlier, _), (fresh, shares) = network(layout(6), 1, **size), network(layout(categories), 2, **size)
    arrays = carry_weights(
        fresh.arrays(), place(fresh), earlier.arrays(), place(earlier), carried(earlier.layout, fresh.layout), shares
    )
    rng = np.random.default_rng(0)
    tokens = np.column_stack([rng.integers(0, 6, 200), rng.integers(0, 12, 200), rng.integers(0, 3, 200)])
    codes, latent = Codes.of(tokens), rng.normal(size=(200, LATENT)).astype(np.float32)
    other = Codes.of(np.column_stack([(tokens[:, 0] + 1) % 6, tokens[:, 1:]]))
    ours, theirs = (
        [log_likelihood(at, weights, rows, latent) for rows in (codes, other)]
        for at, weights in ((place(fresh), arrays), (place(earlier), earlier.arrays()))
    )
    assert ours[0][:, 1:] == pytest.approx(theirs[0][:, 1:], abs=1e-4)
    # With more categories each is less likely, but their odds are what they were.
    assert ours[0][:, 0] - ours[1][:, 0] == pytest.approx(theirs[0][:, 0] - theirs[1][:, 0], abs=1e-4)


def test_a_new_value_starts_at_its_share() -> None:
    (earlier, _), (fresh, _) = network(layout(6), 1), network(layout(7), 2)
    shares = [np.array([0.15] * 6 + [0.1]), *(np.full(t.size, 1 / t.size) for t in fresh.layout.tokens[1:])]
    arrays = carry_weights(
        fresh.arrays(), place(fresh), earlier.arrays(), place(earlier), carried(earlier.layout, fresh.layout), shares
    )
    latent = np.random.default_rng(0).normal(size=(2_000, LATENT)).astype(np.float32)
    new = Codes.of(np.tile([6, 0, 0], (2_000, 1)))
    assert np.exp(log_likelihood(place(fresh), arrays, new, latent)[:, 0]).mean() == pytest.approx(0.1, rel=0.5)


def test_values_that_go_on_from_one_share_its_mass() -> None:
    (earlier, _), (fresh, shares) = network(layout(6), 1), network(layout(7), 2)
    values = [np.array([0, 1, 2, 3, 4, 5, 5]), *carried(earlier.layout, fresh.layout)[1:]]
    arrays = carry_weights(fresh.arrays(), place(fresh), earlier.arrays(), place(earlier), values, shares)
    latent = np.zeros((1, LATENT), dtype=np.float32)

    def chance(at: Placement, weights, value: int) -> float:
        return float(np.exp(log_likelihood(at, weights, Codes.of(np.array([[value, 0, 0]])), latent)[0, 0]))

    both = chance(place(fresh), arrays, 5) + chance(place(fresh), arrays, 6)
    assert both == pytest.approx(chance(place(earlier), earlier.arrays(), 5), abs=1e-5)


def test_other_widths_are_refused() -> None:
    (earlier, _), (fresh, shares) = network(layout(6), 1, hidden_units=8), network(layout(6), 2)
    with pytest.raises(CannotRefreshError, match="widths"):
        carry_weights(
            fresh.arrays(), place(fresh), earlier.arrays(), place(earlier), [np.arange(6), np.arange(12), np.arange(3)],
            shares,
        )  # fmt: skip
