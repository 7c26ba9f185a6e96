"""The buttons of our tasks in Airflow's UI: from a train, validate or publish task to its page.

A worker writes each link when its task ends, so this knows URLs and no more; what stands behind them is served by
`pages/`, whose tabs `plugin.py` registers under the names used here.
"""

from typing import Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperator, BaseOperatorLink

from vae_ops_provider.compatibility import conf

__all__ = ["TASK_TAB", "ModelLink", "ReportLink", "SnapshotLink", "airflow_path", "tab_below"]

TASK_TAB = "vae-ops-task"


def airflow_path() -> str:
    """The path that Airflow's UI lives under, without a slash at its end; empty where that is the root."""
    return str(urlsplit(conf.get("api", "base_url", fallback="")).path).rstrip("/")


def tab_below(base: str, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Our tab of a task instance, below the URL or the path of Airflow's UI."""
    ids = (quote(name, safe="") for name in (dag_id, run_id, task_id))
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return "{}/dags/{}/runs/{}/tasks/{}{}/plugin/{}".format(base.rstrip("/"), *ids, mapped, TASK_TAB)


class _TabLink(BaseOperatorLink):
    """Leads to our tab of the task's own instance, so that a reader stays in Airflow's UI."""

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """The tab's path; the record behind it is looked up when it is opened.

        Args:
            operator: The task, which does not matter.
            ti_key: The task instance or its key.
        """
        map_index = -1 if ti_key.map_index is None else ti_key.map_index
        return tab_below(airflow_path(), ti_key.dag_id, ti_key.run_id, ti_key.task_id, map_index)


class ModelLink(_TabLink):
    """From a train task to its model: reused, refreshed or retrained, and why."""

    name = "Model"


class ReportLink(_TabLink):
    """From a validate task to the validation report."""

    name = "Validation report"


class SnapshotLink(_TabLink):
    """From a publish task to the snapshot and its report."""

    name = "Snapshot"
