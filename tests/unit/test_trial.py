"""The trial of two models: who is as good takes over, who is worse in anything does not, and the sentence says why."""

import dataclasses
import json
from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from tests.public_tables import shuffled_by_column
from vae_ops.errors import SchemaError
from vae_ops.schema import SemanticType
from vae_ops.settings import GateSettings
from vae_ops.validation.succession import Trial
from vae_ops.validation.trial import IMMATERIAL, compare_models

TYPES = dict.fromkeys(("a", "b"), SemanticType.NUMERIC) | {"kind": SemanticType.CATEGORICAL}
GATE = GateSettings()
NO_TREES = GateSettings(max_c2st_auc=None)


@cache
def drawn(seed: int, rows: int = 1_500) -> pa.Table:
    """What an ideal sampler of one source draws."""
    generator = np.random.default_rng(seed)
    a = generator.normal(size=rows)
    b = 0.8 * a + 0.6 * generator.normal(size=rows)
    return pa.table({"a": a, "b": b, "kind": np.where(a + generator.normal(size=rows) > 0, "high", "low")})


TRAINING, HOLDOUT = drawn(1_001, 1_000), drawn(1_002, 500)


def trial(champion: pa.Table, challenger: pa.Table, settings: GateSettings = GATE, *, seed: int = 0) -> Trial:
    return compare_models(TRAINING, HOLDOUT, champion, challenger, settings, semantic_types=TYPES, seed=seed)


def worse_in(found: Trial) -> set[str]:
    assert not found.challenger_wins
    return {metric.metric for metric in found.metrics if metric.is_worse}


def test_an_equally_good_challenger_wins() -> None:
    found = [trial(drawn(2 * seed), drawn(2 * seed + 1), NO_TREES, seed=seed) for seed in range(12)]
    assert sum(one.challenger_wins for one in found) == 12


def test_a_trial_compares_everything_and_says_so() -> None:
    found = trial(drawn(0), drawn(1))
    assert found.challenger_wins
    assert (found.rows, found.rows_real) == (1_500, 500)
    assert [metric.metric for metric in found.metrics] == [
        "shape_error_percent",
        "column_error_percent",
        "pair_error_percent",
        "dependence_error_percent",
        "c2st_auc",
        "copy_excess_percent",
        "near_copy_excess_percent",
        "dcr_share_percent",
    ]
    assert "no worse in any of 8 measures on 500 real rows" in found.sentence
    for metric in found.metrics:
        difference = metric.challenger - metric.champion
        assert metric.difference.low <= difference <= metric.difference.high


def test_the_same_rows_and_seed_give_the_same_trial() -> None:
    assert trial(drawn(0, 300), drawn(1, 300)) == trial(drawn(0, 300), drawn(1, 300))


def test_a_trial_survives_json() -> None:
    found = trial(drawn(0), shuffled_by_column(drawn(1)), NO_TREES)
    assert Trial.from_dict(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_shuffled_columns_lose_for_their_dependence() -> None:
    found = trial(drawn(0), shuffled_by_column(drawn(1)))
    assert {"dependence_error_percent", "pair_error_percent", "c2st_auc"} <= worse_in(found)
    assert found.sentence.endswith("the champion stays.")
    assert next(m for m in found.metrics if m.metric == "dependence_error_percent").columns in {
        ("a", "b"), ("a", "kind"), ("b", "kind"),
    }  # fmt: skip


def test_a_moved_column_loses_and_is_named() -> None:
    moved = drawn(1).set_column(1, "b", pa.array(drawn(1)["b"].to_numpy() + 0.5))
    found = trial(drawn(0), moved, NO_TREES)
    assert {"shape_error_percent", "column_error_percent"} <= worse_in(found)
    assert next(m for m in found.metrics if m.metric == "column_error_percent").columns == ("b",)


def test_a_constant_challenger_loses() -> None:
    constant = pa.table({"a": np.zeros(1_500), "b": np.zeros(1_500), "kind": ["low"] * 1_500})
    assert worse_in(trial(drawn(0), constant, NO_TREES))


def test_real_rows_beat_a_bad_champion() -> None:
    found = trial(shuffled_by_column(drawn(0)), drawn(1), NO_TREES)
    assert found.challenger_wins
    assert "it is better in" in found.sentence


def test_a_challenger_that_repeats_its_training_rows_loses() -> None:
    rows = np.random.default_rng(0).integers(0, TRAINING.num_rows, 1_500)
    found = trial(drawn(0), TRAINING.take(rows), NO_TREES)
    assert {"copy_excess_percent", "near_copy_excess_percent"} <= worse_in(found)


def test_a_good_challenger_is_not_refused_for_being_nearer_to_training_rows_than_garbage() -> None:
    far = pa.table({"a": np.linspace(1e6, 2e6, 1_500), "b": np.linspace(-2e6, -1e6, 1_500), "kind": ["low"] * 1_500})
    assert trial(far, drawn(1), NO_TREES).challenger_wins


def test_a_material_loss_is_a_share_of_what_the_gate_allows() -> None:
    found = trial(drawn(0), drawn(1), NO_TREES)
    margins = {metric.metric: metric.margin for metric in found.metrics}
    assert margins["shape_error_percent"] == pytest.approx(IMMATERIAL * GATE.max_shape_error_percent)  # type: ignore[operator]
    assert margins["dcr_share_percent"] == pytest.approx(IMMATERIAL * 3.0)


def test_what_the_gate_does_not_judge_is_not_compared() -> None:
    names = [name for name in GateSettings.__dataclass_fields__ if name.startswith("max_")]
    found = trial(drawn(0), shuffled_by_column(drawn(1)), GateSettings(**dict.fromkeys(names)))  # type: ignore[arg-type]
    assert (found.challenger_wins, found.metrics) == (True, ())
    assert "switched off" in found.sentence


def test_too_few_rows_are_no_reason_to_refuse() -> None:
    found = trial(drawn(0, 4), drawn(1, 4))
    assert (found.challenger_wins, found.metrics) == (True, ())
    assert "too few rows" in found.sentence


@pytest.mark.parametrize("rows", [0, 1])
def test_a_tiny_holdout_is_topped_up_with_training_rows(rows: int) -> None:
    found = compare_models(
        TRAINING, HOLDOUT.slice(0, rows), drawn(0), shuffled_by_column(drawn(1)), NO_TREES, semantic_types=TYPES, seed=0
    )
    assert not found.challenger_wins
    assert found.rows_real == 500


def test_champion_and_challenger_are_compared_on_equally_many_rows() -> None:
    assert trial(drawn(0, 700), drawn(1, 900), NO_TREES).rows == 700


def test_missing_columns_are_named() -> None:
    with pytest.raises(SchemaError, match="champion's rows lack column 'kind'"):
        trial(drawn(0).drop_columns(["kind"]), drawn(1))
