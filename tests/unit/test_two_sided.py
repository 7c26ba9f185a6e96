"""The same metrics for reconstructions and prior samples name the part of the model that is at fault."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vae_ops.errors import SchemaError
from vae_ops.settings import GateSettings
from vae_ops.validation import Validation, judge

FAITHFUL = GateSettings(
    max_copy_excess_percent=None,
    max_near_copy_excess_percent=None,
    max_dcr_share_percent=None,
    max_membership_auc=None,
    max_rare_leak_percent=None,
)
LEARNED: dict[str, Any] = {
    "diagnosis": {"kl_by_dimension": [1.5, 0.25, 0.0], "active_units": 2, "loss_by_column": {"kind": 0.9, "a": 0.1}},
    "history": [{"step": 10, "loss": 2.0}],
}


def rows(count: int, seed: int) -> pa.Table:
    generator = np.random.default_rng(seed)
    a = generator.normal(size=count)
    return pa.table({"a": a, "b": a + 0.3 * generator.normal(size=count), "kind": np.where(a > 0.2, "high", "low")})


def spoilt(table: pa.Table, seed: int = 0) -> pa.Table:
    generator = np.random.default_rng(seed)
    return pa.table([column.take(generator.permutation(len(column))) for column in table.columns], table.column_names)


def judged(synthetic: pa.Table, reconstructed: pa.Table | None, record: dict[str, Any] = LEARNED) -> Validation:
    training = rows(1500, 1)
    both = None if reconstructed is None else (training, reconstructed)
    return judge(training, rows(600, 2), synthetic, FAITHFUL, reconstructed=both, training_record=record)


def test_nothing_is_accused_where_all_is_well() -> None:
    found = judged(rows(1500, 3), rows(1500, 1))
    assert found.verdict == "pass"
    assert found.two_sided is not None
    assert found.two_sided.faulty == "none"
    assert found.two_sided.prior == {name: found.metrics[name] for name in found.two_sided.prior}
    assert found.two_sided.reconstruction.keys() == found.two_sided.prior.keys()
    assert found.two_sided.reconstruction["shape_error_percent"] == 0.0
    assert (found.two_sided.kl_by_dimension, found.two_sided.active_units) == ((1.5, 0.25, 0.0), 2)
    assert "2 of 3 latent dimensions are in use" in found.two_sided.sentence
    assert found.history == ({"step": 10, "loss": 2.0},)
    assert {column.reconstruction_error_percent for column in found.columns} == {0.0}


def test_prior_samples_alone_accuse_the_prior() -> None:
    found = judged(spoilt(rows(1500, 3)), rows(1500, 1)).two_sided
    assert found is not None
    assert found.faulty == "prior"
    assert found.prior["trend_error_percent"] > 10 > found.reconstruction["trend_error_percent"]
    assert "train.latent_dim" in found.sentence


def test_reconstructions_that_are_off_as_well_accuse_the_encoding_and_name_what_it_cannot_hold() -> None:
    found = judged(spoilt(rows(1500, 3)), spoilt(rows(1500, 1))).two_sided
    assert found is not None
    assert found.faulty == "encoding"
    assert "'kind', 'a'" in found.sentence


def test_a_collapsed_posterior_is_said_so() -> None:
    record = {"diagnosis": {"kl_by_dimension": [0.0, 0.0], "active_units": 0}}
    found = judged(rows(1500, 3), rows(1500, 1), record).two_sided
    assert found is not None
    assert "posterior collapse" in found.sentence


def test_without_a_model_there_is_one_side() -> None:
    found = judged(rows(500, 3), None, {})
    assert found.two_sided is None
    assert {column.reconstruction_error_percent for column in found.columns} == {None}


def test_reconstructions_must_have_the_columns() -> None:
    with pytest.raises(SchemaError, match="reconstructed rows lack column 'b'"):
        judged(rows(500, 3), rows(500, 3).drop_columns("b"))
