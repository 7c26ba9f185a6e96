"""Who may see a page: Airflow's own authentication, and the reader's access to the DAG that the page is about.

What the pages show are return values of tasks, so Airflow's permission to read a DAG's XComs decides; `app.py` puts
`GUARDED` in front of every route.
"""

from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user, requires_access_dag
from fastapi import Depends, HTTPException, Request, status

__all__ = ["GUARDED", "ReadableDagIds"]

_LONGEST_ID = 250  # Airflow's own limit for the ids of DAGs, runs and tasks


def _check_ids(request: Request) -> None:
    """Turns away ids that Airflow cannot have made, before a database sees them: PostgreSQL fails on a NUL."""
    for ids in (request.path_params, request.query_params):
        for name, value in ids.items():
            if len(value) > _LONGEST_ID or not value.isprintable():
                raise HTTPException(
                    status.HTTP_400_BAD_REQUEST,
                    f"Expected at most {_LONGEST_ID} printable characters as {name[:50]!r}; follow the pages' links.",
                )


def _readable_dag_ids(user: Annotated[BaseUser, Depends(get_user)]) -> set[str]:
    manager: Any = get_auth_manager()
    readable: set[str] = manager.get_authorized_dag_ids(user=user, method="GET")
    return readable


ReadableDagIds = Annotated[set[str], Depends(_readable_dag_ids)]
"""The DAGs that the reader may see."""

# In this order: 401 for whoever is not logged in, 400 for what is no id, 403 for whoever may not see this DAG. Without
# a DAG in the path, the last asks whether the reader may see XComs at all.
GUARDED = [
    Depends(get_user),
    Depends(_check_ids),
    Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM)),
]
