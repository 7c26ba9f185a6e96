"""Both doors lead to the same plugin, and the scan of the plugins folder finds nothing else."""

import importlib
import importlib.metadata
import json
from pathlib import Path

import airflow
import jsonschema
import pytest

from vae_ops_provider.configuration import configured
from vae_ops_provider.get_provider_info import get_provider_info
from vae_ops_provider.operators import VaeStepOperator
from vae_ops_provider.plugin import VaeOpsPlugin

PLUGINS = Path(__file__).parents[2] / "plugins"


def entry_point(group: str) -> object:
    return next(p for p in importlib.metadata.entry_points(group=group) if p.value.startswith("vae_ops_")).load()


def test_the_wheel_declares_plugin_and_provider() -> None:
    assert entry_point("airflow.plugins") is VaeOpsPlugin
    assert entry_point("apache_airflow_provider") is get_provider_info


def test_the_provider_record_is_one_that_airflow_takes() -> None:
    info = get_provider_info()
    assert info["package-name"] == importlib.metadata.metadata("vae-ops")["Name"]
    jsonschema.validate(info, json.loads(Path(airflow.__file__).with_name("provider_info.schema.json").read_text()))


def test_the_provider_record_names_what_there_is() -> None:
    info = get_provider_info()
    modules = {name for entry in info["operators"] for name in entry["python-modules"]}
    found = {name for module in modules for name in importlib.import_module(module).__all__}
    assert {"VaeTrainOperator", "VaeApprovalOperator"} <= found
    links = {f"{type(link).__module__}.{type(link).__name__}" for name in found for link in links_of(name, modules)}
    assert set(info["extra-links"]) == links


def links_of(name: str, modules: set[str]) -> tuple[object, ...]:
    classes = [getattr(importlib.import_module(module), name, None) for module in modules]
    return tuple(link for found in classes for link in getattr(found, "operator_extra_links", ()) if ours(link))


def ours(link: object) -> bool:
    return type(link).__module__.startswith("vae_ops_provider.")


@pytest.mark.parametrize(("given", "expected"), [(None, "/opt/python"), ("None", "/opt/python"), ("mine", "mine")])
def test_an_argument_that_is_not_given_comes_from_the_configuration(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert configured(None, "python") is None
    monkeypatch.setenv("AIRFLOW__VAE_OPS__PYTHON", "/opt/python")
    assert configured(given, "python") == expected


def test_every_option_of_the_configuration_is_an_argument_of_the_operators() -> None:
    assert set(get_provider_info()["config"]["vae_ops"]["options"]) <= set(VaeStepOperator.template_fields)


def test_the_folder_scan_leaves_the_package_alone() -> None:
    scan = pytest.importorskip("airflow.sdk._shared.module_loading", reason="before 3.2 the scan is elsewhere")
    found = {Path(path).name for path in scan.find_path_from_directory(str(PLUGINS), ".airflowignore", "glob")}
    assert {name for name in found if name.endswith(".py")} == {"vae_ops_plugin.py"}
