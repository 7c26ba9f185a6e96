"""The gate on public tables: what it must let through, what it must refuse, and the reason it must give."""

import os
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from tests.public_tables import NAMES, public_table, shuffled_by_column, with_moved_mean
from vae_ops.settings import GateSettings
from vae_ops.validation import Validation, judge

SETTINGS = GateSettings()
SEEDS = int(os.environ.get("VAE_OPS_SEEDS", "4"))  # 20 take four minutes
Tables = tuple[pa.Table, pa.Table, pa.Table]


@pytest.fixture(params=NAMES)
def tables(request: pytest.FixtureRequest) -> Tables:
    """Training rows, held-out rows, and fresh real rows of the same source in the part of synthetic ones."""
    train, test = public_table(request.param)
    order = np.random.default_rng(5).permutation(train.num_rows)
    half = train.num_rows // 2
    return train.take(order[:half]), test, train.take(order[half:])


def refused(tables: Tables, spoil: Callable[[pa.Table], pa.Table]) -> Validation:
    training, holdout, fresh = tables
    found = judge(training, holdout, spoil(fresh), SETTINGS)
    assert found.verdict == "fail"
    assert all(finding.remedy for finding in found.findings if finding.verdict == "fail")
    return found


def test_held_out_real_rows_pass(tables: Tables) -> None:
    training, holdout, fresh = tables
    found = judge(training, fresh, holdout, SETTINGS)
    assert found.verdict == "pass", found.reasons


def test_columns_shuffled_one_by_one_fail_for_their_dependence(tables: Tables) -> None:
    found = refused(tables, shuffled_by_column)
    named = {finding.metric for finding in found.findings[:3]}
    assert {"dependence_error_percent", "trend_error_percent"} <= named
    assert any("dependence between" in reason for reason in found.reasons)
    assert {column.verdict for column in found.columns} == {"pass"}


def test_a_mean_moved_by_a_fifth_of_a_deviation_fails_and_names_the_column(tables: Tables) -> None:
    for name in [field.name for field in tables[0].schema if pa.types.is_primitive(field.type)][:2]:
        found = refused(tables, lambda fresh, name=name: with_moved_mean(fresh, name, 0.2))
        moved = {finding.metric: finding for finding in found.findings[:3]}["mean_shift_sd"]
        assert (moved.verdict, moved.columns) == ("fail", (name,))
        assert found.columns[0].column == name


def test_the_source_itself_with_a_moved_mean_fails_for_the_column_too(tables: Tables) -> None:
    training, holdout, _ = tables
    name = next(field.name for field in training.schema if pa.types.is_primitive(field.type))
    found = judge(training, holdout, with_moved_mean(training, name, 0.2), SETTINGS)
    assert found.verdict == "fail"
    assert any(repr(name) in reason for reason in found.reasons)


def test_copies_fail_for_privacy(tables: Tables) -> None:
    training, _, _ = tables
    found = refused(tables, lambda fresh: training)
    assert {finding.aspect for finding in found.findings if finding.verdict == "fail"} == {"privacy"}
    assert any("equal a training row" in reason for reason in found.reasons)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_real_rows_against_real_rows_fail_for_no_seed(name: str) -> None:
    pool = pa.concat_tables(public_table(name))
    for seed in range(SEEDS):
        order = np.random.default_rng([77, seed]).permutation(pool.num_rows)
        parts = np.split(order, [int(0.45 * len(order)), int(0.55 * len(order))])
        found = judge(*(pool.take(part) for part in parts), SETTINGS, seed=seed)
        assert found.verdict == "pass", found.reasons
