"""The report in a real browser: it executes and fetches nothing, and lays out from 400 to 1,600 px in both themes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.validations import make_validation
from vae_ops.validation.report import render_report

PAYLOADS = (
    "<script>window.pwned = 1</script>",
    "\"><img src=x onerror='window.pwned = 1'>",
    "'><svg/onload=window.pwned=1>",
    "</title></style></svg><script>window.pwned=1</script>",
    "javascript:window.pwned=1",
    "\"' style='background:url(https://example.invalid/)' onmouseover='window.pwned=1' $x^{2}$ ]]> \n\u202e🦜",
    "n" * 5_000,
    "W W " * 1_250,
)
WIDTHS = (400, 1_600)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every name and every value wants to run a script; 40 columns, so that some are folded away."""
    names = [f"{payload}{place}" for place in range(5) for payload in PAYLOADS]
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(make_validation(names, PAYLOADS)), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, report: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The hostile report, opened with everything unfolded; console and requests are watched from the start."""
    opened = browser.new_page(viewport={"width": getattr(request, "param", WIDTHS[1]), "height": 1_000})
    opened.set_default_timeout(20_000)
    opened.said = []  # type: ignore[attr-defined]
    opened.asked = []  # type: ignore[attr-defined]
    opened.on("console", lambda message: opened.said.append(message.text))  # type: ignore[attr-defined]
    opened.on("pageerror", lambda error: opened.said.append(str(error)))  # type: ignore[attr-defined]
    opened.on("dialog", lambda dialog: (opened.said.append("dialog"), dialog.dismiss()))  # type: ignore[attr-defined]
    opened.on("request", lambda request: opened.asked.append(request.url))  # type: ignore[attr-defined]
    opened.goto(report.as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(folded => folded.open = true)")
    yield opened
    opened.close()


def test_the_payloads_do_run_where_nobody_escapes(browser: Browser) -> None:
    for payload in PAYLOADS[:4]:
        opened = browser.new_page()
        opened.set_content(f"<title></title><p title=\"\"></p><p title=''></p><div>{payload}</div>")
        opened.wait_for_function("window.pwned === 1", timeout=20_000)
        opened.close()


def test_names_execute_nothing_and_fetch_nothing(page: Page, report: Path) -> None:
    assert page.evaluate("document.querySelectorAll('script, img, [onload], [onerror], [onmouseover]').length") == 0
    assert page.evaluate("window.pwned") is None
    assert page.said == []  # type: ignore[attr-defined]
    assert page.asked == [report.as_uri()]  # type: ignore[attr-defined]
    assert page.locator("text=<script>window.pwned = 1</script>0").count() > 0


def test_the_policy_would_stop_a_script_that_slipped_through(page: Page) -> None:
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.pwned = 2'}))")
    assert page.evaluate("window.pwned") is None
    assert "Content Security Policy" in page.said[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", WIDTHS, indirect=True)
def test_the_page_never_scrolls_sideways(page: Page) -> None:
    assert page.evaluate("document.scrollingElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]
    outside = """[...document.querySelectorAll('main *')].filter(element => {
        if (element.closest('.scroll') || element.closest('svg') || element.closest('.map')) return false
        const box = element.getBoundingClientRect()
        return box.width > 0 && (box.right > innerWidth + 1 || box.left < -1)
    }).map(element => element.outerHTML.slice(0, 120))"""
    assert page.evaluate(outside) == []


@pytest.mark.parametrize("page", WIDTHS, indirect=True)
def test_verdict_and_first_reason_are_seen_without_scrolling(page: Page) -> None:
    for selector in ("h1", ".headline", ".reasons li:first-child"):
        box = page.locator(selector).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 1_000, selector


@pytest.mark.parametrize("page", WIDTHS, indirect=True)
def test_a_table_scrolls_inside_its_own_frame(page: Page) -> None:
    widths = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth, e.clientWidth, e.offsetWidth])"
    )
    assert len(widths) >= 6
    assert all(outer <= page.viewport_size["width"] for _, _, outer in widths)  # type: ignore[index]
    if page.viewport_size == {"width": 400, "height": 1_000}:
        assert any(inner > shown for inner, shown, _ in widths)


def test_the_theme_follows_the_system_and_can_be_chosen(page: Page) -> None:
    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    def line() -> str:
        return str(page.evaluate("getComputedStyle(document.querySelector('.panel svg path')).fill"))

    page.emulate_media(color_scheme="light")
    light = ground(), line()
    page.emulate_media(color_scheme="dark")
    dark = ground(), line()
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    page.locator("label", has_text="Light").click()
    assert (ground(), line()) == light
    page.emulate_media(color_scheme="light")
    page.locator("label", has_text="Dark").click()
    assert (ground(), line()) == dark
