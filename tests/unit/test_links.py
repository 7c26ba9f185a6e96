"""The buttons of our tasks: where they lead, and that workers which write them load no web application."""

import json
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from vae_ops_provider.links import ModelLink, ReportLink, SnapshotLink, tab_below
from vae_ops_provider.operators import (
    VaeGenerateOperator,
    VaeProfileOperator,
    VaePublishOperator,
    VaeTrainOperator,
    VaeValidateOperator,
)


@pytest.mark.parametrize(
    ("base", "map_index", "url"),
    [
        ("", -1, "/dags/d/runs/r%2F1%2B00%3A00/tasks/g.train/plugin/vae-ops-task"),
        ("/airflow", 3, "/airflow/dags/d/runs/r%2F1%2B00%3A00/tasks/g.train/mapped/3/plugin/vae-ops-task"),
        ("https://host/a/", 0, "https://host/a/dags/d/runs/r%2F1%2B00%3A00/tasks/g.train/mapped/0/plugin/vae-ops-task"),
    ],
)
def test_a_link_leads_to_the_tab_of_its_own_instance(base: str, map_index: int, url: str) -> None:
    assert tab_below(base, "d", "r/1+00:00", "g.train", map_index) == url


def test_a_link_follows_the_path_that_airflow_is_served_under(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://host/airflow/")
    key: Any = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=None)
    task: Any = None
    assert ModelLink().get_link(task, ti_key=key) == "/airflow/dags/d/runs/r/tasks/t/plugin/vae-ops-task"


def test_train_validate_and_publish_have_a_button() -> None:
    found = {
        kind.step: [type(link) for link in kind.operator_extra_links]
        for kind in (
            VaeProfileOperator,
            VaeTrainOperator,
            VaeGenerateOperator,
            VaeValidateOperator,
            VaePublishOperator,
        )
    }
    assert found == {
        "profile": [], "train": [ModelLink], "generate": [], "validate": [ReportLink], "publish": [SnapshotLink],
    }  # fmt: skip


def test_loading_the_plugin_loads_no_web_application() -> None:
    code = (
        "import json, sys\n"
        "from vae_ops_provider.plugin import VaeOpsPlugin\n"
        "import vae_ops_provider.operators\n"
        "plugin = VaeOpsPlugin()\n"
        "assert [view['destination'] for view in plugin.external_views] == ['nav', 'dag_run', 'task_instance']\n"
        "print(json.dumps([name for name in ('fastapi', 'vae_ops_provider.pages') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []
