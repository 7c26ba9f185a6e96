"""The gate says no where it must, and for the reason that holds; and it does not say no for noise."""

import dataclasses
import datetime
import decimal
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vae_ops.errors import SchemaError
from vae_ops.settings import GateSettings
from vae_ops.validation import Validation, judge

SETTINGS = GateSettings()
FIDELITY = ["c2st_auc", "column_error_percent", "dependence_error_percent", "mean_shift_sd", "pair_error_percent"]
FIDELITY += ["shape_error_percent", "trend_error_percent"]
OFF: dict[str, Any] = dict.fromkeys(f.name for f in dataclasses.fields(GateSettings) if f.name.startswith("max_"))
# Trees and attacks take seconds; where a test is not about them they are left out.
QUICK = GateSettings(**OFF | {f"max_{name}": getattr(SETTINGS, f"max_{name}") for name in FIDELITY[1:]})
FAITHFUL = dataclasses.replace(QUICK, max_c2st_auc=SETTINGS.max_c2st_auc)


def customers(rows: int, seed: int) -> pa.Table:
    """Rows of one population: an identifier, dependent numbers and categories, dates and gaps."""
    generator = np.random.default_rng(seed)
    age = generator.gamma(9.0, 5.0, rows).round(1)
    income = np.exp(0.02 * age + generator.normal(7.0, 0.3, rows)).round(2)
    plan = np.where(income > 2500, "gold", np.where(age > 40, "silver", "basic"))
    noisy = generator.random(rows) < 0.1
    plan[noisy] = generator.choice(["gold", "silver", "basic"], noisy.sum())
    days = (generator.integers(0, 900, rows) + 19_000).astype("datetime64[D]")
    return pa.table(
        {
            "key": [f"{number:016x}" for number in generator.integers(0, 2**62, rows)],
            "age": age,
            "income": pa.array(income, mask=generator.random(rows) < 0.05),
            "plan": plan,
            "since": days,
        }
    )


def shuffled(table: pa.Table) -> pa.Table:
    generator = np.random.default_rng(0)
    return pa.table([column.take(generator.permutation(len(column))) for column in table.columns], table.column_names)


@pytest.fixture(scope="module")
def real() -> tuple[pa.Table, pa.Table]:
    return customers(2700, 1), customers(300, 2)


def test_passes_real_rows(real: tuple[pa.Table, pa.Table]) -> None:
    result = judge(*real, customers(3000, 3), SETTINGS)
    assert result.verdict == "pass"
    assert all(finding.verdict == "pass" and finding.remedy == "" for finding in result.findings)
    assert result.privacy is not None
    assert result.privacy.copy_percent == 0.0
    for metric in FIDELITY:
        assert result.metrics[metric] <= result.noise_floor[metric] < result.limits[metric], metric


def test_fails_columns_shuffled_one_by_one_and_names_the_dependence(real: tuple[pa.Table, pa.Table]) -> None:
    result = judge(*real, shuffled(customers(3000, 3)), SETTINGS)
    assert result.verdict == "fail"
    reasons = {finding.metric: finding for finding in result.findings[:3]}
    assert set(reasons) == {"dependence_error_percent", "trend_error_percent", "c2st_auc"}
    assert reasons["dependence_error_percent"].columns[:2] == ("income", "plan")
    assert "worst 'income' with 'plan'" in reasons["trend_error_percent"].sentence
    assert "how columns depend on each other, most" in reasons["c2st_auc"].sentence
    assert all(bool(finding.remedy) == (finding.verdict != "pass") for finding in reasons.values())


def test_fails_copies_even_under_fresh_identifiers(real: tuple[pa.Table, pa.Table]) -> None:
    training = real[0]
    copies = training.set_column(0, "key", customers(training.num_rows, 9)["key"])
    result = judge(*real, copies, SETTINGS)
    assert result.verdict == "fail"
    assert result.findings[0].aspect == "privacy"
    assert any("100.0 % of the synthetic rows equal a training row" in reason for reason in result.reasons)
    assert result.metrics["shape_error_percent"] == 0.0


def test_fails_a_column_of_another_shape_and_names_it_first(real: tuple[pa.Table, pa.Table]) -> None:
    synthetic = customers(3000, 3)
    late = synthetic.set_column(4, "since", pa.array([datetime.date(2031, 1, 1)] * 3000))
    result = judge(*real, late, QUICK)
    assert result.verdict == "fail"
    assert result.columns[0].column == "since"
    assert (result.columns[0].error_percent, result.columns[0].verdict) == (100.0, "fail")
    named = {finding.metric: finding.columns for finding in result.findings}
    assert named["column_error_percent"] == named["mean_shift_sd"] == ("since",)


@pytest.mark.parametrize("deviations", [0.2, -0.2])
@pytest.mark.parametrize("column", ["age", "income"])
def test_fails_a_moved_mean_and_names_the_column(
    real: tuple[pa.Table, pa.Table], column: str, deviations: float
) -> None:
    synthetic = customers(3000, 3)
    values = synthetic[column].to_numpy()
    moved = pa.array(values + deviations * np.nanstd(values), from_pandas=True)
    result = judge(*real, synthetic.set_column(synthetic.column_names.index(column), column, moved), QUICK)
    assert result.verdict != "pass"
    shift = next(finding for finding in result.findings if finding.metric == "mean_shift_sd")
    assert shift.columns == (column,)
    assert f"deviations {'higher' if deviations > 0 else 'lower'}" in shift.sentence
    assert repr(column) in shift.remedy
    assert {found.column: found.verdict for found in result.columns}["plan"] == "pass"


def test_fails_lost_nulls(real: tuple[pa.Table, pa.Table]) -> None:
    synthetic = customers(3000, 3)
    empty = synthetic.set_column(2, "income", pa.nulls(3000, pa.float64()))
    result = judge(*real, empty, QUICK)
    assert result.verdict == "fail"
    assert result.columns[0].column == "income"
    assert result.columns[0].error_percent == pytest.approx(95.0, abs=2.0)
    assert result.columns[0].null_percent_synthetic == 100.0


@pytest.mark.parametrize("rows", [2, 5, 20, 60])
def test_small_tables_do_not_fail_by_noise(rows: int) -> None:
    held_out = max(1, rows // 10)
    for seed in range(5):
        pool = customers(2 * rows, 100 + seed)
        training, holdout = pool.slice(held_out, rows - held_out), pool.slice(0, held_out)
        result = judge(training, holdout, pool.slice(rows), SETTINGS if seed == 0 else QUICK, seed=seed)
        assert result.verdict == "pass", result.reasons


def test_a_small_table_of_copies_still_fails() -> None:
    training = customers(18, 1)
    assert judge(training, customers(2, 2), training, SETTINGS).verdict == "fail"


def test_chance_copies_of_a_coarse_table_are_no_copies() -> None:
    generator = np.random.default_rng(0)
    parts = [pa.table({"a": generator.random(n) < 0.4, "b": generator.choice(["x", "y"], n)}) for n in (900, 100, 1000)]
    result = judge(*parts, SETTINGS)
    assert result.verdict == "pass"
    assert result.privacy is not None
    assert (result.privacy.copy_percent, result.metrics["copy_excess_percent"]) == (100.0, 0.0)


def test_the_limits_are_the_settings(real: tuple[pa.Table, pa.Table]) -> None:
    synthetic = shuffled(customers(3000, 3))
    lax = GateSettings(**OFF | {"max_c2st_auc": 1.0})
    found = judge(*real, synthetic, lax)
    assert (found.verdict, list(found.metrics)) == ("pass", ["c2st_auc"])
    auc, noise = found.metrics["c2st_auc"], found.noise_floor["c2st_auc"]
    limit = (auc + 0.25 * noise) / 1.25
    between = GateSettings(**OFF | {"max_c2st_auc": limit})
    assert judge(*real, synthetic, between).verdict == "borderline"


def test_a_limit_of_zero_allows_noise_and_nothing_else(real: tuple[pa.Table, pa.Table]) -> None:
    nothing = {f"max_{name}_error_percent": 0.0 for name in ("shape", "column", "trend", "pair", "dependence")}
    strict = dataclasses.replace(QUICK, **nothing, max_mean_shift_sd=0.0)
    synthetic = customers(3000, 3)
    gilded = synthetic.slice(0, 700).set_column(3, "plan", pa.array(["gold"] * 700))
    flawed = pa.concat_tables([synthetic.slice(700), gilded])
    assert judge(*real, synthetic, strict).verdict == "pass"
    assert judge(*real, flawed, QUICK).verdict == "pass"
    assert judge(*real, flawed, strict).verdict == "fail"


def test_a_metric_that_is_switched_off_is_not_judged(real: tuple[pa.Table, pa.Table]) -> None:
    synthetic = shuffled(customers(3000, 3))
    for name in FIDELITY:
        off = dataclasses.replace(FAITHFUL, **{f"max_{name}": None})
        assert sorted(set(FIDELITY) - set(judge(*real, synthetic, off).metrics)) == [name]
    nothing = judge(*real, synthetic, GateSettings(**OFF))
    assert (nothing.verdict, nothing.findings, nothing.c2st, nothing.privacy) == ("pass", (), None, None)
    assert len(nothing.columns) == 4


def test_a_multiple_of_the_floor_tightens_all_limits(real: tuple[pa.Table, pa.Table]) -> None:
    loose, tight = (
        judge(*real, customers(3000, 3), dataclasses.replace(QUICK, noise_multiple=times)) for times in (4.0, 1.0)
    )
    assert tight.noise_floor == loose.noise_floor
    assert all(tight.limits[name] <= loose.limits[name] for name in FIDELITY[1:])
    assert tight.limits["shape_error_percent"] < loose.limits["shape_error_percent"]


def test_same_rows_and_seed_give_the_same_result(real: tuple[pa.Table, pa.Table]) -> None:
    synthetic = customers(1000, 3)
    assert judge(*real, synthetic, SETTINGS, seed=4) == judge(*real, synthetic, SETTINGS, seed=4)


def test_a_large_table_is_sampled_and_that_is_on_record() -> None:
    small = GateSettings(sample_rows=400)
    result = judge(customers(900, 1), customers(300, 2), customers(1000, 3), small)
    assert (result.sizes["rows_training"], result.sizes["rows_training_judged"]) == (900, 400)
    assert (result.sizes["rows_synthetic"], result.sizes["rows_synthetic_judged"]) == (1000, 400)


def test_a_wide_table_is_judged_on_a_sample_of_pairs() -> None:
    generator = np.random.default_rng(0)
    training, holdout, synthetic = (
        pa.table({f"c{index}": generator.normal(size=rows) for index in range(60)}) for rows in (180, 20, 200)
    )
    result = judge(training, holdout, synthetic, QUICK)
    assert (result.sizes["pairs"], result.sizes["pairs_judged"]) == (1770, 1000)
    assert result.verdict == "pass"


def test_identifiers_are_not_compared(real: tuple[pa.Table, pa.Table]) -> None:
    result = judge(*real, customers(3000, 3), QUICK)
    assert [column.column for column in result.columns if column.column == "key"] == []
    assert (result.sizes["columns"], result.sizes["columns_judged"]) == (5, 4)


def test_a_table_of_identifiers_only_is_judged_by_its_copies() -> None:
    keys = customers(400, 1).select(["key"])
    assert judge(keys.slice(0, 180), keys.slice(180, 20), keys.slice(200), SETTINGS).verdict == "pass"
    assert judge(keys.slice(0, 180), keys.slice(180, 20), keys.slice(0, 180), SETTINGS).verdict == "fail"


def test_no_synthetic_rows_leave_nothing_to_judge(real: tuple[pa.Table, pa.Table]) -> None:
    result = judge(*real, real[0].slice(0, 0), SETTINGS)
    assert (result.verdict, result.metrics) == ("pass", {"rows_synthetic": 0.0})
    assert "no synthetic rows" in result.reasons[0]


def test_a_missing_column_is_named(real: tuple[pa.Table, pa.Table]) -> None:
    with pytest.raises(SchemaError, match="synthetic rows lack column 'plan'"):
        judge(*real, customers(10, 3).drop_columns("plan"), QUICK)


def test_a_column_of_another_type_is_named(real: tuple[pa.Table, pa.Table]) -> None:
    synthetic = customers(10, 3)
    with pytest.raises(SchemaError, match="Column 'age' of the synthetic rows should hold double"):
        judge(*real, synthetic.set_column(1, "age", synthetic["plan"]), QUICK)


def test_columns_beyond_the_training_rows_are_ignored(real: tuple[pa.Table, pa.Table]) -> None:
    labelled = customers(3000, 3).append_column("_is_synthetic", pa.array([True] * 3000))
    assert judge(*real, labelled, QUICK) == judge(*real, customers(3000, 3), QUICK)


def test_names_are_data() -> None:
    nasty = "<script>alert(1)</script>\n'\"" + "x" * 5000
    training, holdout = (pa.table({nasty: np.arange(n) % 7.0, "": np.arange(n) % 3}) for n in (180, 20))
    synthetic = pa.table({nasty: np.full(200, 99.0), "": np.zeros(200, np.int64)})
    result = judge(training, holdout, synthetic, QUICK)
    assert result.columns[0].column == nasty
    assert all("\n" not in reason and len(reason) < 600 for reason in result.reasons)


def test_result_is_plain_json(real: tuple[pa.Table, pa.Table]) -> None:
    result = judge(*real, customers(500, 3), SETTINGS)
    values: dict[str, Any] = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert sorted(values["noise_floor"]) == sorted(values["limits"]) == sorted(values["metrics"])
    assert set(FIDELITY) | {"copy_excess_percent"} <= set(values["metrics"])
    assert values["reasons"] == [finding["sentence"] for finding in values["findings"][:3]]
    errors = [column["error_percent"] for column in values["columns"]]
    assert errors == sorted(errors, reverse=True)


def every_type(rows: int, seed: int) -> pa.Table:
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 50, rows)
    texts = [f"level {value % 5}" for value in small]
    floats = generator.normal(size=rows)
    floats[:2] = np.nan
    gaps = pa.array([None if value < 5 else int(value) for value in small], pa.int64())
    start = datetime.datetime(1960, 1, 1, tzinfo=datetime.UTC)
    return pa.table(
        {
            "int8": pa.array(small, pa.int8()),
            "uint64": pa.array(2**64 - 1 - small.astype(np.uint64), pa.uint64()),
            "near 2**63": pa.array(2**63 - 1 - small.astype(np.int64), pa.int64()),
            "gaps": gaps,
            "half": pa.array(floats.astype(np.float16), pa.float16()),
            "float": pa.array(floats, from_pandas=False),
            "decimal32": pa.array([decimal.Decimal(int(v)) / 4 for v in small], pa.decimal32(7, 2)),
            "decimal256": pa.array([decimal.Decimal(int(v)) / 4 for v in small], pa.decimal256(76, 4)),
            "bool": pa.array(small % 2 == 0),
            "string": pa.array(texts),
            "view": pa.array(texts, pa.string_view()),
            "binary": pa.array([text.encode() for text in texts], pa.large_binary()),
            "dictionary": pa.array(texts).dictionary_encode(),
            "number dictionary": pa.array(small).dictionary_encode(),
            "date32": pa.array(small, pa.int32()).cast(pa.date32()),
            "date after 2262": pa.array(small + 200_000, pa.int32()).cast(pa.date32()).cast(pa.date64()),
            "time32": pa.array(small, pa.int32()).cast(pa.time32("s")),
            "time64": pa.array(small * 10**9).cast(pa.time64("ns")),
            "zoned": pa.array([start + datetime.timedelta(hours=int(v)) for v in small], pa.timestamp("us", "UTC")),
            "nanoseconds": pa.array(small + 10**18).cast(pa.timestamp("ns")),
            "duration": pa.array(small).cast(pa.duration("ms")),
            "null": pa.nulls(rows),
            "all null": pa.nulls(rows, pa.string()),
            "constant": pa.array([3] * rows),
            "key": [f"{number:x}" for number in generator.integers(0, 2**62, rows)],
        }
    )


def test_every_type_is_judged() -> None:
    result = judge(every_type(540, 1), every_type(60, 2), every_type(600, 3), SETTINGS)
    assert result.verdict == "pass", result.reasons
    assert result.sizes["columns_judged"] == 24
    assert isinstance(result, Validation)


@pytest.mark.parametrize("name", every_type(2, 0).drop_columns(["key", "null"]).column_names)
def test_a_spoilt_column_of_any_type_is_the_worst(name: str) -> None:
    training, holdout, synthetic = every_type(180, 1), every_type(20, 2), every_type(200, 3)
    column, index = training[name], synthetic.column_names.index(name)
    nothing_known = column.null_count == len(column)
    spoilt = pa.array(["here"] if nothing_known else [9 if name == "constant" else column[7].as_py()], column.type)
    result = judge(training, holdout, synthetic.set_column(index, name, pa.chunked_array([spoilt] * 200)), QUICK)
    assert result.columns[0].column == name
