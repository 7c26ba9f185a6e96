"""`make bench`: what the whole command achieves on public tables, and what parsing the DAGs costs.

For every table and seed `vae-ops augment` runs once and its synthetic rows are scored by a script that knows nothing of
this project. One JSON object goes to stdout: the median over the seeds of every score and time; progress to stderr.

A table is a directory with `train.parquet`, `test.parquet` and `info.json` (what the scoring script needs to know).
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"

PARSE = """
import json, sys, time
import airflow.sdk
started = time.perf_counter()
sys.path.insert(0, sys.argv[1])
import nightly_augmentation, train_on_augmented
print(json.dumps({"seconds": time.perf_counter() - started}))
"""


def main() -> None:
    """Runs everything that the arguments ask for."""
    options = _parse_arguments()
    names = options.tables or sorted(path.parent.name for path in options.folder.glob("*/info.json"))
    absent = [path for path in (options.score, *(options.folder / name for name in names)) if not path.exists()]
    if absent or not names:
        sys.exit(f"{(absent or [options.folder])[0]} holds nothing to measure with: say --folder and --score.")
    scores = {name: _median([_run(options, name, seed) for seed in options.seeds]) for name in names}
    parse = _median([_run_json([sys.executable, "-c", PARSE, str(ROOT / "dags")]) for _ in range(3)])
    print(json.dumps({"tables": scores, "dag_parse_seconds_over_airflow": parse["seconds"]}, indent=1))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="names of tables (default: all)")
    parser.add_argument("--folder", type=Path, default=SHARED / "tables", help="where the tables lie")
    parser.add_argument("--score", type=Path, default=SHARED / "score.py", help="scoring script, run by uv")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--time-budget", type=float, default=60.0, help="seconds of training")
    return parser.parse_args()


def _run(options: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    table = options.folder / name
    with tempfile.TemporaryDirectory(prefix="vae-ops-bench-") as scratch:
        command = [str(Path(sys.executable).with_name("vae-ops")), "augment", str(table / "train.parquet")]
        command += [
            f"{scratch}/out",
            "--ratio",
            "1",
            "--seed",
            str(seed),
            "--time-budget",
            str(options.time_budget),
            "--json",
        ]
        started = time.perf_counter()
        result = _run_json(command)
        seconds = time.perf_counter() - started
        synthetic = _synthetic_rows(result["snapshot_path"], Path(scratch) / "synthetic.parquet")
        scores = _score(options.score, table, synthetic)
    by_step = {f"seconds_{step}": value for step, value in result["seconds"].items()}
    print(f"{name} seed {seed}: {json.dumps(scores)} in {seconds:.0f} s", file=sys.stderr, flush=True)
    return {**scores, **by_step, "seconds_command": seconds}


def _synthetic_rows(snapshot: str, path: Path) -> Path:
    rows = pq.read_table(snapshot)
    pq.write_table(rows.filter(pc.field("_is_synthetic")).drop_columns(["_is_synthetic"]), path)
    return path


def _score(script: Path, table: Path, synthetic: Path) -> dict[str, float]:
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    files = [table / "info.json", table / "train.parquet", table / "test.parquet", synthetic]
    return _numbers(_run_json([uv, "run", "--quiet", "--script", str(script), *map(str, files)]))


def _run_json(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    value: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return value


def _numbers(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """All numbers of a result, those of inner objects under joined names such as `mle_auc`."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _numbers(value, f"{prefix}{name}_")
        elif isinstance(value, int | float):
            found[prefix + name] = value
    return found


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: round(statistics.median(run[name] for run in runs), 4) for name in shared}


if __name__ == "__main__":
    main()
