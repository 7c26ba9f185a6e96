"""The two-sample test: it sees what the other metrics cannot, names the columns, and stays within its bounds."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from vae_ops.schema import SemanticType
from vae_ops.validation.columns import encode_tables
from vae_ops.validation.joint import auc_interval, auc_standard_error, c2st

NUMERIC, CATEGORICAL = SemanticType.NUMERIC, SemanticType.CATEGORICAL


def ring(rows: int, seed: int, *, shuffled: bool = False) -> pa.Table:
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, 2 * np.pi, rows)
    y = np.sin(angle)
    label = np.where(angle < np.pi, "upper", "lower")
    return pa.table({"x": np.cos(angle), "y": generator.permutation(y) if shuffled else y, "label": label})


RING_TYPES = {"x": NUMERIC, "y": NUMERIC, "label": CATEGORICAL}


def test_c2st_cannot_tell_two_samples_of_one_population() -> None:
    outcome = c2st(*encode_tables([ring(800, 1), ring(700, 2)], RING_TYPES))
    assert outcome.auc == pytest.approx(0.5, abs=3 * outcome.standard_error)
    assert (outcome.rows, outcome.columns, outcome.telling) == (700, 3, ())


def test_c2st_sees_dependence_that_no_correlation_shows_and_names_the_columns() -> None:
    outcome = c2st(*encode_tables([ring(800, 1), ring(800, 2, shuffled=True)], RING_TYPES))
    assert outcome.auc > 0.9
    assert "y" in [name for name, _ in outcome.telling[:2]]


def test_c2st_is_the_same_every_time_and_depends_on_the_seed() -> None:
    sides = encode_tables([ring(300, 1), ring(300, 2)], RING_TYPES)
    assert c2st(*sides, seed=5) == c2st(*sides, seed=5)
    assert c2st(*sides, seed=5).auc != c2st(*sides, seed=6).auc


def test_c2st_takes_fifty_thousand_categories_and_infinities() -> None:
    generator = np.random.default_rng(0)
    tables = [
        pa.table({"s": [f"c{i}" for i in generator.integers(0, 50_000, 600)], "x": [np.inf, -np.inf, None] * 200})
        for _ in range(2)
    ]
    outcome = c2st(*encode_tables(tables, {"s": CATEGORICAL, "x": NUMERIC}))
    assert outcome.auc == pytest.approx(0.5, abs=0.1)


def test_c2st_of_too_few_rows_or_no_columns_cannot_tell() -> None:
    assert c2st(*encode_tables([ring(3, 1), ring(100, 2)], RING_TYPES)).auc == 0.5
    assert c2st({}, {}).auc == 0.5


def test_c2st_bounds_rows_and_columns_of_a_wide_table() -> None:
    wide = pa.table({f"c{index}": np.zeros(1500) for index in range(1300)})
    types = dict.fromkeys(wide.column_names, NUMERIC)
    outcome = c2st(*encode_tables([wide, wide], types))
    assert (outcome.rows, outcome.columns) == (1000, 300)


def test_auc_standard_error_at_chance_is_mann_whitneys() -> None:
    assert auc_standard_error(0.5, 30, 70) == pytest.approx(np.sqrt((30 + 70 + 1) / (12 * 30 * 70)))
    assert auc_standard_error(1.0, 30, 70) == 0.0


def test_the_interval_holds_the_auc_and_narrows_with_the_rows() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for rows in (50, 5000):
        low, high = generator.normal(size=rows).round(2), generator.normal(1.0, 1.0, rows).round(2)
        auc = roc_auc_score(np.repeat([0, 1], rows), np.r_[low, high])
        interval = auc_interval(low, high, seed=0)
        assert interval.low < auc < interval.high
        widths.append(interval.high - interval.low)
    assert widths[0] > 5 * widths[1]
    assert widths[1] == pytest.approx(2 * 1.96 * auc_standard_error(auc, rows, rows), rel=0.2)


def test_equal_scores_are_half_right() -> None:
    assert auc_interval(np.zeros(20), np.zeros(30), seed=0).low == 0.5
