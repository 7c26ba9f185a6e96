"""What an import brings along: nothing heavy where Airflow parses, nothing of Airflow in the engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ["keras", "pandas", "tensorflow"]

PARSE = """
import importlib.util, json, pathlib, sys
for number, path in enumerate(sys.argv[1:]):
    path = pathlib.Path(path)
    spec = importlib.util.spec_from_file_location(f"parsed_{number}", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def modules_after(code: str, *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_parsing_dags_and_plugins_imports_nothing_heavy() -> None:
    found = [path for folder in ("dags", "plugins") for path in (ROOT / folder).rglob("*.py")]
    # Airflow's OpenLineage provider alone asks for this one, once a task has ended.
    files = sorted(str(path) for path in found if path.name != "lineage.py")
    assert len(files) >= 10
    loaded = modules_after(PARSE, *files)
    assert "airflow" in loaded
    assert loaded.isdisjoint([*HEAVY, "pyarrow", "sklearn"])


def test_the_engine_does_not_import_airflow() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "vae_ops").rglob("*.py"))
        if path.stem not in ("networks", "training")  # these import TensorFlow; import-linter covers them
    ]
    code = f"import importlib, json, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    loaded = modules_after(code + "print(json.dumps(sorted(n for n in sys.modules if '.' not in n)))")
    assert loaded.isdisjoint(["airflow", "tensorflow", "keras", "vae_ops_provider"])


@pytest.mark.parametrize("arguments", [["--help"], ["augment", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from vae_ops.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(json.dumps(sorted(n for n in sys.modules if '.' not in n)))"
    )
    assert modules_after(code, *arguments).isdisjoint([*HEAVY, "airflow", "numpy", "pyarrow", "sklearn", "scipy"])
