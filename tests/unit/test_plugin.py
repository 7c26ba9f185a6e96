"""Both doors lead to the same plugin, and the scan of the plugins folder finds nothing else."""

import importlib.metadata
from pathlib import Path

from vae_ops_provider.get_provider_info import get_provider_info
from vae_ops_provider.plugin import VaeOpsPlugin

PLUGINS = Path(__file__).parents[2] / "plugins"


def entry_point(group: str) -> object:
    return next(p for p in importlib.metadata.entry_points(group=group) if p.value.startswith("vae_ops_")).load()


def test_the_wheel_declares_plugin_and_provider() -> None:
    assert entry_point("airflow.plugins") is VaeOpsPlugin
    assert entry_point("apache_airflow_provider") is get_provider_info


def test_the_provider_record_has_what_airflow_shows() -> None:
    info = get_provider_info()
    assert info["package-name"] == importlib.metadata.metadata("vae-ops")["Name"]
    assert {"name", "description"} <= info.keys()


def test_the_folder_scan_leaves_the_package_alone() -> None:
    from airflow.sdk._shared.module_loading import find_path_from_directory

    found = {Path(path).name for path in find_path_from_directory(str(PLUGINS), ".airflowignore", "glob")}
    assert {name for name in found if name.endswith(".py")} == {"vae_ops_plugin.py"}
