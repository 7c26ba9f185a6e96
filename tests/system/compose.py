"""`docker-compose.yaml` without containers: its very commands and environments as processes of this machine.

Taken from the file: commands, environments, mounts, health checks. Made here: what the images bring (an interpreter
without vae-ops installed, PostgreSQL's first initialisation), free ports of loopback in place of the well-known ones,
loopback in place of the services' names, and a directory in place of the root of the file system.
"""

import os
import pwd
import re
import shlex
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from service_group import Service
from tests.system.airflow_server import ROOT, free_port

__all__ = ["ComposeFile", "LocalCluster", "find_programs", "read_variables"]

COMPOSE_FILE = ROOT / "docker-compose.yaml"
_PORTS = ("5432", "6379", "8080", "8974")
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\})")
_HOME = "/opt/airflow"


class ComposeFile:
    """The file as Compose reads it.

    Args:
        path: The file.
        variables: What `.env` sets.

    Raises:
        KeyError: A variable that the file insists on is not set.
    """

    def __init__(self, path: Path, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.content: dict[str, Any] = self._interpolate(yaml.safe_load(path.read_text()))
        self.services: dict[str, dict[str, Any]] = self.content["services"]

    def _interpolate(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._interpolate(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._interpolate(inner) for inner in value]
        return _VARIABLE.sub(self._variable, value) if isinstance(value, str) else value

    def _variable(self, found: re.Match[str]) -> str:
        dollar, name, operator, word = found.groups()
        if dollar:
            return "$"
        if value := self._variables.get(name):
            return value
        if operator == "-":
            return str(word)
        raise KeyError(f"{name}: {word or 'not set'}")


def read_variables(path: Path) -> dict[str, str]:
    """The lines of an `.env` file."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def find_programs() -> dict[str, str]:
    """Paths of the programs that the images bring, by name, without those that are missing here."""
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    path = os.pathsep.join([*folders, os.environ["PATH"]])
    names = ("postgres", "initdb", "createdb", "pg_isready", "redis-server", "redis-cli", "curl")
    return {name: found for name in names if (found := shutil.which(name, path=path))}


class LocalCluster:
    """The services of one compose file as processes.

    Args:
        compose: The file.
        root: Empty directory that stands for the containers' file systems; any user may enter it.
        programs: Of `find_programs`.
    """

    def __init__(self, compose: ComposeFile, root: Path, programs: Mapping[str, str]) -> None:
        self._compose = compose
        self._root = root
        self._programs = programs
        self._ports = {port: str(free_port()) for port in _PORTS}
        self._image = _make_image(root / "image")
        for service in compose.services.values():
            self._mount(service.get("volumes", []))

    @property
    def url(self) -> str:
        """Where the API server listens, without a path."""
        return f"http://127.0.0.1:{self._ports['8080']}"

    def service(self, name: str) -> Service:
        """A service of the file as a process."""
        if name == "postgres":
            place = ["-D", str(self._data), "-h", "127.0.0.1", "-p", self._ports["5432"], "-k", ""]
            command = [*self._drop(), self._programs["postgres"], *place]
        else:
            command = [self._localise(word) for word in self._compose.services[name]["command"]]
        return Service(name, command, self._environment(name))

    def run(self, name: str) -> None:
        """Runs a service that ends by itself."""
        service = self.service(name)
        subprocess.run(service.command, env=dict(service.environment), check=True, stdout=subprocess.DEVNULL)

    def is_healthy(self, name: str) -> bool:
        """What the health check of a service says."""
        kind, *test = self._compose.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        command, environment = [self._localise(word) for word in test], self._environment(name)
        done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    def execute(self, name: str, *command: str) -> str:
        """Output of a command in the environment of a service, as `docker compose exec` would run it."""
        done = subprocess.run(command, env=self._environment(name), capture_output=True, text=True, check=True)
        return done.stdout

    def initialise_postgres(self) -> None:
        """What the image does before its first start, up to the database, which needs a running server."""
        self._data.mkdir()
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self._data, owner.pw_uid, owner.pw_gid)
        environment = self._environment("postgres")
        drop, initdb = (
            self._drop(),
            [self._programs["initdb"], "-D", str(self._data), "--auth=scram-sha-256", "--no-sync"],
        )
        command = f'exec {shlex.join(initdb)} --username="$POSTGRES_USER" --pwfile=<(printf %s "$POSTGRES_PASSWORD")'
        subprocess.run([*drop, "bash", "-c", command], env=environment, check=True, stdout=subprocess.DEVNULL)

    def create_database(self) -> None:
        """The database that the image makes once its server is up."""
        environment = self._environment("postgres")
        command = ["createdb", "--host=127.0.0.1", f"--port={self._ports['5432']}"]
        subprocess.run(
            [*command, f"--username={environment['POSTGRES_USER']}", environment["POSTGRES_DB"]],
            env={**environment, "PGPASSWORD": environment["POSTGRES_PASSWORD"]},
            check=True,
        )

    @property
    def _data(self) -> Path:
        return self._root / "postgres"

    def _drop(self) -> list[str]:
        """PostgreSQL refuses to run as root."""
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []

    def _environment(self, name: str) -> dict[str, str]:
        declared: dict[str, str] = self._compose.services[name].get("environment", {})
        folders = [str(self._image / "bin"), *(os.path.dirname(program) for program in self._programs.values())]
        return {
            "PATH": os.pathsep.join([*dict.fromkeys(folders), "/usr/bin", "/bin"]),
            "HOME": str(self._root),
            "LANG": "C.UTF-8",
            **{variable: self._localise(value) for variable, value in declared.items()},
        }

    def _localise(self, text: str) -> str:
        text = re.sub(r"(?<=[@/])(?:postgres|redis|api-server)(?=:)", "127.0.0.1", text).replace("0.0.0.0", "127.0.0.1")
        text = re.sub(rf"\b({'|'.join(_PORTS)})\b", lambda found: self._ports[found[0]], text)
        return text.replace(_HOME, f"{self._root}{_HOME}")

    def _mount(self, volumes: Sequence[str]) -> None:
        for volume in volumes:
            source, target = volume.split(":")[:2]
            place = Path(f"{self._root}{target}")
            if place.is_symlink():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if source[0] not in "./":
                (self._root / "volumes" / source).mkdir(parents=True, exist_ok=True)
                source = str(self._root / "volumes" / source)
            place.symlink_to((ROOT / source).resolve())


def _make_image(folder: Path) -> Path:
    """An interpreter with everything but vae-ops, which comes in through mounts only, and through one door."""
    venv.create(folder, symlinks=True, with_pip=False)
    packages = Path(sysconfig.get_path("purelib"))
    target = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for entry in packages.iterdir():
        if "vae_ops" not in entry.name and not (target / entry.name).exists():
            (target / entry.name).symlink_to(entry)
    for script in ("airflow", "celery"):
        path = folder / "bin" / script
        path.write_text(
            f"#!{folder / 'bin' / 'python'}\nimport sys\nfrom {script}.__main__ import main\nsys.exit(main())\n"
        )
        path.chmod(0o755)
    return folder
