"""Paired differences: the values are those of the metrics, and chance moves them as far as their errors say."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vae_ops.validation.columns import CategoryColumn, EncodedTable, NumberColumn, take_rows
from vae_ops.validation.fidelity import coarsen_columns, dependence_error, shape_error
from vae_ops.validation.joint import C2stScores
from vae_ops.validation.neighbours import Places
from vae_ops.validation.paired import (
    Difference,
    compare_aucs,
    compare_closeness,
    compare_columns,
    compare_pairs,
    compare_shares_of_training,
)

AB = ("a", "b")


def table(rows: int, seed: int, *, moved: float = 0.0) -> EncodedTable:
    """A number and a category that depend on each other; some numbers are missing."""
    generator = np.random.default_rng([rows, seed])
    values = generator.normal(loc=moved, size=rows)
    codes = (values + generator.normal(size=rows) > 0).astype(np.int64)
    missing = (generator.random(rows) < 0.1).astype(np.int8)
    return {
        "a": NumberColumn(np.where(missing, np.nan, values), missing),
        "b": CategoryColumn(codes, 2),
    }


def places(values: np.ndarray) -> Places:
    return Places(values[:, None], np.empty((len(values), 0), np.int32), ())


def test_values_are_those_of_the_metrics() -> None:
    real, champion, challenger = table(300, 0), table(500, 1), table(500, 2, moved=0.3)
    *columns, mean = compare_columns(real, [champion, challenger], seed=0)
    expected = [[shape_error(real[name], model[name]) for name in AB] for model in (champion, challenger)]
    assert [part.champion for part in columns] == pytest.approx(expected[0])
    assert [part.challenger for part in columns] == pytest.approx(expected[1])
    assert (mean.champion, mean.challenger) == pytest.approx(tuple(np.mean(expected, axis=1)))
    _, dependence = compare_pairs(real, [champion, challenger], [AB], seed=0)
    first, second = ([coarsen_columns(real[n], [real[n], model[n]]) for n in AB] for model in (champion, challenger))
    assert dependence[0].champion == pytest.approx(dependence_error(*map(tuple, first)))  # type: ignore[arg-type]
    assert dependence[0].challenger == pytest.approx(dependence_error(*map(tuple, second)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("moved", "low", "high"), [(0.0, 0.95, 2.2), (0.5, 0.8, 1.3)])
def test_standard_errors_are_no_smaller_than_the_scatter_of_fresh_samples(
    moved: float, low: float, high: float
) -> None:
    found = []
    for seed in range(80):
        models = [table(rows, seed, moved=moved) for rows in (900, 901)]
        found.append(compare_columns(table(400, seed), models, seed=seed)[-1])
    scatter = np.std([one.challenger - one.champion for one in found])
    told = np.sqrt(np.mean([one.standard_error**2 for one in found]))
    assert low < told / scatter < high


def test_who_is_compared_with_himself_differs_by_nothing() -> None:
    real, model = table(200, 0), table(300, 1)
    differences = [
        *compare_columns(real, [model, model], seed=0),
        *(part for parts in compare_pairs(real, [model, model], [AB], seed=0) for part in parts),
    ]
    assert {(part.challenger - part.champion, part.standard_error) for part in differences} == {(0.0, 0.0)}


def test_the_order_of_the_models_turns_the_sign() -> None:
    real, first, second = table(200, 0), table(300, 1), table(300, 2, moved=0.2)
    there, back = (compare_columns(real, models, seed=3)[-1] for models in ([first, second], [second, first]))
    assert there.challenger - there.champion == pytest.approx(back.champion - back.challenger)
    assert there.standard_error == pytest.approx(back.standard_error)


def test_fewer_than_five_rows_say_nothing() -> None:
    with pytest.raises(ValueError, match="needs 5 rows of each side"):
        compare_columns(take_rows(table(9, 0), np.arange(4)), [table(9, 1), table(9, 2)], seed=0)


def test_the_interval_widens_with_confidence() -> None:
    difference = Difference(0.1, 0.3, 0.05, 19)
    narrow, wide = difference.interval(0.05), difference.interval(0.001)
    assert wide.low < narrow.low < 0.2 < narrow.high < wide.high
    assert narrow.high - 0.2 == pytest.approx(2.093 * 0.05, abs=1e-4)


def test_sureness_counts_standard_errors_beyond_the_margin() -> None:
    assert Difference(0.1, 0.3, 0.05, 19).sureness(0.1) == pytest.approx(2.0)
    assert Difference(0.1, 0.3, 0.0, 19).sureness(0.1) == np.inf
    assert Difference(0.1, 0.1, 0.0, 19).sureness(0.1) == -np.inf


def scores(seed: int, *, told: float, rows: int = 400) -> C2stScores:
    generator = np.random.default_rng(seed)
    return C2stScores(generator.normal(size=rows), generator.normal(told, size=2 * rows), AB, ())


def test_aucs_are_those_of_the_scores() -> None:
    champion, challenger = scores(0, told=0.1), scores(1, told=0.9)
    found = compare_aucs(champion, challenger)
    for auc, side in ((found.champion, champion), (found.challenger, challenger)):
        assert auc == pytest.approx(roc_auc_score(np.repeat([0, 1], [400, 800]), [*side.real, *side.synthetic]))
    assert found.interval(0.01).low > 0


def test_copies_and_near_copies_count_beyond_those_of_real_rows() -> None:
    generator = np.random.default_rng(0)
    training, holdout = generator.normal(size=2_000), generator.normal(size=300)
    honest = generator.normal(size=400)
    stolen = np.concatenate([honest[:200], training[:100], training[100:200] + 1e-9])
    copies, near = compare_closeness(
        places(training), np.arange(500), places(holdout), [places(honest), places(stolen)], seed=0
    )
    assert (copies.champion, copies.challenger) == (0.0, 0.25)
    assert 0.35 < near.challenger - near.champion < 0.55
    assert copies.interval(0.01).low > 0


def test_keeping_away_from_training_rows_is_no_merit() -> None:
    generator = np.random.default_rng(1)
    training, holdout, drawn = (generator.normal(size=rows) for rows in (500, 300, 300))
    far = 1e6 + 1e5 * np.arange(300.0)
    parts = compare_closeness(places(training), np.arange(300), places(holdout), [places(far), places(drawn)], seed=0)
    assert [part.champion for part in parts] == [0.0, 0.0]
    assert all(part.interval(0.01).low <= 0 for part in parts)


def test_a_model_that_follows_its_training_rows_has_the_larger_share() -> None:
    generator = np.random.default_rng(2)
    training, holdout, honest = (generator.normal(size=400) for _ in range(3))
    found = compare_shares_of_training(
        places(training), places(holdout), [places(honest), places(training + 1e-6)], seed=0
    )
    assert found.champion < 0.6
    assert found.challenger > 0.95
    assert found.interval(0.001).low > 0
    with pytest.raises(ValueError, match="needs 10"):
        compare_shares_of_training(places(training), places(holdout[:1]), [places(honest)] * 2, seed=0)
