"""Tests the operators with the oldest Airflow that they support, in an environment of its own below `.lowest/`.

Needs uv and the package registry, and a few minutes; CI tests with the locked Airflow only. Any version can be tried,
with the libraries of its day: `python scripts/lowest_airflow.py 3.2.0 2026-05-01`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Airflow sets few upper bounds, so an old one runs only with libraries of its time: those before this day.
LOWEST = ("3.1.5", "2025-12-15")
HOME = ROOT / ".lowest"

# Pages follow the api-server, partitions need a newer Airflow, and the steps know nothing of any.
TESTS = (
    "tests/contract/test_operators_contract.py",
    "tests/unit/test_approval.py",
    "tests/unit/test_connections.py",
    "tests/unit/test_operators.py",
    "tests/unit/test_plugin.py",
    "tests/unit/test_process.py",
    "tests/unit/test_rendering.py",
    "tests/unit/test_waiting.py",
    "tests/integration/test_connected_dag.py",
)
TOOLS = ("hatchling", "hypothesis", "jsonschema", "moto[server]", "playwright", "psutil", "pytest", "pytest-timeout")


def main(arguments: list[str]) -> int:
    """Builds the environment and runs the tests; pytest's exit code."""
    version, day = arguments or LOWEST
    python = str(HOME / version / "bin" / "python")
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    install = [uv, "pip", "install", "--quiet", "--python", python, f"apache-airflow=={version}"]
    run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(HOME / version)])
    run([*install, "--exclude-newer", day, "apache-airflow-providers-amazon[s3fs]", *TOOLS])
    # Providers are released apart from Airflow, and ours are newer; what they do not ask for stays as it was.
    run([*install, "--editable", f"{ROOT}[airflow,openlineage]"])
    return subprocess.run([python, "-m", "pytest", "-p", "no:cacheprovider", *TESTS], cwd=ROOT, check=False).returncode


def run(command: list[str]) -> None:
    """Runs one command of the preparation, which has to succeed."""
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
