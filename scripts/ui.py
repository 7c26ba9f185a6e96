"""`make ui`: Airflow's user interface on this machine alone, with the project's DAGs in it, until Ctrl-C.

`airflow standalone` would leave children behind on SIGTERM and open its log servers to the network, so the components
are started one by one, in one process group, and that group is signalled at the end.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

from local_airflow import HOME, configure, migrate, provide_source

_PORT = int(os.environ.get("PORT", "8080"))
_URL = f"http://127.0.0.1:{_PORT}"
_START_SECONDS = 180
_STOP_SECONDS = 15
_COMPONENTS = (
    ["api-server", "--host", "127.0.0.1", "--port", str(_PORT)],
    ["scheduler", "--skip-serve-logs"],
    ["dag-processor"],
    ["triggerer", "--skip-serve-logs"],
)


def main() -> None:
    """Starts the components, says where to log in, and stops all of them together."""
    configure(
        provide_source(),
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{_URL}/execution/",
        AIRFLOW__API__BASE_URL=_URL,
        AIRFLOW__API_AUTH__JWT_SECRET=secrets.token_hex(32),
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
    )
    migrate()
    _unpause()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    children = _start()
    try:
        _announce(children, stop)
        while not stop.wait(1.0) and all(child.poll() is None for child in children):
            pass
    finally:
        _stop(children)


def _unpause() -> None:
    # DAGs that `make demo` has left in the database are paused; a fresh database has none yet.
    command = [sys.executable, "-m", "airflow", "dags", "unpause", "--yes", "--treat-dag-id-as-regex", ".*"]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _start() -> list["subprocess.Popen[bytes]"]:
    children: list[subprocess.Popen[bytes]] = []
    log = HOME / "ui.log"
    with log.open("wb") as sink:
        for arguments in _COMPONENTS:
            command = [sys.executable, "-m", "airflow", *arguments]
            group = children[0].pid if children else 0
            children.append(subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, process_group=group))
    print(f"starting Airflow; what its components say goes to {log}", flush=True)
    return children


def _announce(children: list["subprocess.Popen[bytes]"], stop: threading.Event) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _is_healthy():
        if any(child.poll() is not None for child in children) or time.monotonic() > deadline:
            sys.exit(f"Airflow did not start; see {HOME / 'ui.log'}.")
        if stop.wait(1.0):
            return
    passwords = json.loads((HOME / "simple_auth_manager_passwords.json.generated").read_text())
    user, password = next(iter(passwords.items()))
    print(
        f"ready: {_URL}  user {user}  password {password}\nTrigger nightly_augmentation there; Ctrl-C stops all.",
        flush=True,
    )


def _is_healthy() -> bool:
    try:
        with urllib.request.urlopen(f"{_URL}/api/v2/monitor/health", timeout=5) as response:
            health = json.load(response)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return all(health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor"))


def _stop(children: list["subprocess.Popen[bytes]"]) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    _signal_group(children, signal.SIGTERM)
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal_group(children, signal.SIGKILL)
            child.wait()


def _signal_group(children: list["subprocess.Popen[bytes]"], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(children[0].pid, number)


if __name__ == "__main__":
    main()
