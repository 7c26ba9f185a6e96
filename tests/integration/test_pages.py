"""The plugin's pages inside Airflow's own web application: what they show, to whom, and what they never open."""

import base64
import hashlib
import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pages_server import add_run, ask_unchanged, client_of, make_augmenting_dag, night_of, open_app
from vae_ops.validation.report import render_report
from vae_ops_provider.pages import reports

pytestmark = pytest.mark.airflow

RUN = "/dags/shown/runs/good"
ROUTES = {
    "/": "/",
    "/dags/{dag_id}": "/dags/shown?group=augment&map_index=-1",
    "/dags/{dag_id}/runs/{run_id}": RUN,
    "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}": f"{RUN}/tasks/augment.train/-1",
    "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}/report": f"{RUN}/tasks/augment.validate/-1/report",
}
REPORT = ROUTES["/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}/report"]
SECRET = "root:x:0:0"
HOSTILE = "<script>alert(1)</script>"
NIGHTS = 12


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report where a run of the store has it."""
    path = tmp_path_factory.mktemp("run") / "report.html"
    path.write_text("<!doctype html>\n<title>The report</title>")
    return path


@pytest.fixture(scope="module")
def app(page: Path) -> Iterator[FastAPI]:
    from airflow.api_fastapi.app import purge_cached_app
    from airflow.utils.db import upgradedb

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "tests.pages_server.NarrowAuthManager")
        patch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "only for tests " * 5)
        upgradedb()
        for dag_id in ("shown", "hidden", "odd"):
            make_augmenting_dag(dag_id)
        add_run("shown", "good", night_of("pass", str(page)), night=NIGHTS)
        for night in range(NIGHTS):
            add_run("shown", f"night-{night}", night_of("pass", shape=0.4 + 0.03 * night), night=night)
        add_run("hidden", "secret", night_of("borderline", str(page), version="hidden-version"))
        yield open_app()
    purge_cached_app()


@pytest.fixture(scope="module")
def reader(app: FastAPI) -> TestClient:
    return client_of(app, "ada", "viewer")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the pages open while a test runs, by URI."""
    import vae_ops.storage

    found: list[str] = []
    locate = vae_ops.storage.locate
    monkeypatch.setattr(vae_ops.storage, "locate", lambda uri: found.append(uri) or locate(uri))
    return found


# --- what is shown -----------------------------------------------------------------------------------------------


def test_the_overview_shows_verdict_model_rows_and_a_slow_decline(reader: TestClient) -> None:
    text = reader.get("/").text
    section = text[text.index("shown · augment") : text.index("</section>", text.index("shown · augment"))]
    assert "badge pass" in section
    for shown in ("9f2c", "refresh", "1,000", "just now", f"over {NIGHTS + 1} runs"):
        assert shown in section, shown
    assert section.count("<polyline") == 3
    assert section.count("getting worse") == 3
    assert section.count("<circle") == 3 * (NIGHTS + 1)


def test_a_history_lists_the_runs_with_the_newest_first(reader: TestClient) -> None:
    text = reader.get(ROUTES["/dags/{dag_id}"]).text
    runs = re.findall(r'/dags/shown/runs/([\w-]+)"', text)
    assert runs == ["good", *[f"night-{night}" for night in reversed(range(NIGHTS))]]
    assert "/data/augmented/snapshots/5f0c" in text


def test_a_run_frames_the_report_of_its_own_record(reader: TestClient, page: Path, opened: list[str]) -> None:
    (source,) = re.findall(r'<iframe [^>]*src="([^"]+)"', reader.get(RUN).text)
    assert source == "/vae-ops/dags/shown/runs/good/tasks/augment.publish/-1/report"
    answer = reader.get(source.removeprefix("/vae-ops"))
    assert answer.content == page.read_bytes()
    assert opened == [str(page)]


@pytest.mark.parametrize("map_index", ["-1", "{MAP_INDEX}", "%7BMAP_INDEX%7D"])
def test_a_train_task_shows_its_model(reader: TestClient, map_index: str) -> None:
    text = reader.get(f"{RUN}/tasks/augment.train/{map_index}").text
    assert "<h1>Train</h1>" in text
    for fact in ("9f2c", "refresh", "Column b moved by 3 %.", "300", "12.5"):
        assert fact in text


def test_a_run_that_was_refused_shows_its_reasons_and_no_snapshot(reader: TestClient, page: Path) -> None:
    add_run("odd", "refused", night_of("fail", str(page)))
    text = reader.get("/dags/odd/runs/refused").text
    assert "badge fail" in text
    assert "not published" in text
    assert "Shape error is 0.42 % and its limit 2 %." in text
    assert "augment.validate/-1/report" in text


def test_a_run_without_records_says_so(reader: TestClient) -> None:
    add_run("odd", "empty", {})
    assert "No report yet." in reader.get("/dags/odd/runs/empty").text
    assert "Nothing returned yet." in reader.get("/dags/odd/runs/empty/tasks/augment.train/-1").text


@pytest.mark.parametrize(
    "value",
    [None, 7, "text", "{", ["list"], {"verdict": 3, "metrics": [1], "report_path": {}},
     {"verdict": "great", "metrics": {"c2st_auc": "1", "shape_error_percent": None}}],
)  # fmt: skip
def test_a_record_of_another_shape_breaks_no_page(reader: TestClient, value: Any, request: Any) -> None:
    run_id = f"shape-{request.node.callspec.indices['value']}"
    add_run("odd", run_id, {f"augment.{step}": value for step in ("profile", "train", "validate", "publish")})
    for path in ("/", "/dags/odd?group=augment", f"/dags/odd/runs/{run_id}",
                 f"/dags/odd/runs/{run_id}/tasks/augment.validate/-1"):  # fmt: skip
        assert reader.get(path).status_code == 200, path
    assert reader.get(f"/dags/odd/runs/{run_id}/tasks/augment.validate/-1/report").status_code == 404


def test_what_a_record_says_is_text_and_never_markup(reader: TestClient) -> None:
    night = night_of("pass", HOSTILE)
    for record in night.values():
        record.update({name: HOSTILE for name, value in record.items() if isinstance(value, str)})
        record[HOSTILE] = HOSTILE
    night["augment.validate"].update(verdict="pass", reasons=[HOSTILE], metrics={"shape_error_percent": 1.0})
    add_run("odd", "hostile", night, night=400)
    for path in ("/", "/dags/odd?group=augment", "/dags/odd/runs/hostile",
                 *(f"/dags/odd/runs/hostile/tasks/{task_id}/-1" for task_id in night)):  # fmt: skip
        text = reader.get(path).text
        assert "<script" not in text.lower(), path
        assert html.escape(HOSTILE)[:20] in text, path


# --- to whom -----------------------------------------------------------------------------------------------------


def test_every_route_is_tried_here(app: FastAPI) -> None:
    mounted = next(route for route in app.routes if getattr(route, "path", "") == "/vae-ops")
    assert {route.path for route in mounted.app.routes} == set(ROUTES)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ROUTES.values())
def test_who_is_not_logged_in_is_turned_away(app: FastAPI, path: str, opened: list[str]) -> None:
    answer = client_of(app, None).get(path)
    assert answer.status_code == 401
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    forged = client_of(app, None).get(path, headers={"Authorization": "Bearer not.a.token"})
    assert forged.status_code == 403
    assert opened == []


@pytest.mark.parametrize("path", ROUTES.values())
def test_a_role_without_dags_sees_nothing(app: FastAPI, path: str, opened: list[str]) -> None:
    assert client_of(app, "nobody", None).get(path).status_code == 403
    assert opened == []


@pytest.mark.parametrize("path", [path for path in ROUTES.values() if path != "/"])
@pytest.mark.parametrize("smuggled", ["", "dag_id=hidden", "dag_id=~"])
def test_who_may_see_another_dag_may_not_see_this_one(
    app: FastAPI, path: str, smuggled: str, opened: list[str]
) -> None:
    answer = client_of(app, "only:hidden").get(f"{path}{'&' if '?' in path else '?'}{smuggled}")
    assert answer.status_code == 403
    assert opened == []


def test_the_overview_lists_readable_dags_only(app: FastAPI) -> None:
    text = client_of(app, "only:hidden").get("/").text
    assert "hidden-version" in text
    assert "shown" not in text
    assert "hidden-version" not in client_of(app, "only:shown").get("/?dag_id=hidden").text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/dags", "/pages.css"])
def test_nothing_else_is_served(reader: TestClient, path: str) -> None:
    assert reader.get(path).status_code == 404


@pytest.mark.parametrize("path", [*ROUTES.values(), "/dags/shown/runs/nowhere", "/nowhere"])
def test_every_answer_carries_strict_headers(reader: TestClient, path: str) -> None:
    answer = reader.get(path)
    headers = answer.headers
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert (headers["cache-control"], headers["x-frame-options"]) == ("no-store", "SAMEORIGIN")
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["frame-ancestors"]) == ("'none'", "'self'")
    assert "script-src" not in policy
    assert ("sandbox" in policy) == (path == REPORT)
    if path != REPORT:
        (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert policy["style-src"] == f"'sha256-{digest}'"


# --- what is never opened ----------------------------------------------------------------------------------------

WRONG_IDS = [
    "..", "../..", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%252e%252e%252fetc%252fpasswd",
    "%2fetc%2fpasswd", "/etc/passwd", "%5c..%5cetc", "file:%2f%2f%2fetc%2fpasswd", "~", "*", "%25", "secret", "a%00b",
    "a%0d%0ab", "%ff%fe", "%ed%a0%80", "9" * 40, "x" * 251, "x" * 60_000, "' OR 1=1 --", "%F0%9F%A6%8A",
]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/dags/{}", "/dags/{}/runs/good", "/dags/shown/runs/{}", "/dags/{}/runs/good/tasks/augment.validate/-1/report",
        "/dags/shown/runs/{}/tasks/augment.validate/-1/report", "/dags/shown/runs/good/tasks/{}/-1/report",
        "/dags/shown/runs/good/tasks/{}/-1", "/dags/shown/runs/good/tasks/augment.validate/{}/report",
        "/dags/shown?group={}", "/dags/shown?group=augment&map_index={}", "/dags/shown/runs/good?table={}",
    ],
)  # fmt: skip
def test_ids_that_are_none_open_nothing(app: FastAPI, reader: TestClient, path: str, opened: list[str]) -> None:
    for wrong in WRONG_IDS:
        status, _ = ask_unchanged(app, f"/vae-ops{path.format(wrong)}", reader.headers["Authorization"])
        assert 400 <= status < 500, wrong
    assert opened == []


def test_a_map_index_leads_to_that_instance_only(reader: TestClient, opened: list[str]) -> None:
    for wrong in ("0", "7", "-2", "999999999", "9999999999", "+1", "١", "{TASK_ID}"):
        assert reader.get(f"{RUN}/tasks/augment.validate/{wrong}/report").status_code == 404
    assert opened == []


def test_a_run_of_another_dag_is_not_reached_through_this_one(app: FastAPI, opened: list[str]) -> None:
    client = client_of(app, "only:shown")
    for path in ("/dags/shown/runs/secret", "/dags/shown/runs/secret/tasks/augment.validate/-1/report"):
        assert client.get(path).status_code == 404
    assert opened == []


def test_a_task_of_another_operator_has_no_page(reader: TestClient, page: Path, opened: list[str]) -> None:
    add_run("odd", "stranger", {"other": {"verdict": "pass", "report_path": str(page)}})
    assert reader.get("/dags/odd/runs/stranger/tasks/other/-1").status_code == 404
    assert reader.get("/dags/odd/runs/stranger/tasks/other/-1/report").status_code == 404
    assert opened == []


@pytest.mark.parametrize(
    "named",
    ["/etc/passwd", "SECRETS", "SECRETS/../report.html/../SECRETS", "FOLDER/report.html", "missing/report.html",
     "REPORT/../secrets.txt", "s3://unknown@bucket/runs/r/report.html", "nosuch://b/report.html", "\0/report.html"],
)  # fmt: skip
def test_a_record_that_names_no_report_page_gives_nothing_away(
    reader: TestClient, tmp_path: Path, named: str, request: Any
) -> None:
    (tmp_path / "secrets.txt").write_text(SECRET)
    (tmp_path / "report.html").write_text(SECRET)
    (tmp_path / "folder" / "report.html").mkdir(parents=True)
    for word, path in (("SECRETS", "secrets.txt"), ("REPORT", "report.html"), ("FOLDER", "folder")):
        named = named.replace(word, str(tmp_path / path))
    run_id = f"named-{request.node.callspec.indices['named']}"
    add_run("odd", run_id, night_of("pass", named))
    answer = reader.get(f"/dags/odd/runs/{run_id}/tasks/augment.validate/-1/report")
    assert answer.status_code == 404
    assert SECRET not in answer.text
    assert "Nothing to show." in answer.text


def test_a_report_page_that_is_no_page_is_not_served(reader: TestClient, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(SECRET)
    add_run("odd", "no-page", night_of("pass", str(tmp_path / "report.html")))
    answer = reader.get("/dags/odd/runs/no-page/tasks/augment.validate/-1/report")
    assert (answer.status_code, SECRET in answer.text) == (404, False)


def test_a_report_that_is_too_large_is_not_read(reader: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "_MOST_BYTES", 10)
    assert reader.get(REPORT).status_code == 413


def test_no_request_that_fits_the_schema_breaks_the_application(app: FastAPI, reader: TestClient) -> None:
    mounted = next(route for route in app.routes if getattr(route, "path", "") == "/vae-ops")
    schema = schemathesis.openapi.from_dict(mounted.app.openapi())  # type: ignore[attr-defined]
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert {operation.path for operation in operations} == set(ROUTES)

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(data=st.data())
    def try_one(data: st.DataObject) -> None:
        case = data.draw(st.sampled_from(operations).flatmap(lambda operation: operation.as_strategy()))
        request = case.as_transport_kwargs(base_url="http://testserver/vae-ops")
        answer = reader.request(request["method"], request["url"], params=request.get("params"))
        assert answer.status_code < 500, (request, answer.text)

    try_one()


# --- in Airflow --------------------------------------------------------------------------------------------------


def test_what_tasks_return_and_their_links_lead_to_the_pages(
    app: FastAPI, reader: TestClient, page: Path, stand_in: Callable[[str], str]
) -> None:
    records = {task_id.rpartition(".")[2]: value for task_id, value in night_of("pass", str(page)).items()}
    python = stand_in(f"emit('result', value={records!r}.get(STEP, {{}}))")
    run: Any = make_augmenting_dag("walked", python=python).test()
    assert str(run.state) == "success"
    text = reader.get(f"/dags/walked/runs/{run.run_id}").text
    (source,) = re.findall(r'<iframe [^>]*src="([^"]+)"', text)
    assert "badge pass" in text
    assert reader.get(source.removeprefix("/vae-ops")).content == page.read_bytes()
    assert "walked · augment" in reader.get("/").text

    links = TestClient(app, headers=dict(reader.headers))
    for step, name in (("train", "Model"), ("validate", "Validation report"), ("publish", "Snapshot")):
        found = links.get(f"/api/v2/dags/walked/dagRuns/{run.run_id}/taskInstances/augment.{step}/links").json()
        (url,) = found["extra_links"].values()
        assert list(found["extra_links"]) == [name]
        assert re.fullmatch(rf"/dags/walked/runs/[\w%.-]+/tasks/augment\.{step}/plugin/vae-ops-task", url), url


def test_airflow_knows_the_places_of_the_pages(app: FastAPI) -> None:
    admin = client_of(app, "ada", "admin")
    plugins = TestClient(app, headers=dict(admin.headers)).get("/api/v2/plugins").json()["plugins"]
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "vae_ops"]
    assert {view["destination"] for view in ours["external_views"]} == {"nav", "dag_run", "task_instance"}
    assert [mounted["url_prefix"] for mounted in ours["fastapi_apps"]] == ["/vae-ops"]


def test_the_pages_look_like_the_report(reader: TestClient) -> None:
    from tests.validations import make_validation

    def palette(text: str) -> list[str]:
        return re.findall(r"--\w+: light-dark\([^)]+\)", text)

    report = render_report(make_validation(["a", "b"], ["x"]))
    assert palette(reader.get("/").text) == palette(report) != []
