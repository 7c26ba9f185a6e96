"""A complete Airflow on this machine alone: its environment, its database, its servers on loopback.

`demo.py` runs the DAGs without a server; `ui.py` and the system tests start the servers, which `service_group.py` holds
together. By default all of it lies in this checkout: the metadata below `.airflow/`, the tables below `demo/`.
"""

import json
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service_group import Service

__all__ = [
    "DATA",
    "HOME",
    "ROOT",
    "airflow_environment",
    "configure",
    "is_healthy",
    "local_services",
    "migrate",
    "provide_source",
    "server_environment",
    "write_bundled_table",
]

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".airflow"
DATA = ROOT / "demo"

_COMPONENTS = {
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}


def airflow_environment(home: Path, dags: Path, **more: str) -> dict[str, str]:
    """Environment of a process that is to find the Airflow of one directory, without what this process has of another.

    Args:
        home: Airflow's home; its SQLite database lies there.
        dags: Folder with DAG files.
        more: Further variables.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW_")}
    return {
        **inherited,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),  # the plugin comes in by its entry point: one door only
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        **more,
    }


def server_environment(port: int) -> dict[str, str]:
    """What the servers of one Airflow must agree on, for `airflow_environment`; its signing key is new each time."""
    url = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
    }


def local_services(port: int, environment: Mapping[str, str]) -> list[Service]:
    """Airflow's components with the local executor.

    `airflow standalone` would leave children behind on SIGTERM and open its log servers to the network.
    """
    api_server = {"api-server": ("api-server", "--host", "127.0.0.1", "--port", str(port))}
    return [
        Service(name, (sys.executable, "-m", "airflow", *arguments), environment)
        for name, arguments in (api_server | _COMPONENTS).items()
    ]


def is_healthy(url: str) -> bool:
    """Whether the API server answers and has heard of all other components."""
    try:
        with urllib.request.urlopen(f"{url}/api/v2/monitor/health", timeout=5) as response:
            health: dict[str, Any] = json.load(response)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return all(health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor", "triggerer"))


def migrate(environment: Mapping[str, str] | None = None) -> None:
    """Makes or updates the database; quick when there is nothing to do.

    Args:
        environment: Of the Airflow that is meant; None is that of this process.
    """
    environment = os.environ if environment is None else environment
    Path(environment["AIRFLOW_HOME"]).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, env=environment, check=False, **pipes)
    if done.returncode != 0:
        sys.exit(f"airflow db migrate failed:\n{done.stdout}")


def configure(source: str, **more: str) -> None:
    """Points this process, and those it starts, at the project's Airflow; call it before importing airflow."""
    output = str(DATA / f"{Path(source).stem}_augmented")
    os.environ.update(airflow_environment(HOME, ROOT / "dags", VAE_OPS_SOURCE=source, VAE_OPS_OUTPUT=output, **more))


def provide_source() -> str:
    """Path of the table to augment: what SOURCE names, or a table that comes with scikit-learn, as Parquet."""
    if named := os.environ.get("SOURCE"):
        return named if "://" in named else os.path.abspath(named)
    return str(write_bundled_table())


def write_bundled_table(directory: Path = DATA / "source") -> Path:
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
