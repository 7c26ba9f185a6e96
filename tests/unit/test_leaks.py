"""Rare categories and extremes that leaked are found, named and counted against what fresh real rows would show."""

import datetime

import numpy as np
import pyarrow as pa
import pytest

from vae_ops.schema import SemanticType, infer_semantic_types
from vae_ops.validation.evidence import Leak, LeakCount
from vae_ops.validation.leaks import EXTREME, RARE_CATEGORY, find_leaks


def leaks_of(
    training: pa.Table, synthetic: pa.Table, rare_rows: int = 3
) -> tuple[tuple[Leak, ...], dict[str, LeakCount]]:
    leaks, counts = find_leaks(training, synthetic, infer_semantic_types(training), rare_rows=rare_rows)
    return leaks, {count.kind: count for count in counts}


def test_a_rare_category_that_was_emitted_is_named() -> None:
    training = pa.table({"plan": ["a"] * 9 + ["rare"] * 2 + ["rarer"] + [None]})
    synthetic = pa.table({"plan": ["a", "rare", "rare", "new", None]})
    leaks, counts = leaks_of(training, synthetic)
    assert leaks == (Leak("plan", RARE_CATEGORY, "rare", rows_real=2, rows_synthetic=2),)
    assert (counts[RARE_CATEGORY].at_risk, counts[RARE_CATEGORY].leaked) == (2, 1)


def test_the_rarest_come_first_and_only_some_are_listed() -> None:
    names = [f"n{number}" for number in range(80)]
    training = pa.table({"name": names + names[40:] + ["many"] * 5})
    leaks, counts = leaks_of(training, training)
    assert len(leaks) == 50
    assert [leak.rows_real for leak in leaks] == [1] * 40 + [2] * 10
    assert counts[RARE_CATEGORY].leaked == counts[RARE_CATEGORY].at_risk == 80


def test_null_is_no_rare_category() -> None:
    training = pa.table({"plan": ["a"] * 9 + [None]})
    leaks, counts = leaks_of(training, training)
    assert leaks == ()
    assert counts[RARE_CATEGORY].at_risk == 0


def test_extremes_of_one_row_are_at_risk_and_shared_ones_are_not() -> None:
    training = pa.table(
        {"pay": [1.5, 2.0, 2.0, 9.0, 9.0], "day": [datetime.date(2020, 1, day) for day in (1, 1, 2, 3, 9)]}
    )
    synthetic = pa.table({"pay": [1.5, 9.0, 3.0], "day": [datetime.date(2020, 1, day) for day in (9, 9, 1)]})
    leaks, counts = leaks_of(training, synthetic)
    assert set(leaks) == {Leak("pay", EXTREME, "1.5", 1, 1), Leak("day", EXTREME, "2020-01-09", 1, 2)}
    assert (counts[EXTREME].at_risk, counts[EXTREME].leaked) == (2, 2)


def test_gaps_do_not_hide_an_extreme() -> None:
    training = pa.table({"pay": pa.array([None, 4.0, 7.0, 7.0, float("nan")], from_pandas=False)})
    leaks, _ = leaks_of(training, training)
    assert leaks == (Leak("pay", EXTREME, "4", 1, 1),)


def test_identifiers_booleans_and_empty_columns_are_not_looked_at() -> None:
    training = pa.table({"key": ["u", "v", "w"], "flag": [True, False, False], "gone": pa.nulls(3, pa.float64())})
    types = {"key": SemanticType.IDENTIFIER, "flag": SemanticType.BOOLEAN, "gone": SemanticType.NUMERIC}
    assert all(count.at_risk == 0 for count in find_leaks(training, training, types, rare_rows=3)[1])


def names(rows: int, pool: int, seed: int) -> pa.Table:
    return pa.table({"name": [f"n{number}" for number in np.random.default_rng(seed).integers(0, pool, rows)]})


@pytest.mark.parametrize("pool", [60, 600, 6_000, 600_000])
def test_fresh_real_rows_stay_within_what_chance_may_cause(pool: int) -> None:
    for seed in range(20):
        _, counts = leaks_of(names(2_000, pool, seed), names(2_000, pool, 100 + seed), rare_rows=5)
        rare = counts[RARE_CATEGORY]
        assert 100 * rare.leaked <= rare.noise_percent * rare.at_risk


def test_names_that_never_come_again_by_chance_are_a_leak() -> None:
    training = names(2_000, 600_000, 1)
    _, counts = leaks_of(training, training.slice(0, 400), rare_rows=5)
    assert counts[RARE_CATEGORY].noise_percent < 3.0
    assert counts[RARE_CATEGORY].leaked > 0.15 * counts[RARE_CATEGORY].at_risk


def test_a_value_beyond_pythons_dates_has_a_text() -> None:
    training = pa.table({"since": pa.array([2**30, 0, 0], pa.int32()).cast(pa.date32()), "raw": [b"\xff", b"a", b"a"]})
    values = {leak.column: leak.value for leak in leaks_of(training, training, rare_rows=2)[0]}
    assert values["raw"] == "ff"
    assert "1073741824" in values["since"]


def test_a_value_is_cut_when_very_long() -> None:
    training = pa.table({"text": ["x" * 5_000, "y", "y", "y"]})
    leaks, _ = leaks_of(training, training)
    assert len(leaks[0].value) <= 200
