"""The HTML report: whole, escaped, self-contained; in a browser where there is one."""

import importlib.util
import shutil
import sys

import numpy as np
import pytest

from slams_jax.errors import InputError
from slams_jax.verify import plots
from slams_jax.verify.report import (
    Listing,
    Picture,
    Report,
    Section,
    Table,
    cell,
    markdown,
    render,
)
from support.pages import Page, check_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
SCORES = Table(
    "Scores <by> level",
    ["Level", "RMSE", "change"],
    [
        ["50 hPa", 0.25, "+1.5"],
        ["100 hPa", 12.0, "-3.0"],
        ["8 hPa", 3.5, "-12.0"],
        ["all", None, ""],
    ],
    "In K & more.",
)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "ranks.png"
    plots.save(plots.rank_histograms(np.ones((1, 3), int), ["a"]), path)
    picture = Picture(path.read_bytes(), "A rank histogram with three equal bars.", "Flat is good.")
    sections = [
        Section("Summary", ["Better & <b>best</b>."], [SCORES]),
        Section("Pictures", (), (), [picture, picture]),
        Section("Again", (), (), (), [Listing("Command", 'run --x="<y>"'), Listing("More", "{}")]),
    ]
    return render(Report('A "report"', [("Data", "<script>alert(1)</script>")], sections))


def test_a_report_is_whole_and_needs_nothing_else(text):
    page = check_page(text)
    assert len(page.named("img")) == 2
    assert page.named("details") == [{"open": None}, {}]
    shown = " ".join(page.text)
    for part in (
        "Better & <b>best</b>.",
        "<script>alert(1)</script>",
        'run --x="<y>"',
        "In K & more.",
    ):
        assert part in shown  # as text, so as nothing that a browser would obey
    assert len(page.named("script")) == 1
    assert not page.named("b")


def test_cells_and_markdown():
    assert [cell(v) for v in (None, float("nan"), 0.12345, -0.0001, 7, "x")] == [
        "",
        "",
        "0.123",
        "0.000",
        "7",
        "x",
    ]
    lines = markdown(SCORES).splitlines()
    assert lines[0] == "| Level | RMSE | change |"
    assert lines[2] == "| 50 hPa | 0.250 | +1.5 |"
    assert lines[5] == "| all |  |  |"


def test_numbers_are_set_to_the_right(text):
    cells = Page(text).named("td")
    assert [c.get("class") for c in cells] == [*["number"] * 7, None]


def test_bad_tables_and_a_missing_package_are_named(monkeypatch):
    bad = Table("T", ["a", "b"], [["x"]])
    with pytest.raises(InputError, match="row of the table 'T' has 1 cells, but its header has 2"):
        render(Report("r", [], [Section("s", (), [bad])]))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"pip install 'slams-jax\[plot\]'"):
        render(Report("r", [], []))


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("no Chromium or no playwright: apt install chromium, pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def column(page, index):
    rows = page.locator("table").first.locator("tbody tr")
    return [row.locator("th, td").nth(index).inner_text() for row in rows.all()]


@pytest.mark.slow
def test_in_a_browser_it_is_quiet_shows_all_and_sorts(text, browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    page, said, asked = browser.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
    assert page.locator("img").count() == 2
    head = page.locator("table").first.locator("thead button")
    head.nth(0).click()
    assert column(page, 0) == ["8 hPa", "50 hPa", "100 hPa", "all"]
    head.nth(1).click()
    assert column(page, 1) == ["0.250", "3.500", "12.000", ""]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    head.nth(1).click()
    assert column(page, 1) == ["12.000", "3.500", "0.250", ""]  # empty cells stay last
    head.nth(2).press("Enter")  # by keyboard alone
    assert column(page, 2) == ["-12.0", "-3.0", "+1.5", ""]
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
