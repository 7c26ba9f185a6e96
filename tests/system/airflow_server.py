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
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
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
_ENDED = ("success", "failed")
_COMPLAINT_CHARACTERS = 3_000

TINY: dict[str, Any] = {"train": {"steps": 30, "hidden_units": 16}}
"""Settings of a run that trains for a moment only."""


_LIMITS = [field.name for field in dataclasses.fields(GateSettings) if field.name.startswith("max_")]
ANY_GATE: dict[str, Any] = {"gate": dict.fromkeys(_LIMITS, "off")}
"""Settings of a gate that lets everything pass."""


class ApiError(Exception):
    """The REST API refused; `status` is its code."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body[:2000]}")
        self.status = status
        self.body = body


class AirflowApi:
    """The REST API of one server, for people with names and passwords.

    Args:
        url: Where it listens, without a path.
        passwords: By user.
    """

    def __init__(self, url: str, passwords: Mapping[str, str]) -> None:
        self.url = url
        self.passwords = passwords
        self._tokens: dict[str, str] = {}

    def token(self, user: str = "admin") -> str:
        """An access token, which is the value of `Authorization: Bearer …`."""
        if user not in self._tokens:
            body = {"username": user, "password": self.passwords[user]}
            self._tokens[user] = str(self._send("POST", "/auth/token", body, {})["access_token"])
        return self._tokens[user]

    def send(self, method: str, path: str, body: Any = None, *, user: str = "admin") -> Any:
        """One request below `/api/v2`, and the JSON that came back.

        Raises:
            ApiError: The status was not 2xx.
        """
        return self._send(method, f"/api/v2{path}", body, {"Authorization": f"Bearer {self.token(user)}"})

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode("utf-8", "replace")) from error
        return json.loads(text) if text else None

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Starts a run with these parameters and returns its id."""
        conf = {name: str(value) if isinstance(value, Path) else value for name, value in conf.items()}
        run = self.send("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """What the API says of one run."""
        found: dict[str, Any] = self.send("GET", f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}")
        return found

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs of a DAG, the newest first."""
        found: list[dict[str, Any]] = self.send("GET", f"/dags/{dag_id}/dagRuns?order_by=-id")["dag_runs"]
        return found

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of one run."""
        path = f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}/taskInstances"
        found: list[dict[str, Any]] = self.send("GET", path)["task_instances"]
        return found

    def states(self, dag_id: str, run_id: str) -> dict[str, list[str]]:
        """States of the tasks of one run by task id, mapped ones together."""
        found: dict[str, list[str]] = {}
        for task in self.tasks(dag_id, run_id):
            found.setdefault(task["task_id"], []).append(str(task["state"]))
        return found

    def outcome(self, dag_id: str, run_id: str) -> str:
        """State of a run that has ended, or `up_for_retry` as soon as one of its tasks is; before that, nothing."""
        state = str(self.run(dag_id, run_id)["state"])
        if state in _ENDED:
            return state
        states = [state for found in self.states(dag_id, run_id).values() for state in found]
        return "up_for_retry" if "up_for_retry" in states else ""

    def complaints(self, dag_id: str, run_id: str) -> str:
        """The end of the logs of all tasks that failed, for the message of an assertion."""
        failed = [task for task in self.tasks(dag_id, run_id) if task["state"] in ("failed", "up_for_retry")]
        logs = [
            self.log(dag_id, run_id, task["task_id"], attempt=task["try_number"], map_index=task["map_index"])
            for task in failed
        ]
        return "\n".join(log[-_COMPLAINT_CHARACTERS:] for log in logs)

    def record(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """A value that a task left for others."""
        path = f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.send("GET", f"{path}?map_index={map_index}&deserialize=true")["value"]

    def log(self, dag_id: str, run_id: str, task_id: str, *, attempt: int = 1, map_index: int = -1) -> str:
        """The log of one try, a line per event."""
        path = f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}/taskInstances/{task_id}/logs/{attempt}"
        content = self.send("GET", f"{path}?map_index={map_index}&full_content=true")["content"]
        return "\n".join(line if isinstance(line, str) else str(line.get("event")) for line in content)


@dataclass(frozen=True)
class AirflowServer:
    """A running Airflow.

    Attributes:
        api: Its REST API.
        home: Its AIRFLOW_HOME.
        source: The tiny table that `nightly_augmentation` learns from unless told otherwise.
        output: Where its snapshots go unless told otherwise.
        logs: Directory of the logs of its components.
        environment: What its components run in.
        services: Its components.
    """

    api: AirflowApi
    home: Path
    source: Path
    output: Path
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


def _quoted(run_id: str) -> str:
    return urllib.parse.quote(run_id, safe="")


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
    with ServiceGroup(local_services(port, environment), root / "logs") as services:
        services.wait_until(lambda: is_healthy(api.url), _START_SECONDS, "healthy Airflow")
        services.wait_until(lambda: _has_parsed(api, root / "dags"), _START_SECONDS, "parsed DAGs")
        yield AirflowServer(api, home, source, output, root / "logs", environment, services)


def _has_parsed(api: AirflowApi, dags: Path) -> bool:
    found = {dag["fileloc"] for dag in api.send("GET", "/dags?limit=100")["dags"]}
    return found >= {str(path) for path in dags.glob("*.py")}
