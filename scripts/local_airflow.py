"""An Airflow for this checkout alone: SQLite below `.airflow/`, data below `demo/`, nothing outside the project.

`demo.py` runs the DAGs in it without a server; `ui.py` starts its servers.
"""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["DATA", "HOME", "ROOT", "configure", "migrate", "provide_source"]

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".airflow"
DATA = ROOT / "demo"


def configure(source: str, **more: str) -> None:
    """Points this process, and those it starts, at the project's Airflow; call it before importing airflow."""
    os.environ.update(
        AIRFLOW_HOME=str(HOME),
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
        AIRFLOW__CORE__PLUGINS_FOLDER=str(HOME / "plugins"),  # the plugin comes in by its entry point: one door only
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{HOME / 'airflow.db'}",
        VAE_OPS_SOURCE=source,
        VAE_OPS_OUTPUT=str(DATA / f"{Path(source).stem}_augmented"),
        **more,
    )


def migrate() -> None:
    """Makes or updates the database; quick when there is nothing to do."""
    HOME.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"airflow db migrate failed:\n{done.stdout}")


def provide_source() -> str:
    """Path of the table to augment: what SOURCE names, or a table that comes with scikit-learn, as Parquet."""
    if named := os.environ.get("SOURCE"):
        return named if "://" in named else os.path.abspath(named)
    return str(_write_bundled_table(DATA / "source"))


def _write_bundled_table(directory: Path) -> Path:
    """1,797 handwritten digits, 8 × 8 pixels each: the largest table that scikit-learn brings along."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = {name: digits.data[:, i].astype("int8") for i, name in enumerate(digits.feature_names)}
    path = directory / "digits.parquet"
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**pixels, "digit": digits.target.astype("int8")}), path)
    return path
