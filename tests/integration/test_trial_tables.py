"""Champion against challenger on public tables: ideal samplers replace each other, spoilt ones replace nobody."""

import os
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from tests.memorisers import planted
from tests.public_tables import NAMES, public_table, shuffled_by_column, with_moved_mean
from vae_ops.schema import infer_semantic_types
from vae_ops.settings import GateSettings
from vae_ops.validation.succession import Trial
from vae_ops.validation.trial import compare_models

SEEDS = int(os.environ.get("VAE_OPS_SEEDS", "2"))  # 60 take ten minutes
TABLE_ROWS = 6_000


class Night(NamedTuple):
    """Disjoint parts of one public table: two of them play the rows of ideal samplers."""

    training: pa.Table
    holdout: pa.Table
    champion: pa.Table
    challenger: pa.Table

    def trial(self, champion: pa.Table, challenger: pa.Table, seed: int = 0) -> Trial:
        types = infer_semantic_types(self.training)
        return compare_models(
            self.training, self.holdout, champion, challenger, GateSettings(), semantic_types=types, seed=seed
        )


def night(name: str, seed: int) -> Night:
    whole = pa.concat_tables(public_table(name))
    order = np.random.default_rng([1, seed]).permutation(whole.num_rows)
    drawn = (whole.num_rows - TABLE_ROWS) // 2
    ends = np.cumsum([9 * TABLE_ROWS // 10, TABLE_ROWS // 10, drawn, drawn])
    return Night(*(whole.take(part) for part in np.split(order, ends)[:4]))


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("name", NAMES)
def test_an_ideal_sampler_replaces_an_ideal_one(name: str, seed: int) -> None:
    tonight = night(name, seed)
    found = tonight.trial(tonight.champion, tonight.challenger, seed)
    assert found.challenger_wins, found.sentence


@pytest.mark.parametrize("name", NAMES)
def test_spoilt_rows_replace_nobody(name: str) -> None:
    tonight = night(name, 0)
    number = next(field.name for field in tonight.training.schema if pa.types.is_primitive(field.type))
    spoilt = {
        "dependence_error_percent": shuffled_by_column(tonight.challenger),
        "column_error_percent": with_moved_mean(tonight.challenger, number, 0.3),
        "near_copy_excess_percent": planted(tonight.challenger, tonight.training, 0.1),
    }
    for metric, rows in spoilt.items():
        found = tonight.trial(tonight.champion, rows)
        assert not found.challenger_wins, metric
        assert metric in {one.metric for one in found.metrics if one.is_worse}


def test_real_rows_replace_a_champion_without_dependence() -> None:
    tonight = night("magic", 0)
    assert tonight.trial(shuffled_by_column(tonight.champion), tonight.challenger).challenger_wins
