"""The two doors into Airflow, each in an environment of its own: an installed wheel, and a plugins folder.

The environments borrow what we depend on from this one, and nothing of ours.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.airflow]

# Several commands of Airflow's own command line in one process, as each start of it costs ten seconds.
AIRFLOW = """
import contextlib, io, json, sys
from airflow.cli.cli_parser import get_parser
said = {}
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        arguments = get_parser().parse_args(command)
        arguments.func(arguments)
    said[" ".join(command)] = out.getvalue()
import vae_ops, vae_ops_provider
said["files"] = [vae_ops.__file__, vae_ops_provider.__file__]
print(json.dumps(said))
"""
PROVIDERS = ["providers", "list", "--output", "json"]
LINKS = ["providers", "links", "--output", "json"]
PLUGINS = ["plugins", "--output", "json"]
CONFIG = ["config", "list", "--section", "vae_ops", "--include-descriptions"]
VALUE = ["config", "get-value", "vae_ops", "memory_limit"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    target = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target], check=True, cwd=ROOT)
    return next(target.glob("*.whl"))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a fresh environment that has our dependencies, and us not at all."""
    venv.create(tmp_path / "venv", with_pip=False)
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "vae_ops" not in entry.name and entry.suffix != ".pth":
            (borrowed / entry.name).symlink_to(entry)
    (packages_of(tmp_path / "venv") / "borrowed.pth").write_text(f"{borrowed}\n")
    return tmp_path / "venv" / "bin" / "python"


def packages_of(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"))


def ask(python: Path, *commands: list[str], **more: str) -> dict[str, Any]:
    home = python.parents[2] / "home"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env = {**kept, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"), **more}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", AIRFLOW, json.dumps(commands)], env=env, cwd=python.parent, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def ours(said: str) -> Iterator[dict[str, Any]]:
    return (row for row in json.loads(said) if "vae" in json.dumps(row).lower())


def test_the_wheel_brings_provider_links_configuration_and_one_plugin(wheel: Path, python: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(packages_of(python.parents[1]))
    said = ask(python, PROVIDERS, LINKS, PLUGINS, CONFIG, VALUE, AIRFLOW__VAE_OPS__MEMORY_LIMIT="3GiB")
    assert {str(python.parents[1])} == {file.partition("/lib/")[0] for file in said["files"]}
    (provider,) = ours(said[" ".join(PROVIDERS)])
    assert (provider["package_name"], provider["version"]) == ("vae-ops", importlib.metadata.version("vae-ops"))
    assert len(list(ours(said[" ".join(LINKS)]))) == 3
    (plugin,) = ours(said[" ".join(PLUGINS)])
    assert plugin["name"] == "vae_ops"
    assert "[vae_ops]" in said[" ".join(CONFIG)]
    assert "Resident memory" in said[" ".join(CONFIG)]
    assert said[" ".join(VALUE)].strip() == "3GiB"


def test_the_wheel_is_typed_and_whole(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {"vae_ops/py.typed", "vae_ops_provider/py.typed"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vae_ops", "vae_ops_provider"}
    for package, room in (("vae_ops", ROOT), ("vae_ops_provider", ROOT / "plugins")):
        files = [path for path in (room / package).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert {str(path.relative_to(room)) for path in files} <= names


def test_the_folder_brings_one_plugin(python: Path) -> None:
    folder = {"AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"), "PYTHONPATH": str(ROOT)}
    said = ask(python, PLUGINS, PROVIDERS, **folder)
    (plugin,) = ours(said[" ".join(PLUGINS)])
    assert plugin["name"] == "vae_ops"
    assert list(ours(said[" ".join(PROVIDERS)])) == []
    assert [str(ROOT) in file for file in said["files"]] == [True, True]
