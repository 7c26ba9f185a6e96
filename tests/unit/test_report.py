"""The report: whole without a network, honest about what is missing, and deaf to whatever names want it to do."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.validations import NAMES, make_refresh, make_validation
from vae_ops.drift import Drift
from vae_ops.validation.evidence import Distances, Distribution, Interval, Validation
from vae_ops.validation.report import _duel, render_report
from vae_ops.validation.succession import Trial

MEGABYTE = 1024 * 1024
VOID = {"br", "i", "input", "meta"}
HOSTILE = (
    "<script>window.pwned = 1</script>",
    "\"><img src=x onerror='window.pwned = 1'>",
    "</style></title><svg onload=window.pwned=1>",
    'it\'s "quoted" & $\\frac{1}{0}$ ]]> --> {{ 7 * 7 }} {% raw %}',
    "line\nbreak\ttab\x00null\u202eoverride\u2066",
    "🦜 עברית 漢字 \ud800",
    "x" * 5_000,
    "",
)


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, in order, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID - {"i"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def attributes(self, name: str) -> Iterator[str]:
        return (attributes[name] or "" for _, attributes in self.tags if name in attributes)


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_report(make_validation()))


def test_the_verdict_and_its_reasons_come_first(page: Page) -> None:
    words = page.words
    marks = ["2 of 4 findings are over the limit", "Column 'age' is off.", "Look at gold.", "Trees tell."]
    places = [words.index(mark) for mark in marks]
    assert places == sorted(places)
    assert words.index("Every finding against its limit") < words.index("Columns, the worst first")


def test_every_tag_is_closed_and_every_id_is_unique(page: Page) -> None:
    assert page.open == []
    ids = list(page.attributes("id"))
    assert len(ids) == len(set(ids))
    assert set(page.attributes("aria-labelledby")) <= set(ids)
    assert {link.removeprefix("#") for link in page.attributes("href")} <= set(ids)


def test_nothing_is_fetched_and_nothing_runs(page: Page) -> None:
    forbidden = {"script", "iframe", "object", "embed", "link", "base", "form", "img", "image", "use", "foreignobject"}
    assert forbidden.isdisjoint(tag for tag, _ in page.tags)
    names = {name for _, attributes in page.tags for name in attributes}
    assert not any(name.startswith("on") or name in ("src", "srcset", "action", "xlink:href") for name in names)
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert not any("url(" in style for style in page.attributes("style"))
    sheet = files("vae_ops.validation").joinpath("templates/report.css").read_text()
    assert not re.search(r"url\(|@import|//", sheet)
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "script-src" not in policy


def test_headings_descend_one_level_at_a_time(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_figure_has_words_for_those_who_do_not_see_it(page: Page) -> None:
    drawings = [attributes for tag, attributes in page.tags if tag == "svg" or attributes.get("role") == "img"]
    assert len(drawings) > 15
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)


def test_all_evidence_is_shown(page: Page) -> None:
    for piece in (
        "0.630", "0.610 to 0.650", "The prior is at fault.", "2 of 3 dimensions are in use",
        "0.5 parts synthetic to one part",
        "Half a part gains gold.", "29,304 rows", "50.8 %", "all rows", "Linkage with gold.", "2 of 12",
        "rare category", "9eb6d5d8", "gate.max_c2st_auc", "20,000", "best on held-out rows",
    ):  # fmt: skip
        assert piece in page.words, piece


OPTIONAL = ("c2st", "two_sided", "privacy", "utility")
ABSENT = {
    "c2st": "The test is switched off",
    "two_sided": "It takes the model that drew the rows",
    "privacy": "Privacy is switched off",
    "utility": "--target COLUMN",
    "history": "bring its history along",
    "columns": "No column was compared",
    "pairs": "It takes two comparable columns",
    "findings": "Draw some synthetic rows",
    "provenance": "Nothing is on record about model and run",
    "sizes": "No sizes on record.",
}


@pytest.mark.parametrize("field", ABSENT)
def test_what_was_not_measured_is_said_with_how_to_get_it(page: Page, field: str) -> None:
    empty: Any = {"provenance": {}, "sizes": {}}.get(field, None if field in OPTIONAL else ())
    assert ABSENT[field] in Page(render_report(make_validation(**{field: empty}))).words
    assert ABSENT[field] not in page.words


def test_utility_that_could_not_be_measured_says_why() -> None:
    utility = make_validation().utility
    assert utility is not None
    curveless = dataclasses.replace(utility, dose_curve=None)
    assert "--ratio auto" in Page(render_report(make_validation(utility=curveless))).words
    why = dataclasses.replace(utility, task=None, not_measured="Only 12 rows are left to test on.")
    words = Page(render_report(make_validation(utility=why))).words
    assert "Not measured. Only 12 rows are left to test on." in words
    assert "are scored on" not in words


def test_nothing_at_all_still_makes_a_page() -> None:
    bare = Validation("pass", (), (), (), None, None, None, None, {}, 0)
    words = Page(render_report(bare)).words
    assert words.count("Not measured.") >= 8
    assert "Nothing was judged" in words


def test_the_same_validation_gives_the_same_bytes_in_any_process() -> None:
    code = "from tests.validations import make_validation; from vae_ops.validation.report import render_report; "
    code += "import hashlib; print(hashlib.sha256(render_report(make_validation()).encode()).hexdigest())"
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "MPLBACKEND": "agg"}
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=root)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_rendering_leaves_matplotlib_as_it_was() -> None:
    before = dict(mpl.rcParams)
    render_report(make_validation())
    assert dict(mpl.rcParams) == before


def test_importing_the_gate_loads_no_plotting() -> None:
    code = "import json, sys, vae_ops.validation; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"matplotlib", "jinja2"}.isdisjoint(json.loads(done.stdout))


def test_three_hundred_columns_of_five_thousand_characters_stay_small() -> None:
    names = [f"{place:03d}" + "n" * 5_000 for place in range(300)]
    html = render_report(make_validation(names, ["w" * 5_000 + str(place) for place in range(40)]))
    assert len(html.encode()) < 3 * MEGABYTE
    page = Page(html)
    assert all(len(title) <= 300 for title in page.attributes("title"))
    assert max(map(len, page.words.split())) <= 700
    assert "Distributions of the next 72 columns" in page.words
    assert "The other 276 columns in numbers" in page.words


@pytest.fixture(scope="module")
def plain() -> Page:
    return Page(render_report(make_validation(NAMES, ("gold",))))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_change_no_tag(plain: Page, text: str) -> None:
    names = [f"{text}{place}" for place in range(len(NAMES))]
    assert structure(Page(render_report(make_validation(names, (text,))))) == structure(plain)


def structure(page: Page) -> list[Any]:
    """Tags with the names of their attributes; a title only says that a name was cut or spelt out."""
    return [(tag, sorted(set(attributes) - {"title"})) for tag, attributes in page.tags]


def test_what_cannot_be_seen_is_spelt_out() -> None:
    words = Page(render_report(make_validation(["a\nb\u202ec", *NAMES]))).words
    assert "a\\nb\\u202ec" in words
    assert "\u202e" not in words


@settings(max_examples=10, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_is_text(plain: Page, text: str) -> None:
    html = render_report(make_validation([f"{text}{place}" for place in range(len(NAMES))], (text,)))
    html.encode()
    assert structure(Page(html)) == structure(plain)


@settings(max_examples=15, deadline=None)
@given(values=st.lists(st.floats(), min_size=4, max_size=4), shares=st.lists(st.floats(), min_size=5, max_size=5))
def test_any_number_is_drawn_or_left_out(values: list[float], shares: list[float]) -> None:
    whole = make_validation()
    value, low, high, noise = values
    drawn = Distribution("histogram", tuple(shares), (), tuple(values), tuple(reversed(values)))
    assert whole.privacy is not None
    validation = dataclasses.replace(
        whole,
        findings=tuple(
            dataclasses.replace(finding, value=value, interval=Interval(low, high), noise=noise)
            for finding in whole.findings
        ),
        columns=tuple(dataclasses.replace(column, error_percent=value, distribution=drawn) for column in whole.columns),
        pairs=tuple(dataclasses.replace(pair, strength_real=value, strength_synthetic=noise) for pair in whole.pairs),
        privacy=dataclasses.replace(whole.privacy, distances=Distances(tuple(shares), tuple(values), tuple(values))),
        history=({"step": value, "loss": low, "holdout_loss": high, "kl": noise},),
    )
    assert Page(render_report(validation)).open == []


def test_the_templates_are_part_of_the_package() -> None:
    folder = files("vae_ops.validation").joinpath("templates")
    assert {"report.html.jinja", "report.css", "parts.html.jinja"} <= {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("text", ["ink", "soft", "pass", "borderline", "fail"])
def test_text_stands_out_from_its_ground(text: str, theme: int) -> None:
    sheet = files("vae_ops.validation").joinpath("templates/report.css").read_text()
    colours = {name: pair[theme] for name, *pair in re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", sheet)}
    for ground in ("paper", "card", "sunk"):
        assert contrast(colours[text], colours[ground]) >= 4.5, ground


def contrast(first: str, second: str) -> float:
    """WCAG 2's contrast ratio of two colours, 1 to 21."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_decision_is_shown_with_trial_lineage_and_drift(page: Page) -> None:
    for piece in (
        "Which model drew these rows?", "The champion stays: the refreshed model lost the trial.",
        "Column 'age' moved, gold.", "5d17c0ffee42", "trained from nothing", "The challenger is worse in gold.",
        "The column that lost most", "9.40 %", "0.95 to 1.43", "20,000 rows of each model beside 2,930 real rows",
        "age with income", "12.0 %", "28,950 rows then, 29,304 tonight",
    ):  # fmt: skip
        assert piece in page.words, piece
    outcomes = re.findall(r"[✕✓–] (worse|better|not worse)", page.words)
    assert outcomes == ["worse", "worse", "not worse", "better", "not worse"]


def test_without_a_run_there_is_no_decision_to_show() -> None:
    without = Page(render_report(make_validation(refresh=None)))
    assert "Which model drew" not in without.words
    assert "#decision" not in list(without.attributes("href"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"decision": "reuse", "trial": None}, "The champion was reused, without any training."),
        ({"trial": Trial(True, "As good.")}, "The champion was refreshed, and it won the trial."),
        ({"decision": "retrain", "trial": None}, "A model was trained from nothing."),
        ({"drift": None, "trial": None, "lineage": ()}, "drew these rows, trained from nothing"),
        ({"drift": Drift("quiet", 9, 9, (), ())}, "Nothing: none of 0 columns and 0 pairs has moved beyond chance."),
        ({"lineage": tuple(f"model-{place}" for place in range(20))}, "12 more, back to the one trained from nothing"),
    ],
)
def test_every_decision_has_its_words(changed: dict[str, Any], said: str) -> None:
    assert said in Page(render_report(make_validation(refresh=make_refresh(**changed)))).words


def test_a_difference_is_drawn_on_its_side_of_equal() -> None:
    marks = {duel.metric.metric: duel for duel in map(_duel, make_refresh().trial.metrics)}  # type: ignore[union-attr]
    worse, better = marks["shape_error_percent"], marks["c2st_auc"]
    assert worse.equal == better.equal == 50.0
    assert worse.start == 50.0 < worse.margin < worse.whisker[0] < worse.end < worse.whisker[1] < 100.0
    assert 0.0 < better.whisker[0] < better.start < better.whisker[1] < better.end == 50.0 < better.margin
