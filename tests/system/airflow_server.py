"""A complete Airflow on loopback, once a test session: SQLite, local executor, our plugin, our DAGs on a tiny table.

`tests/conftest.py` hands the fixture `airflow_server` to every test. It stops with the session, and with a killed one.
A folder `tests/system/dags` beside this file, where there is one, is served as well. What the servers say lies in
`AirflowServer.logs`; VAE_OPS_KEEP_AIRFLOW=DIRECTORY puts it, and all else, where it survives the tests.
"""

import dataclasses
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vae_ops.settings import GateSettings

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "scripts") not in sys.path:  # scripts import each other by their bare names, as `make` runs them
    sys.path.append(str(ROOT / "scripts"))

from airflow_api import AirflowApi, ApiError  # noqa: E402
from local_airflow import airflow_environment, is_healthy, local_services, migrate, server_environment  # noqa: E402
from service_group import ServiceGroup  # noqa: E402

__all__ = [
    "ANY_GATE",
    "TINY",
    "AirflowApi",
    "AirflowServer",
    "ApiError",
    "airflow_server",
    "free_port",
    "write_tiny_table",
]

PASSWORDS = {"admin": "admin-of-tests", "op": "op-of-tests", "user": "user-of-tests", "viewer": "viewer-of-tests"}
"""The users of the server by name, which is their role as well."""

_START_SECONDS = 240
_NIGHT = "nightly_augmentation"

TINY: dict[str, Any] = {"train": {"steps": 30, "hidden_units": 16}}
"""Settings of a run that trains for a moment only."""


_LIMITS = [field.name for field in dataclasses.fields(GateSettings) if field.name.startswith("max_")]
ANY_GATE: dict[str, Any] = {"gate": dict.fromkeys(_LIMITS, "off")}
"""Settings of a gate that lets everything pass."""


@dataclass(frozen=True)
class AirflowServer:
    """A running Airflow.

    Attributes:
        api: Its REST API.
        home: Its AIRFLOW_HOME.
        source: The tiny table that `nightly_augmentation` learns from unless told otherwise.
        output: Where its snapshots go unless told otherwise.
        first_night: Id of the run of `nightly_augmentation` that the server began with, on the tiny table, with the
            settings TINY and ANY_GATE.
        logs: Directory of the logs of its components.
        environment: What its components run in.
        services: Its components.
    """

    api: AirflowApi
    home: Path
    source: Path
    output: Path
    first_night: str
    logs: Path
    environment: dict[str, str]
    services: ServiceGroup

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return self.api.url

    def wait_for_run(self, dag_id: str, run_id: str, seconds: float = 240) -> str:
        """Waits for a run to end and returns its state; `up_for_retry` if a task failed and would wait for minutes."""
        what = f"end of {dag_id} {run_id}"
        return str(self.services.wait_until(lambda: self.api.outcome(dag_id, run_id), seconds, what))

    def wait_for_task(self, dag_id: str, run_id: str, task_id: str, states: set[str], seconds: float = 120) -> str:
        """Waits for (all instances of) a task to be in one of some states and returns the last one's."""

        def state() -> str:
            found = self.api.states(dag_id, run_id).get(task_id, [])
            return found[-1] if found and set(found) <= states else ""

        return str(self.services.wait_until(state, seconds, f"{task_id} in {sorted(states)}"))


def free_port() -> int:
    """A port of loopback on which nobody listens just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_tiny_table(path: Path, rows: int = 400) -> Path:
    """Four columns, and a label that can be learned from them."""
    rng = np.random.default_rng(0)
    amount = rng.lognormal(3, 1, rows)
    columns = {
        "id": pa.array(range(rows)),
        "amount": pa.array(amount, mask=rng.random(rows) < 0.05),
        "kind": pa.array(rng.choice(["a", "b"], rows)).dictionary_encode(),
        "large": pa.array(amount + rng.normal(0, 5, rows) > 25),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def _collect_dags(target: Path) -> Path:
    """Copies, so that what Airflow or Python leave beside DAG files stays out of the checkout."""
    for folder in (ROOT / "dags", Path(__file__).with_name("dags")):
        if folder.is_dir():
            shutil.copytree(folder, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return target


@pytest.fixture(scope="session")
def airflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    """A running Airflow with the DAGs of `dags/`, unpaused, for all system tests of the session."""
    kept = os.environ.get("VAE_OPS_KEEP_AIRFLOW")
    root = Path(kept).resolve() if kept else tmp_path_factory.mktemp("airflow")
    home, port = root / "home", free_port()
    home.mkdir(parents=True)
    source, output = write_tiny_table(root / "data" / "table.parquet"), root / "data" / "augmented"
    (home / "passwords.json").write_text(json.dumps(PASSWORDS))
    environment = airflow_environment(
        home,
        _collect_dags(root / "dags"),
        **server_environment(port),
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=",".join(f"{name}:{name}" for name in PASSWORDS),
        AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(home / "passwords.json"),
        AIRFLOW__CORE__PARALLELISM="4",
        VAE_OPS_SOURCE=str(source),
        VAE_OPS_OUTPUT=str(output),
    )
    migrate(environment)
    api = AirflowApi(f"http://127.0.0.1:{port}", PASSWORDS)
    with ServiceGroup(local_services(port, environment), root / "logs", stop_seconds=5) as services:
        services.wait_until(lambda: is_healthy(api.url), _START_SECONDS, "healthy Airflow")
        services.wait_until(lambda: _has_parsed(api, root / "dags"), _START_SECONDS, "parsed DAGs")
        first_night = api.start_due_run(_NIGHT, rows=100, settings=TINY | ANY_GATE)
        for dag_id in api.dags():
            api.unpause(dag_id)
        yield AirflowServer(api, home, source, output, first_night, root / "logs", environment, services)


def _has_parsed(api: AirflowApi, dags: Path) -> bool:
    return {dag["fileloc"] for dag in api.dags().values()} >= {str(path) for path in dags.glob("*.py")}
