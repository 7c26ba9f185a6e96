"""Airflow's REST API, as far as `ui.py` and the system tests talk to it."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["AirflowApi", "ApiError"]

_ENDED = ("success", "failed")
_COMPLAINT_CHARACTERS = 3_000


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

    def unpause(self, dag_id: str) -> None:
        """Lets the scheduler run a DAG."""
        self.send("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def start_due_run(self, dag_id: str, **conf: Any) -> str:
        """Starts the run that is due, with parameters of ours, unpauses the DAG, and returns the run's id.

        A DAG that is merely unpaused runs at once with its own parameters, if its schedule says so.
        """
        due = self.send("GET", f"/dags/{dag_id}")["next_dagrun_logical_date"]
        run = self.send("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": due, "conf": conf})
        self.unpause(dag_id)
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

    def dags(self) -> dict[str, dict[str, Any]]:
        """What the API says of all DAGs, by their ids."""
        return {dag["dag_id"]: dag for dag in self.send("GET", "/dags?limit=100")["dags"]}

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


def _quoted(run_id: str) -> str:
    return urllib.parse.quote(run_id, safe="")
