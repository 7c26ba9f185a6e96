"""What the package promises to export, and that a promise costs nothing until it is called in."""

import importlib.metadata
import subprocess
import sys

import pytest

import vae_ops


def test_the_public_names_are_these() -> None:
    assert vae_ops.__all__ == [
        "AugmentResult",
        "LatestSnapshot",
        "RunSettings",
        "TabularVAE",
        "augment",
        "load_latest",
        "validate",
    ]


@pytest.mark.parametrize("name", vae_ops.__all__)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(vae_ops, name).__doc__
    assert name in dir(vae_ops)


def test_the_version_is_that_of_the_distribution() -> None:
    assert vae_ops.__version__ == importlib.metadata.version("vae-ops")


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'agument'"):
        _ = vae_ops.agument


def loaded_after(statement: str) -> set[str]:
    report = "import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"{statement}\n{report}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_else() -> None:
    assert not loaded_after("import vae_ops") & {"numpy", "pyarrow", "click", "vae_ops.steps"}


def test_the_steps_start_without_the_network() -> None:
    assert not loaded_after("import vae_ops.steps") & {"tensorflow", "keras", "pandas", "sklearn"}
