"""`make ui`: Airflow's user interface on this machine alone, with the project's DAGs and a finished run, until Ctrl-C.

The first time, `nightly_augmentation` runs once on the bundled table (SOURCE=… for another), and the training DAG that
follows it, so that pages, reports and links have something to show. `local_airflow.py` knows what is started.
"""

import json
import os
import signal
import sys
import threading

from airflow_api import AirflowApi
from local_airflow import HOME, configure, is_healthy, local_services, migrate, provide_source, server_environment
from service_group import ServiceGroup

_PORT = int(os.environ.get("PORT", "8080"))
_URL = f"http://127.0.0.1:{_PORT}"
_NIGHT, _TRAINING = "nightly_augmentation", "train_on_augmented"
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
    passwords = json.loads((HOME / "simple_auth_manager_passwords.json.generated").read_text())
    user, password = next(iter(passwords.items()))
    print(f"ready: {_URL}  user {user}  password {password}", flush=True)
    api = AirflowApi(_URL, passwords)
    services.wait_until(lambda: stop.is_set() or {_NIGHT, _TRAINING} <= set(api.dags()), _START_SECONDS, "parsed DAGs")
    if stop.is_set():
        return
    api.unpause(_TRAINING)
    if any(run["state"] == "success" for run in api.runs(_NIGHT)):
        api.unpause(_NIGHT)
    else:
        _run_first_night(api, services, stop)
    print(f"Trigger {_NIGHT} for another; Ctrl-C stops all.", flush=True)


def _run_first_night(api: AirflowApi, services: ServiceGroup, stop: threading.Event) -> None:
    run_id = api.start_due_run(_NIGHT, time_budget_seconds=_TIME_BUDGET_SECONDS)
    print("a first night is running, about a minute …", flush=True)
    state = services.wait_until(lambda: stop.is_set() or api.outcome(_NIGHT, run_id), _RUN_SECONDS, "end of the night")
    if not stop.is_set():
        print(f"{state}: {_URL}/dags/{_NIGHT}/runs/{run_id}", flush=True)


if __name__ == "__main__":
    main()
