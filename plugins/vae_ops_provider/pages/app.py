"""The web application behind the plugin's pages: overview of tables, one table's history, a run, a task, its report.

Airflow's api-server mounts it below `PREFIX`. Every route stands behind `access.py`, every answer carries the headers
below, and there is no documentation endpoint. Pages are plain HTML: they run no script and load nothing from elsewhere.
"""

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vae_ops_provider.pages.access import GUARDED, ReadableDagIds
from vae_ops_provider.pages.records import SHOWN_RUNS, Table, TaskKey, find_tables, read_dag_run, read_task
from vae_ops_provider.pages.reports import read_report
from vae_ops_provider.pages.trends import HEIGHT, WIDTH, trends_of

__all__ = ["make_app"]

# A report is laid out with style attributes; `sandbox` takes away its origin, whatever wrote the file.
_REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_UNMAPPED = -1

_router = APIRouter(dependencies=GUARDED, default_response_class=HTMLResponse)


def make_app() -> FastAPI:
    """Builds the application."""
    app = FastAPI(title="vae-ops", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.include_router(_router)
    app.add_middleware(_StrictHeaders)
    app.add_exception_handler(StarletteHTTPException, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_bad_request)
    return app


# --- routes ------------------------------------------------------------------------------------------------------


@_router.get("/")
def show_tables(request: Request, session: SessionDep, dag_ids: ReadableDagIds) -> HTMLResponse:
    """All augmented tables whose DAG the reader may see."""
    tables = [(table, trends_of(table.runs)) for table in find_tables(session, dag_ids)]
    return _page(request, "tables.html.jinja", tables=tables)


@_router.get("/dags/{dag_id}")
def show_history(
    request: Request,
    session: SessionDep,
    dag_id: str,
    group: Annotated[str, Query()] = "",
    map_index: Annotated[str, Query()] = str(_UNMAPPED),
) -> HTMLResponse:
    """One table's runs."""
    wanted = (group, _parse_map_index(map_index))
    table = next((t for t in find_tables(session, {dag_id}) if (t.group, t.map_index) == wanted), None)
    if table is None:
        raise _not_found("There is no such augmented table: open the list of tables.")
    return _page(request, "history.html.jinja", table=table, trends=trends_of(table.runs))


@_router.get("/dags/{dag_id}/runs/{run_id}")
def show_run(
    request: Request, session: SessionDep, dag_id: str, run_id: str, table: Annotated[int, Query(ge=0, lt=1000)] = 0
) -> HTMLResponse:
    """What a DAG run did for one of its tables, and the report."""
    found = read_dag_run(session, dag_id, run_id)
    if table >= len(found):
        raise _not_found("No task of this DAG run belongs to vae-ops, so there is nothing to report.")
    shown, run = found[table]
    tables = [other for other, _ in found]
    framing = run.reported is not None
    return _page(request, "run.html.jinja", table=shown, run=run, tables=tables, place=table, framing=framing)


@_router.get("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}")
def show_task(
    request: Request, session: SessionDep, dag_id: str, run_id: str, task_id: str, map_index: str
) -> HTMLResponse:
    """What one task returned, and the report that it names."""
    task = read_task(session, TaskKey(dag_id, run_id, task_id, _parse_map_index(map_index)))
    if task is None:
        raise _not_found("This task does not belong to vae-ops, so there is nothing to show.")
    return _page(request, "task.html.jinja", task=task, framing=bool(task.text("report_path")))


@_router.get("/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}/report")
def show_report(session: SessionDep, dag_id: str, run_id: str, task_id: str, map_index: str) -> Response:
    """The report that a task's record names, as it was written."""
    task = read_task(session, TaskKey(dag_id, run_id, task_id, _parse_map_index(map_index)))
    return HTMLResponse(read_report(task), headers={"Content-Security-Policy": _REPORT_POLICY})


def _parse_map_index(text: str) -> int:
    """The index; Airflow's UI leaves `{MAP_INDEX}` as it is where a task is not mapped."""
    if text in ("{MAP_INDEX}", str(_UNMAPPED)):
        return _UNMAPPED
    # A database refuses what is no 32-bit integer.
    if not re.fullmatch("[0-9]{1,9}", text):
        raise _not_found("Expected the number of a mapped task, or -1 of one that is not mapped: follow a link.")
    return int(text)


def _not_found(sentence: str) -> HTTPException:
    return HTTPException(status.HTTP_404_NOT_FOUND, sentence)


# --- answers -----------------------------------------------------------------------------------------------------


def _page(request: Request, template: str, *, status_code: int = 200, **values: Any) -> HTMLResponse:
    environment, now = _environment(), datetime.now(UTC)
    html = environment.get_template(template).render(base=request.scope.get("root_path", ""), now=now, **values)
    return HTMLResponse(html, status_code)


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    page = _page(request, "error.html.jinja", status_code=error.status_code, sentence=str(error.detail))
    page.headers.update(error.headers or {})
    return page


async def _answer_bad_request(request: Request, error: Exception) -> Response:
    sentence = "The address makes no sense: follow a link of these pages."
    return _page(request, "error.html.jinja", status_code=status.HTTP_400_BAD_REQUEST, sentence=sentence)


class _StrictHeaders:
    """Puts the security headers on every answer, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _headers().items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


@cache
def _headers() -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(_css().encode()).digest()).decode()
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'self'"
        ),
        "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
    }


# --- templates ---------------------------------------------------------------------------------------------------


@cache
def _environment() -> Environment:
    from vae_ops.validation import report_text as text  # imports NumPy

    environment = Environment(
        # The report's style sheet and badges serve the pages too, so that both look alike.
        loader=ChoiceLoader([PackageLoader("vae_ops_provider.pages"), PackageLoader("vae_ops.validation")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("count", "metric_title", "number", "quantity", "visible")
    environment.filters.update({name: getattr(text, name) for name in names})
    environment.filters.update({"age": _age, "segment": _segment, "moment": _moment, "table_name": _table_name})
    environment.globals.update(css=Markup(_css_of(environment)), width=WIDTH, height=HEIGHT, most_runs=SHOWN_RUNS)
    return environment


def _css() -> str:
    return str(_environment().globals["css"])


def _css_of(environment: Environment) -> str:
    return "".join(environment.get_template(name).render() for name in ("report.css", "pages.css"))


def _segment(text: str) -> str:
    """A text as one segment of a URL's path, or as a value in its query."""
    return quote(text, safe="")


def _moment(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if at else ""


def _age(at: datetime, now: datetime) -> str:
    passed = max(now - at, timedelta())
    for unit, size in (("d", timedelta(days=1)), ("h", timedelta(hours=1)), ("min", timedelta(minutes=1))):
        if passed >= size:
            return f"{passed // size} {unit} ago"
    return "just now"


def _table_name(table: Table) -> str:
    """The DAG and the task group, as both name the table."""
    group = table.group if table.map_index < 0 else f"{table.group} [{table.map_index}]"
    return f"{table.dag_id} · {group}" if group else table.dag_id
