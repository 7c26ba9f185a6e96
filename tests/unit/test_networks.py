"""Networks: parameter counts that are fixed by the design, the analytic KL, and a decoder that cannot look ahead."""

import numpy as np
import pytest

from vae_ops.encoding.base import Codes, Token, unordered
from vae_ops.encoding.row import TokenLayout
from vae_ops.errors import BundleError
from vae_ops.sampling import TokenSampler, check_weights

pytestmark = pytest.mark.slow


def layout() -> TokenLayout:
    def bins(size: int) -> np.ndarray:
        edges = np.linspace(-1, 1, size + 1, dtype=np.float32)
        return np.column_stack([edges[:-1], edges[1:]])

    tokens = (
        unordered(5),
        Token(40, bins(40), first_bin=10),
        Token(8, bins(8), first_bin=0, parent=1, parent_from=3),
        unordered(2),
    )
    return TokenLayout(tokens, (0, 1, 1, 2))


def rows_of(found: TokenLayout, count: int = 64) -> Codes:
    rng = np.random.default_rng(0)
    tokens = np.full((count, len(found)), -1, dtype=np.int32)
    for index, token in enumerate(found.tokens):
        tokens[:, index] = np.where(found.applies(index, tokens), rng.integers(0, token.size, count), -1)
    return Codes.of(tokens, rng.random(tokens.shape))


def network(**size: object):
    from vae_ops.networks import NetworkSize, TabularNetwork

    found = layout()
    shares = [np.full(token.size, 1 / token.size) for token in found.tokens]
    return TabularNetwork(
        found, NetworkSize(**{"hidden_units": 16, "latent_dim": 3, "head_units": 8, **size}), shares=shares, seed=1
    )


def test_dense_networks_have_the_parameters_of_the_design() -> None:
    from vae_ops.networks import build_autoencoder, build_vae

    plain = build_autoencoder(input_dim=10, hidden_units=(10, 10), latent_dim=5, decoder_units=(10,))
    assert [plain.encoder.count_params(), plain.decoder.count_params(), plain.count_params()] == [275, 170, 445]
    vae = build_vae(input_dim=10, hidden_units=(10,), latent_dim=5, decoder_units=(10,))
    assert [vae.encoder.count_params(), vae.decoder.count_params()] == [220, 170]
    assert sum(int(np.prod(weight.shape)) for weight in vae.trainable_weights) == 390


def test_dense_networks_give_the_promised_shapes() -> None:
    from vae_ops.networks import build_autoencoder, build_vae

    rows = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    assert build_autoencoder(6, (9, 4), 2)(rows).shape == (7, 6)
    vae = build_vae(6, (9, 4), 2)
    assert vae(rows).shape == (7, 6)
    assert [output.shape for output in vae.encoder(rows)] == [(7, 2), (7, 2)]
    assert len(vae.losses) == 1


def test_kl_is_the_analytic_one() -> None:
    from vae_ops.networks import kl_divergence

    rng = np.random.default_rng(0)
    mean, log_sigma = rng.normal(size=(5, 3)), rng.uniform(-2, 1, size=(5, 3))
    found = np.asarray(kl_divergence(mean, log_sigma))
    sigma = np.exp(log_sigma)
    # ∫ q log(q/p) on a fine grid, as an independent derivation.
    grid = np.linspace(-60, 60, 100_001)
    q = np.exp(-0.5 * ((grid - mean[..., None]) / sigma[..., None]) ** 2) / (sigma[..., None] * np.sqrt(2 * np.pi))
    log_ratio = -0.5 * ((grid - mean[..., None]) / sigma[..., None]) ** 2 - log_sigma[..., None] + 0.5 * grid**2
    assert found == pytest.approx(np.trapezoid(q * log_ratio, grid), abs=1e-5)
    assert np.asarray(kl_divergence(np.zeros((1, 2)), np.zeros((1, 2)))) == pytest.approx(0.0)


@pytest.mark.parametrize("size", [{}, {"context_rank": 4}, {"autoregressive": False}], ids=str)
def test_a_token_never_sees_itself_or_later_ones(size: dict[str, object]) -> None:
    model = network(**size)
    codes = rows_of(model.layout)
    tokens, fractions = codes.tokens, codes.fractions
    latent = np.random.default_rng(1).normal(size=(len(tokens), 3)).astype(np.float32)

    def losses(values: np.ndarray, inside: np.ndarray = fractions) -> np.ndarray:
        embedded = model.embed(values, model.layout.positions(Codes(values, inside)))
        found = np.asarray(model.negative_log_likelihood(tokens, embedded, latent))
        return found[np.argsort(model.token_order)]

    before = losses(tokens)
    for index in range(len(model.layout)):
        changed = tokens.copy()
        changed[:, index] = (changed[:, index] + 1) % model.layout.tokens[index].size
        if model.layout.tokens[index].parent is not None:
            changed[tokens[:, index] < 0, index] = -1
        after = losses(changed)
        moved = fractions.copy()
        moved[:, index] = 1 - moved[:, index]
        assert losses(tokens, moved)[: index + 1] == pytest.approx(before[: index + 1], abs=1e-6)
        assert after[: index + 1] == pytest.approx(before[: index + 1], abs=1e-6)
        if model.size.autoregressive and index + 1 < len(model.layout):
            assert not np.allclose(after[index + 1 :], before[index + 1 :], atol=1e-4)


@pytest.mark.parametrize("size", [{}, {"context_rank": 4}, {"autoregressive": False}, {"head_layers": 2}], ids=str)
def test_sampling_repeats_the_network_in_numpy(size: dict[str, object]) -> None:
    model = network(**size)
    codes = rows_of(model.layout)
    latent = np.random.default_rng(1).normal(size=(len(codes), 3)).astype(np.float32)
    embedded = model.embed(codes.tokens, model.layout.positions(codes))
    losses = model.negative_log_likelihood(codes.tokens, embedded, latent)
    expected = -np.asarray(losses)[np.argsort(model.token_order)].T
    groups = [(group.size, group.start, group.stop) for group in model.groups]
    sampler = TokenSampler(model.layout, model.arrays(), model.token_order.tolist(), groups, 3)
    assert sampler.log_likelihood(codes, latent) == pytest.approx(expected, abs=1e-4)
    for ours, theirs in zip(sampler.posterior(codes), model.posterior(embedded), strict=True):
        assert ours == pytest.approx(np.asarray(theirs), abs=1e-4)


def test_of_a_bin_nothing_is_learned_by_heart() -> None:
    model = network()
    table = model.arrays()["embedding"]
    start = int(model.layout.offsets[1])
    assert np.all(table[start + 10 : start + 40] == 0)
    assert np.all(np.any(table[start : start + 10] != 0, axis=1))
    codes = rows_of(model.layout)
    before = np.asarray(model.embed(codes.tokens, model.layout.positions(codes)))
    model.assign({**model.arrays(), "embedding": table + (model.layout.embedded == 0)})
    after = np.asarray(model.embed(codes.tokens, model.layout.positions(codes)))
    assert after == pytest.approx(before)


def test_a_plain_autoencoder_has_no_kl() -> None:
    model = network(variational=False)
    codes = rows_of(model.layout)
    losses, kl = model((codes.tokens, model.layout.positions(codes)))
    assert losses.shape == (4, 64)
    assert np.asarray(kl) == pytest.approx(0.0)


def test_weights_survive_arrays_and_assign() -> None:
    first, second = network(), network(latent_dim=3)
    second.assign({name: array * 0 + 1 for name, array in first.arrays().items()})
    assert all(np.all(array == 1) for array in second.arrays().values())
    assert len(first.arrays()) == len(first.trainable_weights)


def sampler() -> TokenSampler:
    model = network()
    groups = [(group.size, group.start, group.stop) for group in model.groups]
    shares = np.concatenate([np.full(token.size, 1 / token.size, np.float32) for token in model.layout.tokens])
    arrays = {**model.arrays(), "shares": shares}
    return TokenSampler(model.layout, arrays, model.token_order.tolist(), groups, 3)


def test_blocks_share_out_the_outermost_strata_among_themselves() -> None:
    ready, bins = sampler(), layout().tokens[1]
    for value, of_the_end in ((bins.first_bin, lambda inside: inside.min()), (bins.size - 1, lambda f: 1 - f.max())):
        reached = []
        for block in range(8):
            codes = ready.sample_block(block, 0, 512)
            inside = codes.fractions[codes.tokens[:, 1] == value, 1]
            reached.append(of_the_end(inside) * len(inside))
        # Eight places in a stratum, a golden ratio apart: the widest gap is 0.24, where chance leaves 0.34 on average.
        places = np.sort(np.mod(reached, 1.0))
        assert np.diff(np.r_[places, places[0] + 1.0]).max() < 0.25


def test_values_alone_in_their_bins_do_not_all_lie_at_one_place() -> None:
    codes = sampler().sample_block(0, 0, 12)
    values, counts = np.unique(codes.tokens[:, 1], return_counts=True)
    inner = (values > layout().tokens[1].first_bin) & (values < layout().tokens[1].size - 1)
    alone = np.isin(codes.tokens[:, 1], values[inner & (counts == 1)])
    assert alone.sum() > 2
    assert len(np.unique(codes.fractions[alone, 1])) == alone.sum()


@pytest.mark.parametrize(
    "size",
    [
        {},
        {"context_rank": 6},
        {"autoregressive": False},
        {"variational": False},
        {"head_layers": 0, "hidden_layers": 0},
    ],
)
def test_weights_that_were_read_are_held_against_the_network(size: dict[str, object]) -> None:
    model = network(**size)
    groups = [[group.size, group.start, group.stop] for group in model.groups]
    facts = {"size": vars(model.size), "token_order": model.token_order.tolist(), "groups": groups}
    arrays = {**model.arrays(), "shares": np.ones(int(model.layout.sizes.sum()), dtype=np.float32)}
    check_weights(model.layout, facts, arrays)
    for name, array in arrays.items():
        missing = {other: value for other, value in arrays.items() if other != name}
        wrong = (array[1:], array.astype(np.float64), array[None], np.full_like(array, np.nan))
        for altered in (missing, *({**arrays, name: value} for value in wrong)):
            with pytest.raises(BundleError, match="weights are not"):
                check_weights(model.layout, facts, altered)
    for key, value in (("latent_dim", 4.0), ("hidden_layers", 10**12), ("variational", 1), ("embedding_dim", 1)):
        with pytest.raises(BundleError):
            check_weights(model.layout, {**facts, "size": {**vars(model.size), key: value}}, arrays)
    for order in ([0, 1, 2], [0, 0, 1, 2], [1, 2, 3, 4]):
        with pytest.raises(BundleError, match="heads"):
            check_weights(model.layout, {**facts, "token_order": order}, arrays)
