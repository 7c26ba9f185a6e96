"""`make ui`: Airflow's user interface on this machine alone, with the project's DAGs and a finished run, until Ctrl-C.

The first time, `nightly_augmentation` runs once on the bundled table (SOURCE=… for another), and the training DAG that
follows it, so that pages, reports and links have something to show. `local_airflow.py` knows what is started.
"""

import json
import os
import signal
import sys
import threading
import urllib.request
from typing import Any

from local_airflow import HOME, configure, is_healthy, local_services, migrate, provide_source, server_environment
from service_group import ServiceGroup

_PORT = int(os.environ.get("PORT", "8080"))
_URL = f"http://127.0.0.1:{_PORT}"
_NIGHT = "nightly_augmentation"
_TIME_BUDGET_SECONDS = 30
_START_SECONDS = 180
_RUN_SECONDS = 900


def main() -> None:
    """Starts the components, says where to log in, runs a first night, and stops all of them together."""
    configure(provide_source(), **server_environment(_PORT))
    migrate()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print(f"starting Airflow; what its components say goes to {HOME / 'ui'}", flush=True)
    with ServiceGroup(local_services(_PORT, dict(os.environ)), HOME / "ui") as services:
        try:
            services.wait_until(lambda: stop.is_set() or is_healthy(_URL), _START_SECONDS, "healthy Airflow")
            _welcome(services, stop)
        except (ChildProcessError, TimeoutError) as error:
            sys.exit(str(error))
        while not stop.is_set() and not services.wait(1.0):
            pass


def _welcome(services: ServiceGroup, stop: threading.Event) -> None:
    """Says where to log in, and sees to it that there is a finished run."""
    if stop.is_set():
        return
    user, password = _first_user()
    api = _Api(user, password)
    services.wait_until(lambda: stop.is_set() or api.knows(_NIGHT), _START_SECONDS, "parsed DAGs")
    for dag_id in api.dags():  # DAGs that `make demo` has left in the database are paused
        api.send("PATCH", f"/dags/{dag_id}", {"is_paused": False})
    print(f"ready: {_URL}  user {user}  password {password}", flush=True)
    if not stop.is_set() and not api.has_finished(_NIGHT):
        print("a first night is running, about a minute …", flush=True)
        run = api.send("POST", f"/dags/{_NIGHT}/dagRuns", _first_run())
        services.wait_until(lambda: stop.is_set() or api.has_ended(run), _RUN_SECONDS, "end of the first night")
        print(f"done:  {_URL}/dags/{_NIGHT}/runs/{run['dag_run_id']}", flush=True)
    print("Trigger nightly_augmentation for another; Ctrl-C stops all.", flush=True)


def _first_run() -> dict[str, Any]:
    return {"logical_date": None, "conf": {"time_budget_seconds": _TIME_BUDGET_SECONDS}}


def _first_user() -> tuple[str, str]:
    passwords = json.loads((HOME / "simple_auth_manager_passwords.json.generated").read_text())
    user, password = next(iter(passwords.items()))
    return user, password


class _Api:
    """The few requests that this script sends to Airflow's REST API."""

    def __init__(self, user: str, password: str) -> None:
        self._headers = {"Content-Type": "application/json"}
        login = self._request("POST", "/auth/token", {"username": user, "password": password})
        self._headers["Authorization"] = f"Bearer {login['access_token']}"

    def send(self, method: str, path: str, body: Any = None) -> Any:
        return self._request(method, f"/api/v2{path}", body)

    def dags(self) -> list[str]:
        return [dag["dag_id"] for dag in self.send("GET", "/dags?limit=100")["dags"]]

    def knows(self, dag_id: str) -> bool:
        return dag_id in self.dags()

    def has_finished(self, dag_id: str) -> bool:
        return bool(self.send("GET", f"/dags/{dag_id}/dagRuns?state=success&limit=1")["dag_runs"])

    def has_ended(self, run: dict[str, Any]) -> bool:
        found = self.send("GET", f"/dags/{run['dag_id']}/dagRuns/{run['dag_run_id']}")
        return found["state"] in ("success", "failed")

    def _request(self, method: str, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(_URL + path, data, self._headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)


if __name__ == "__main__":
    main()
