"""Airflow's UI as people use it: log in, trigger through the form, watch, read the report, follow links, approve.

One night, triggered through the form, serves most tests. VAE_OPS_PICTURES=DIRECTORY keeps a picture of each page.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, FrameLocator, Locator, Page, expect

from tests.stand_in_interpreter import write_interpreter
from tests.stand_in_model import some_rows
from tests.system.airflow_server import ANY_GATE, TINY, AirflowServer
from vae_ops import load_latest

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

NIGHT, TRAINING, ASKING = "nightly_augmentation", "train_on_augmented", "partitioned_tables"
KEY = "2026-11-20"
# The stand-in copies training rows: far more than the limit, and the factor makes that borderline.
BORDERLINE = {"gate": {**ANY_GATE["gate"], "max_copy_excess_percent": 60, "borderline": 100}}
# What the trends show is measured, and lets everything pass.
WIDE_GATE = {"gate": {**ANY_GATE["gate"], "max_shape_error_percent": 100, "max_trend_error_percent": 100}}
PATIENCE = 60_000
RUN_PATIENCE = 240_000


@pytest.fixture(scope="module")
def page(browser: Browser, airflow_server: AirflowServer) -> Iterator[Page]:
    """A window in which the administrator has logged in through the form."""
    expect.set_options(timeout=PATIENCE)
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.goto(airflow_server.url)
    opened.fill("input[name=username]", "admin")
    opened.fill("input[type=password]", airflow_server.api.passwords["admin"])
    opened.click("button[type=submit]")
    expect(opened.get_by_role("link", name="Dags", exact=True).first).to_be_visible(timeout=PATIENCE)
    yield opened
    context.close()


@dataclass(frozen=True)
class Night:
    """A run that was triggered through the form; where its page is."""

    run_id: str
    url: str


@pytest.fixture(scope="module")
def night(page: Page, airflow_server: AirflowServer) -> Night:
    before = {run["dag_run_id"] for run in airflow_server.api.runs(NIGHT)}
    page.goto(f"{airflow_server.url}/dags/{NIGHT}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.locator("[role=dialog][data-state=open]")
    form.locator("input[name=element_rows]").fill("60")
    form.locator("textarea[name=element_exclude]").fill("id")
    form.get_by_role("button", name="Advanced", exact=True).click()
    form.locator(".monaco-editor").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(json.dumps(TINY | WIDE_GATE))
    page.keyboard.press("Control+Shift+End")  # the editor has closed quotes and braces by itself
    page.keyboard.press("Delete")
    keep_picture(page, "form")
    form.get_by_role("button", name="Trigger", exact=True).click()
    expect(form).to_be_hidden(timeout=PATIENCE)
    (run,) = [run for run in airflow_server.api.runs(NIGHT) if run["dag_run_id"] not in before]
    return Night(run["dag_run_id"], f"{airflow_server.url}/dags/{NIGHT}/runs/{run['dag_run_id']}")


def keep_picture(page: Page, name: str) -> None:
    if folder := os.environ.get("VAE_OPS_PICTURES"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def state_of(page: Page, run_id: str) -> Locator:
    """The badge beside the name of the run, which changes by itself."""
    return page.locator(f"h2:has-text('{run_id}') ~ [data-testid=state-badge]")


def framed(page: Page) -> FrameLocator:
    """Our page inside Airflow's."""
    return page.frame_locator("iframe")


def test_the_form_starts_a_run_with_what_was_typed(night: Night, airflow_server: AirflowServer) -> None:
    conf = airflow_server.api.run(NIGHT, night.run_id)["conf"]
    assert (conf["rows"], conf["exclude"], conf["settings"]) == (60, ["id"], TINY | WIDE_GATE)
    assert (conf["source"], conf["refresh"]) == (str(airflow_server.source), "auto")


def test_the_form_says_what_is_wrong_with_a_value(page: Page, airflow_server: AirflowServer) -> None:
    before = len(airflow_server.api.runs(NIGHT))
    page.goto(f"{airflow_server.url}/dags/{NIGHT}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.locator("[role=dialog][data-state=open]")
    form.locator("textarea[name=element_ratio]").fill("a lot")
    form.get_by_role("button", name="Trigger", exact=True).click()
    expect(page.get_by_text(re.compile("ratio.*a lot|a lot.*does not match", re.S)).first).to_be_visible(
        timeout=PATIENCE
    )
    assert len(airflow_server.api.runs(NIGHT)) == before


def test_progress_is_seen_while_a_task_runs(page: Page, night: Night) -> None:
    page.goto(f"{night.url}/tasks/augment.train")
    expect(page.get_by_text(re.compile(r"train +\d+ %"))).not_to_have_count(0, timeout=RUN_PATIENCE)
    keep_picture(page, "progress")
    page.goto(night.url)
    expect(state_of(page, night.run_id)).to_have_text("Success", timeout=RUN_PATIENCE)


@pytest.fixture(scope="module")
def published(night: Night, airflow_server: AirflowServer) -> dict[str, object]:
    """What the night's last task left; the night has ended."""
    assert airflow_server.wait_for_run(NIGHT, night.run_id) == "success"
    record: dict[str, object] = airflow_server.api.record(NIGHT, night.run_id, "augment.publish")
    return record


def test_the_report_is_a_tab_of_the_run(page: Page, night: Night, published: dict[str, object]) -> None:
    page.goto(night.url)
    page.get_by_role("link", name="VAE report").click()
    expect(framed(page).get_by_text(f"{NIGHT} · augment")).to_be_visible(timeout=PATIENCE)
    report = framed(page).frame_locator("iframe")
    expect(report.locator("h1")).to_have_text("Pass")
    expect(report.get_by_text("60 synthetic rows").first).to_be_visible()
    keep_picture(page, "report")


@pytest.mark.parametrize(
    ("task", "button", "shown"),
    [
        ("train", "Model", "Model version"),
        ("validate", "Validation report", "Verdict"),
        ("publish", "Snapshot", "Rows synthetic"),
    ],
)
def test_a_button_on_the_task_leads_to_its_record(
    page: Page, night: Night, published: dict[str, object], task: str, button: str, shown: str
) -> None:
    page.goto(f"{night.url}/tasks/augment.{task}/details")
    page.get_by_role("link", name=button).or_(page.get_by_role("button", name=button)).first.click()
    expect(page).to_have_url(re.compile(rf"/tasks/augment\.{task}/plugin/vae-ops-task"))
    expect(framed(page).get_by_text(shown).first).to_be_visible()


def test_the_training_dag_has_started_by_itself(page: Page, night: Night, published: dict[str, object]) -> None:
    page.goto(f"{night.url}/tasks/augment.publish/asset_events")
    page.get_by_role("link", name=TRAINING).first.click()
    expect(page).to_have_url(re.compile(rf"/dags/{TRAINING}/runs/asset_triggered"))
    expect(state_of(page, "asset_triggered")).to_have_text("Success", timeout=RUN_PATIENCE)
    keep_picture(page, "training")


def test_the_browse_menu_leads_to_tables_and_trends(
    page: Page, airflow_server: AirflowServer, published: dict[str, object]
) -> None:
    page.goto(airflow_server.url)
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Augmented tables").click()
    expect(framed(page).get_by_role("heading", name="Augmented tables")).to_be_visible(timeout=PATIENCE)
    expect(framed(page).locator("svg").first).to_be_visible()
    expect(framed(page).get_by_text(f"{NIGHT} · augment").first).to_be_visible()
    keep_picture(page, "tables")


def test_a_person_approves_a_borderline_night(page: Page, airflow_server: AirflowServer, tmp_path: Path) -> None:
    source, output = tmp_path / "table.parquet", tmp_path / "out"
    pq.write_table(some_rows(400), source)
    conf = {
        "source": str(source), "output": str(output), "python": write_interpreter(tmp_path), "settings": BORDERLINE,
    }  # fmt: skip
    body = {"logical_date": None, "partition_key": KEY, "conf": conf}
    run_id = str(airflow_server.api.send("POST", f"/dags/{ASKING}/dagRuns", body)["dag_run_id"])
    airflow_server.wait_for_task(ASKING, run_id, "augment.approve", {"awaiting_input", "deferred"})
    page.goto(f"{airflow_server.url}/dags/{ASKING}/runs/{run_id}/tasks/augment.approve/required_actions")
    expect(page.get_by_text("equal a training row").first).to_be_visible(timeout=PATIENCE)
    keep_picture(page, "approval")
    page.get_by_role("button", name="Approve").click()
    assert airflow_server.wait_for_run(ASKING, run_id) == "success"
    assert load_latest(output / f"partition={KEY}").verdict == "borderline"
