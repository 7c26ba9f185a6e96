"""The Airflow plugin of vae-ops; both doors (wheel entry point, plugins folder) lead to this one class.

It registers the pages of `pages/` with the api-server and their places in Airflow's UI. The buttons on tasks are the
operators' own (`links.py`): Airflow writes only such links when a task ends.
"""

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from vae_ops_provider.links import TASK_TAB, airflow_path

__all__ = ["PREFIX", "VaeOpsPlugin"]

PREFIX = "/vae-ops"
_BASE = f"{airflow_path()}{PREFIX}"
_RUN = f"{_BASE}/dags/{{DAG_ID}}/runs/{{RUN_ID}}"


class VaeOpsPlugin(AirflowPlugin):
    """The page of augmented tables, and a tab on DAG runs and on task instances."""

    name = "vae_ops"
    external_views = [  # noqa: RUF012 (Airflow declares it as no ClassVar)
        {
            "name": "Augmented tables",
            "href": f"{_BASE}/",
            "destination": "nav",
            "category": "browse",
            "url_route": "vae-ops-tables",
        },
        {"name": "VAE report", "href": _RUN, "destination": "dag_run", "url_route": "vae-ops-run"},
        {
            "name": "VAE record",
            "href": f"{_RUN}/tasks/{{TASK_ID}}/{{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": TASK_TAB,
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The application that the api-server mounts.

        It is built when it is asked for: every worker and every parser loads the plugin too, and FastAPI with Airflow's
        models would cost each of them 0.8 s and 600 modules.
        """
        from vae_ops_provider.pages.app import make_app

        return [{"app": make_app(), "url_prefix": PREFIX, "name": "vae-ops"}]
