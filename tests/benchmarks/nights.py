"""Nights in a row: what a nightly run decides when its source moves, what that costs, and what the rows are worth.

    python tests/benchmarks/nights.py stream     twelve nights of a table that drifts, grows and breaks
    python tests/benchmarks/nights.py chain      ten refreshes in a row, beside a model trained from nothing
    python tests/benchmarks/nights.py bad        a challenger trained for one step, against a champion

Each night is one `vae-ops augment` in a process of its own, on a natural sample of the table; one JSON line a night
goes to stdout, a table to stderr. Columns that move are the first two numbers; a new category goes into the first text.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
METRICS = ("shape_error_percent", "trend_error_percent", "c2st_auc")
Change = Callable[[pa.Table], pa.Table]


def natural(table: pa.Table, rows: int, night: int) -> pa.Table:
    """Rows of one night: a sample without replacement."""
    chosen = np.random.default_rng([night, 1]).choice(len(table), min(rows, len(table)), replace=False)
    return table.take(np.sort(chosen))


def drifting_columns(table: pa.Table) -> list[str]:
    """The two number columns with the fewest ties at their most frequent value, as ties move all at once."""
    numbers = [f.name for f in table.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    ties = {name: np.unique(table[name].to_numpy(), return_counts=True)[1].max() for name in numbers}
    return sorted(numbers, key=lambda name: (ties[name], name))[:2]


def scaled(names: list[str], factor: float) -> Change:
    """Ten percent more in some columns."""

    def change(table: pa.Table) -> pa.Table:
        for name in names:
            field = table.schema.field(name)
            moved = table[name].to_numpy() * factor
            moved = np.round(moved) if pa.types.is_integer(field.type) else moved
            array = pa.array(moved).cast(field.type)
            table = table.set_column(table.schema.get_field_index(name), field, array)
        return table

    return change


def with_category(name: str, value: str, share: float) -> Change:
    """A category never seen before, in a share of the rows."""

    def change(table: pa.Table) -> pa.Table:
        column = np.asarray(table[name].to_pylist(), dtype=object)
        column[np.random.default_rng(0).random(len(column)) < share] = value
        field = table.schema.field(name)
        return table.set_column(table.schema.get_field_index(name), field, pa.array(column.tolist(), field.type))

    return change


def with_column(table: pa.Table) -> pa.Table:
    """One column more, which depends on another."""
    first = table[drifting_columns(table)[0]].to_numpy().astype(np.float64)
    noise = np.random.default_rng(1).normal(size=len(first))
    return table.append_column("grade", pa.array(np.digitize(first / first.std() + noise, [-1.0, 0.0, 1.0, 2.0])))


def with_nulls(name: str, share: float) -> Change:
    """A broken upstream."""

    def change(table: pa.Table) -> pa.Table:
        mask = np.random.default_rng(2).random(len(table)) < share
        column = table[name].combine_chunks()
        emptied = pa.array([None if gone else value for gone, value in zip(mask, column.to_pylist(), strict=True)])
        return table.set_column(table.schema.get_field_index(name), name, emptied.cast(column.type))

    return change


def stream(table: pa.Table) -> Iterator[tuple[str, list[Change]]]:
    """What each of the twelve nights is made of; what has moved stays, but for the broken night."""
    moving = drifting_columns(table)
    text = next(f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type))
    drift, category = scaled(moving, 1.1), with_category(text, "Never seen", 0.03)
    yield "first night", []
    yield "quiet", []
    yield "quiet", []
    yield f"10 % more {' and '.join(moving)}", [drift]
    yield "quiet", [drift]
    yield f"a new category of {text}", [drift, category]
    yield "quiet", [drift, category]
    yield f"40 % nulls in {moving[0]}", [drift, category, with_nulls(moving[0], 0.4)]
    yield "quiet", [drift, category]
    yield "a new column", [drift, category, with_column]
    yield "quiet", [drift, category, with_column]
    yield "quiet", [drift, category, with_column]


def augment(source: pa.Table, directory: Path, output: Path, *options: str) -> dict[str, Any]:
    """One night; what it printed, or what it refused."""
    path = directory / "tonight.parquet"
    pq.write_table(source, path)
    command = [str(Path(sys.executable).with_name("vae-ops")), "augment", str(path), str(output), "--json", *options]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = round(time.monotonic() - begin, 1)
    if done.returncode:
        return {"exit": done.returncode, "seconds": seconds, "said": done.stderr.strip().splitlines()[-1]}
    found = json.loads(done.stdout)
    report = json.loads(Path(found["report_path"]).with_name("_report.json").read_text())
    intervals = {f["metric"]: f["interval"] for f in report["findings"] if f["metric"] in METRICS}
    return {
        "decision": found["decision"],
        "reason": found["reason"],
        "verdict": found["verdict"],
        "model": found["model_version"][:8],
        "seconds": seconds,
        "train_seconds": found["seconds"]["train"],
        "scores": {name: round(found["metrics"][name], 4) for name in METRICS},
        "intervals": intervals,
        "trial": (report.get("refresh") or {}).get("trial"),
    }


def show(night: str, what: str, found: dict[str, Any]) -> None:
    """One line for people, one for machines."""
    scores = "  ".join(f"{name} {value:.3f}" for name, value in found.get("scores", {}).items())
    decided = found.get("decision") or f"stopped ({found['exit']})"
    facts = f"{found['seconds']:6.1f} s  {found.get('train_seconds', 0.0):6.1f} s train"
    said = found.get("reason") or found["said"]
    sys.stderr.write(f"{night:>8}  {what:<42} {decided:<12} {facts}  {found.get('verdict', ''):<10} {scores}\n")
    sys.stderr.write(f"{'':>10}{said}\n")
    print(json.dumps({"night": night, "what": what, **found}), flush=True)


def run_stream(table: pa.Table, arguments: argparse.Namespace, directory: Path) -> None:
    """Twelve nights; every refresh and retrain after the first beside the same night trained from nothing."""
    options = ["--time-budget", str(arguments.time_budget)]
    for night, (what, changes) in enumerate(stream(table), start=1):
        source = natural(table, arguments.rows, night)
        for change in changes:
            source = change(source)
        found = augment(source, directory, directory / "out", *options)
        show(str(night), what, found)
        if found.get("decision") == "refresh":
            fresh = augment(source, directory, directory / f"fresh{night}", *options)
            fresh["ratio_of_seconds"] = round(found["seconds"] / fresh["seconds"], 3)
            fresh["ratio_of_train_seconds"] = round(found["train_seconds"] / fresh["train_seconds"], 3)
            show(f"{night} anew", f"{fresh['ratio_of_train_seconds']:.2f} of its training time", fresh)


def run_chain(table: pa.Table, arguments: argparse.Namespace, directory: Path) -> None:
    """Refreshes in a row, forced, and the last night trained from nothing with three seeds."""
    options = ["--time-budget", str(arguments.time_budget)]
    show(
        "1", "trained from nothing", augment(natural(table, arguments.rows, 1), directory, directory / "out", *options)
    )
    for night in range(2, 12):
        source = natural(table, arguments.rows, night)
        found = augment(source, directory, directory / "out", *options, "--refresh", "refresh")
        show(str(night), f"refresh {night - 1}", found)
    for seed in ("0", "1", "2"):
        found = augment(source, directory, directory / f"fresh{seed}", *options, "--set", f"train.seed={seed}")
        show("11 anew", f"trained from nothing, seed {seed}", found)


def run_bad(table: pa.Table, arguments: argparse.Namespace, directory: Path) -> None:
    """A champion, and challengers that were trained for one step."""
    options = ["--time-budget", str(arguments.time_budget)]
    show("1", "champion", augment(natural(table, arguments.rows, 1), directory, directory / "out", *options))
    for night in (2, 3):
        source = natural(table, arguments.rows, night)
        found = augment(source, directory, directory / "out", "--refresh", "retrain", "--set", "train.steps=1")
        show(str(night), "challenger trained for one step", found)


def main() -> None:
    """Reads the arguments and runs one of the series."""
    series = {"stream": run_stream, "chain": run_chain, "bad": run_bad}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("series", choices=series)
    parser.add_argument("--table", type=Path, default=ROOT.parent / "shared/tables/adult/train.parquet")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--time-budget", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        series[arguments.series](pq.read_table(arguments.table), arguments, Path(directory))


if __name__ == "__main__":
    main()
