"""Airflow's own web application in this process, with DAGs and runs written straight into its database.

For tests of the plugin's pages: no server is started, nothing runs, and the auth manager knows users who may see all,
one DAG, or nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import anyio
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.xcom import XComModel
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from fastapi import FastAPI
from fastapi.testclient import TestClient

from vae_ops_provider.task_group import VaeAugmentation

START = datetime(2026, 3, 1, 2, tzinfo=UTC)


class NarrowAuthManager(SimpleAuthManager):
    """The simple auth manager, and users named `only:DAG_ID`, who may see one DAG."""

    def is_authorized_dag(
        self,
        *,
        method: Any,
        user: SimpleAuthManagerUser,
        access_entity: DagAccessEntity | None = None,
        details: DagDetails | None = None,
    ) -> bool:
        allowed = super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
        only = user.username.partition("only:")[2]
        return allowed and (not only or details is None or details.id in (None, only))


def open_app() -> FastAPI:
    """Airflow's application with the plugin of the entry point; `core.auth_manager` decides who may see what."""
    from airflow.api_fastapi.app import create_app, purge_cached_app
    from airflow.plugins_manager import get_fastapi_plugins

    purge_cached_app()
    get_fastapi_plugins.cache_clear()
    return create_app(apps="core")


def client_of(app: FastAPI, user: str | None, role: str | None = "viewer") -> TestClient:
    """A browser in which somebody is logged in, or nobody."""
    client = TestClient(app, base_url="http://testserver/vae-ops", follow_redirects=False)
    if user is not None:
        token = app.state.auth_manager.generate_jwt(SimpleAuthManagerUser(username=user, role=role))
        client.headers["Authorization"] = f"Bearer {token}"
    return client


def ask_unchanged(app: FastAPI, target: str, authorization: str) -> tuple[int, bytes]:
    """Status and body of a GET whose target arrives as it is: a client would resolve `..` before it asks."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "root_path": "",
        "path": unquote(path), "raw_path": path.encode(), "query_string": quote(query, safe="=&%").encode(),
        "server": ("testserver", 80), "client": ("testclient", 50000),
        "headers": [(b"host", b"testserver"), (b"authorization", authorization.encode())],
    }  # fmt: skip
    answer: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        answer.append(message)

    anyio.run(app, scope, receive, send)
    return answer[0]["status"], b"".join(message.get("body", b"") for message in answer[1:])


def make_known(dag: DAG) -> None:
    """Does what parsing a file in the DAGs folder would."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


def make_augmenting_dag(dag_id: str, **arguments: Any) -> DAG:
    """A DAG with a table in the group `augment`, and a task that is none of ours."""
    arguments = {"source": "in", "output": "out", **arguments}
    with DAG(dag_id, schedule=None, start_date=START) as dag:
        VaeAugmentation("augment", **arguments) >> EmptyOperator(task_id="other")
    make_known(dag)
    return dag


def add_run(dag_id: str, run_id: str, returned: Mapping[str, Any], *, night: int = 0) -> None:
    """Adds a finished run of a known DAG.

    Args:
        dag_id: The DAG.
        run_id: Id of the run.
        returned: What tasks returned, by task id.
        night: How many days after `START` it was due.
    """
    dag = SerializedDagModel.get_dag(dag_id)
    assert dag is not None
    with create_session() as session:
        run: DagRun = dag.create_dagrun(
            run_id=run_id,
            run_after=START + timedelta(days=night),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state="success",
            session=session,
        )
        run.verify_integrity(session=session, dag_version_id=run.created_dag_version_id)
        session.flush()
        for task in run.get_task_instances(session=session):
            task.state = "success"
        for task_id, value in returned.items():
            XComModel.set(
                "return_value", value, dag_id=dag_id, task_id=task_id, run_id=run_id, serialize=False, session=session
            )


def night_of(verdict: str, report_path: str = "", *, shape: float = 0.42, version: str = "9f2c") -> dict[str, Any]:
    """What the four telling tasks of a night return; publish only unless the verdict is `fail`."""
    metrics = {"shape_error_percent": shape, "trend_error_percent": 2 * shape, "c2st_auc": 0.5 + shape / 50}
    found: dict[str, Any] = {
        "augment.profile": {"profile_path": "p", "rows": 1000, "columns": 4, "fingerprint": "f", "run_id": "r"},
        "augment.train": {
            "model_version": version, "decision": "refresh", "reason": "Column b moved by 3 %.", "is_new": True,
            "steps": 300, "seconds": 12.5,
        },
        "augment.validate": {
            "verdict": verdict, "metrics": metrics, "noise_floor": {"shape_error_percent": 0.38, "c2st_auc": 0.503},
            "reasons": ["Shape error is 0.42 % and its limit 2 %."], "remedies": ["Nothing."],
            "report_path": report_path,
        },
    }  # fmt: skip
    if verdict != "fail":
        found["augment.publish"] = {
            "snapshot_path": "/data/augmented/snapshots/5f0c", "model_version": version, "verdict": verdict,
            "rows_source": 1000, "rows_synthetic": 1000, "report_path": report_path,
        }  # fmt: skip
    return found
