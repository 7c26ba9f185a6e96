"""`docker-compose.yaml` is sound, and what it runs works: a night whose tasks are spread over two Celery workers."""

import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from env import write_env
from local_airflow import is_healthy
from service_group import ServiceGroup
from tests.system.airflow_server import ANY_GATE, TINY, AirflowApi, write_tiny_table
from tests.system.compose import COMPOSE_FILE, ComposeFile, LocalCluster, find_programs, read_variables

AIRFLOW = ("init", "api-server", "scheduler", "dag-processor", "triggerer", "worker-training", "worker")
STORES = ("postgres", "redis")
COMPONENTS = AIRFLOW[1:]
NIGHT = "nightly_augmentation"


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose")
    source = write_tiny_table(folder / "tables" / "trades.parquet")
    assert write_env(folder / ".env", str(source))
    return folder / ".env"


@pytest.fixture(scope="module")
def compose(env_file: Path) -> ComposeFile:
    return ComposeFile(COMPOSE_FILE, read_variables(env_file))


def test_env_is_for_its_owner_only_and_never_written_over(env_file: Path) -> None:
    before = env_file.read_text()
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    assert not write_env(env_file, "")
    assert env_file.read_text() == before


def test_every_secret_is_new_each_time(env_file: Path, tmp_path: Path) -> None:
    write_env(tmp_path / ".env", "s3://bucket/table")
    first, second = read_variables(env_file), read_variables(tmp_path / ".env")
    secret = {name for name in first if re.search("PASSWORD|SECRET|KEY", name)}
    assert len(secret) == 6
    assert all(first[name] != second[name] and len(first[name]) >= 44 for name in secret)
    assert (first["SOURCE"], second["SOURCE"]) == ("/opt/airflow/tables/trades.parquet", "s3://bucket/table")
    assert int(first["AIRFLOW_UID"]) > 0


def test_no_secret_stands_in_the_file_or_in_an_argument(compose: ComposeFile, env_file: Path) -> None:
    with pytest.raises(KeyError, match="run make env first"):
        ComposeFile(COMPOSE_FILE, {"AIRFLOW_UID": "1"})
    variables = read_variables(env_file)
    hidden = [value for name, value in variables.items() if re.search("PASSWORD|SECRET|KEY", name)]
    seen = json.dumps([[s.get("command"), s.get("healthcheck")] for s in compose.services.values()])
    assert not [secret for secret in hidden if secret in seen]
    assert "PASSWORD: airflow" not in COMPOSE_FILE.read_text()


def test_images_are_pinned_nobody_is_root_and_only_loopback_is_published(compose: ComposeFile) -> None:
    assert set(compose.services) == {*AIRFLOW, *STORES}
    for name, service in compose.services.items():
        assert re.fullmatch(r"[\w/-]+:\d[\w.-]+", service["image"]), name
        assert service["user"].partition(":")[0] not in ("", "0", "root"), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert name == "init" or service["healthcheck"]["test"][0] == "CMD", name
    assert re.search(
        r"^FROM apache/airflow:3\.3\.2-python3\.11$", (COMPOSE_FILE.parent / "Dockerfile").read_text(), re.M
    )


def test_docker_compose_accepts_the_file(env_file: Path, compose: ComposeFile) -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("no docker-compose: install Debian's package docker-compose")
    command = [program, "--file", str(COMPOSE_FILE), "--env-file", str(env_file), "config"]
    clean = {name: value for name, value in os.environ.items() if name not in read_variables(env_file)}
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
    assert done.returncode == 0, done.stderr
    theirs: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    assert set(theirs) == set(compose.services)
    for name, service in theirs.items():
        assert service.get("environment", {}) == compose.services[name].get("environment", {}), name


@dataclass(frozen=True)
class Cluster:
    local: LocalCluster
    api: AirflowApi
    services: ServiceGroup


@pytest.fixture(scope="module")
def cluster(compose: ComposeFile, env_file: Path) -> Iterator[Cluster]:
    programs = find_programs()
    if missing := {"postgres", "initdb", "redis-server", "redis-cli", "curl"} - set(programs):
        pytest.skip(f"no {', '.join(sorted(missing))}: install Debian's packages postgresql, redis-server and curl")
    with ExitStack() as stack:
        root = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="vae-ops-compose-", ignore_cleanup_errors=True))
        )
        root.chmod(0o755)  # PostgreSQL runs as a user of its own
        local = LocalCluster(compose, root, programs)
        local.initialise_postgres()
        stores = stack.enter_context(
            ServiceGroup([local.service(name) for name in STORES], root / "logs", stop_seconds=5)
        )
        stores.wait_until(lambda: all(map(local.is_healthy, STORES)), 60, "healthy stores")
        local.create_database()
        local.run("init")
        services = stack.enter_context(
            ServiceGroup([local.service(name) for name in COMPONENTS], root / "logs", stop_seconds=5)
        )
        services.wait_until(lambda: is_healthy(local.url), 240, "healthy Airflow")
        yield Cluster(local, AirflowApi(local.url, {"admin": read_variables(env_file)["ADMIN_PASSWORD"]}), services)


@pytest.mark.airflow
@pytest.mark.slow
def test_a_night_with_four_shards_completes_across_both_workers(cluster: Cluster) -> None:
    cluster.services.wait_until(lambda: NIGHT in cluster.api.dags(), 120, "parsed DAGs")
    run_id = cluster.api.start_due_run(NIGHT, rows=100, settings=TINY | ANY_GATE)
    with ThreadPoolExecutor(1) as checking:
        unhealthy = checking.submit(lambda: [name for name in COMPONENTS if not cluster.local.is_healthy(name)])
        state = cluster.services.wait_until(lambda: cluster.api.outcome(NIGHT, run_id), 180, "end of the night")
        assert state == "success", cluster.api.complaints(NIGHT, run_id)
        assert unhealthy.result() == []

    tasks = cluster.api.tasks(NIGHT, run_id)
    assert {task["state"] for task in tasks} == {"success"}
    assert sum(task["task_id"] == "augment.generate" for task in tasks) == 4
    assert {task["task_id"] for task in tasks if task["queue"] == "training"} == {"augment.train"}
    assert _tasks_done(cluster.local) == {"training@worker": 1, "default@worker": len(tasks) - 1}
    published = cluster.api.record(NIGHT, run_id, "augment.publish")
    assert (published["rows_source"], published["rows_synthetic"]) == (400, 100)


@pytest.mark.airflow
@pytest.mark.slow
def test_the_folder_door_gives_one_plugin(cluster: Cluster) -> None:
    plugins = [plugin for plugin in cluster.api.send("GET", "/plugins")["plugins"] if plugin["name"] == "vae_ops"]
    assert [plugin["source"] for plugin in plugins] == ["$PLUGINS_FOLDER/vae_ops_plugin.py"]
    assert cluster.api.send("GET", "/plugins/importErrors")["import_errors"] == []


def _tasks_done(local: LocalCluster) -> dict[str, int]:
    """How many tasks each worker has run, by its own count."""
    app = "--app=airflow.providers.celery.executors.celery_executor.app"
    said = local.execute("worker", "celery", app, "inspect", "stats", "--json")
    stats = json.loads(said.splitlines()[-1])  # Airflow logs to stdout
    return {worker: sum(found["total"].values()) for worker, found in stats.items()}
