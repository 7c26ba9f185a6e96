"""Our shape and trend errors are SDMetrics' Column Shapes and Column Pair Trends, seen from the other end."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sdmetrics.reports.single_table._properties import ColumnPairTrends, ColumnShapes
from sdmetrics.reports.utils import DEFAULT_REAL_ASSOCIATION_THRESHOLD, DEFAULT_REAL_CORRELATION_THRESHOLD

from tests.public_tables import NAMES, public_table, shuffled_by_column
from vae_ops.schema import SemanticType, infer_semantic_types
from vae_ops.settings import GateSettings
from vae_ops.validation.columns import align_table, encode_tables
from vae_ops.validation.fidelity import (
    STRONG_ASSOCIATION,
    STRONG_CORRELATION,
    choose_pairs,
    pair_trends,
    shape_error,
)
from vae_ops.validation.gate import judge

EXACT = 1e-6  # percent; they add a millionth of a row to categories that only the synthetic rows have
SD_TYPES = {SemanticType.NUMERIC: "numerical", SemanticType.CATEGORICAL: "categorical"}
FIDELITY_ONLY = GateSettings(
    max_c2st_auc=None,
    max_copy_excess_percent=None,
    max_near_copy_excess_percent=None,
    max_dcr_share_percent=None,
    max_membership_auc=None,
    max_rare_leak_percent=None,
)


def theirs(real: pa.Table, synthetic: pa.Table, types: Mapping[str, SemanticType]) -> dict[str, float]:
    """Errors in percent, all rows, by the names of our metrics."""
    frames = [coded(table, types) for table in (real, synthetic)]
    metadata = {"columns": {name: {"sdtype": SD_TYPES[kind]} for name, kind in types.items()}}
    shapes, every, counting = ColumnShapes(), ColumnPairTrends(), ColumnPairTrends()
    counting.real_correlation_threshold = DEFAULT_REAL_CORRELATION_THRESHOLD
    counting.real_association_threshold = DEFAULT_REAL_ASSOCIATION_THRESHOLD
    found: dict[str, Any] = {
        "shape_error_percent": shapes,
        "pair_error_percent": every,
        "trend_error_percent": counting,
    }
    for measure in found.values():
        measure.num_rows_subsample = None
    return {name: 100 * (1 - measure.get_score(*frames, metadata)) for name, measure in found.items()}


def coded(table: pa.Table, types: Mapping[str, SemanticType]) -> Any:
    frame = table.to_pandas()
    # Categories as text, as their Counter and groupby take them; numbers as float, as a table of mixed widths has them.
    return frame.astype({n: "float64" if k is SemanticType.NUMERIC else "str" for n, k in types.items()})


def ours(real: pa.Table, synthetic: pa.Table, types: Mapping[str, SemanticType]) -> dict[str, float]:
    left, right = encode_tables([real, align_table(synthetic, real.schema, "synthetic")], types)
    pairs = pair_trends(left, right, choose_pairs(list(types), 10_000, 0))
    return {
        "shape_error_percent": 100 * float(np.mean([shape_error(left[name], right[name]) for name in types])),
        "pair_error_percent": 100 * float(np.mean([pair.error for pair in pairs])),
        "trend_error_percent": 100 * float(np.mean([pair.error for pair in pairs if pair.counts])),
    }


def test_a_pair_counts_from_where_it_does_in_their_quality_report() -> None:
    assert STRONG_CORRELATION == DEFAULT_REAL_CORRELATION_THRESHOLD
    assert STRONG_ASSOCIATION == DEFAULT_REAL_ASSOCIATION_THRESHOLD


def invented(rows: int, seed: int, strength: float) -> pa.Table:
    generator = np.random.default_rng(seed)
    a, noise = generator.normal(size=rows), generator.normal(size=rows)
    kind = np.where(a > 0.5, "high", np.where(noise > 1, "odd", "low"))
    other = np.where(generator.random(rows) < strength, kind, generator.choice(["x", "y", "high"], rows))
    return pa.table(
        {
            "a": a,
            "b": strength * a + noise,
            "whole": generator.poisson(3.0, rows),
            "kind": kind,
            "other": other,
            "alone": generator.choice(list("pqrst"), rows),
        }
    )


@pytest.mark.parametrize("strength", [1.0, 0.3])
def test_invented_tables(strength: float) -> None:
    real, synthetic = invented(700, 1, 1.0), invented(500, 2, strength)
    types = infer_semantic_types(real)
    assert ours(real, synthetic, types) == pytest.approx(theirs(real, synthetic, types), abs=EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_public_tables_without_their_dependence(name: str) -> None:
    train, _ = public_table(name)
    types, synthetic = infer_semantic_types(train), shuffled_by_column(train)
    assert ours(train, synthetic, types) == pytest.approx(theirs(train, synthetic, types), abs=EXACT)


@pytest.mark.parametrize("name", NAMES)
def test_the_gate_reports_these_very_figures(name: str) -> None:
    train, test = public_table(name)
    metrics = judge(train, test, test, FIDELITY_ONLY).metrics
    expected = theirs(train, test, infer_semantic_types(train))
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=EXACT)
