"""report.html in a real browser: drawn, quiet, offline, and no wider than the window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Watched, browser, opened
from invented_search import GPU_PLAN, REFERENCE_SETTING, InventedTrial, invent_search, invented_trials
from playwright.sync_api import Browser

from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.outcome.report import write_report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # Chromium may have to be installed first

CHARTS = [
    "Validation accuracy of both",
    "Optimisation history",
    "Intermediate curves",
    "Parallel coordinates",
    "Importances",
    "lr",
    "max_norm",
    "effective_batch",
    "weight_decay",
    "Clip rate by max_norm",
    "Gradient norms by max_norm",
    "Skipped updates by max_norm",
    "Peak memory by batch size",
    "Speed by batch size",
    "Where the time went",
    "Seconds per epoch of each trial",
    "Confusion matrix",
]
# Of each chart: its title, its alternative text, the size of its drawing, and how many points, lines, bars or pictures
# it has drawn.
DRAWN = """[...document.querySelectorAll("figure.chart")].map(figure => {
  const plot = figure.querySelector(".plot"), svg = plot.querySelector("svg.main-svg");
  const {width, height} = svg ? svg.getBoundingClientRect() : {width: 0, height: 0};
  const kinds = ".scatterlayer .point, .scatterlayer .js-line, .barlayer .point path, .heatmaplayer image";
  const marks = plot.querySelectorAll(kinds).length;
  return {title: figure.querySelector("h3").textContent, alt: plot.getAttribute("aria-label"), width, height, marks};
})"""
CLASSES = ["<b>blight", "<img src=x onerror=alert(1)>", "rust & rot", "a_very_" * 12 + "long_name"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Path:
    """The report of a hundred trials on classes whose names look like HTML."""
    leaves = draw_leaves(tmp_path_factory.mktemp("data") / "leaves", classes=4, per_class=30, image_size=32)
    for folder, name in zip(sorted(leaves.iterdir()), CLASSES, strict=True):
        folder.rename(leaves / name)
    search = tmp_path_factory.mktemp("searches") / "search"
    skipping = InventedTrial({**REFERENCE_SETTING, "max_norm": 1.0}, [0.3, 0.4], metrics={"skipped_steps": 2})
    invent_search(search, leaves, shared_cache, [*invented_trials(99), skipping], GPU_PLAN)
    return write_report(search, shared_cache)


@pytest.fixture(scope="module", params=[1280, 400])
def page(request: pytest.FixtureRequest, chromium: Browser, report: Path) -> Iterator[Watched]:
    watched = opened(chromium, report, request.param)
    yield watched
    watched.page.close()


def test_the_console_stays_silent_and_nothing_is_asked_of_the_network(page: Watched, report: Path) -> None:
    assert page.complaints == []
    assert page.requests == [report.as_uri()]


def test_every_chart_is_drawn(page: Watched) -> None:
    charts = page.page.evaluate(DRAWN)

    assert [chart["title"] for chart in charts] == CHARTS
    for chart in charts:
        assert chart["width"] >= 280 and chart["height"] >= 200 and chart["marks"] >= 1, chart
        assert len(chart["alt"]) > 30, chart


def test_nothing_is_wider_than_the_window(page: Watched) -> None:
    assert page.page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0


def test_the_page_is_made_of_headings_named_regions_and_pictures_with_words(page: Watched) -> None:
    assert page.page.evaluate("document.querySelectorAll('h1').length") == 1
    assert page.page.evaluate("document.querySelectorAll('section > h2').length") == 10
    assert page.page.evaluate(
        "[...document.querySelectorAll('img')].every(image => image.alt && image.naturalWidth > 0)"
    )
    assert page.page.evaluate(
        "[...document.querySelectorAll('table')].every(table => table.querySelector('thead th[scope=col]'))"
    )
    assert page.page.evaluate(
        "[...document.querySelectorAll('nav a')].every(link => document.querySelector(link.getAttribute('href')))"
    )


def test_names_that_look_like_html_are_shown_as_they_are(page: Watched) -> None:
    assert page.page.evaluate("document.querySelectorAll('main b').length") == 0
    cells = page.page.evaluate(
        "[...document.querySelectorAll('#mistakes th[scope=row]')].map(cell => cell.textContent)"
    )
    assert "<b>blight" in cells and "<img src=x onerror=alert(1)>" in cells
    hover = page.page.evaluate("[...document.querySelectorAll('#mistakes .plot')].pop().data[0].customdata[0][0]")
    assert hover.startswith("&lt;b&gt;blight<br>taken for &lt;b&gt;blight: ")


def test_a_report_without_any_result_opens_too(
    chromium: Browser, tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    invent_search(tmp_path / "s", drawn_leaves, shared_cache, [InventedTrial(REFERENCE_SETTING, [], None)])
    watched = opened(chromium, write_report(tmp_path / "s", shared_cache), 400)

    assert (watched.complaints, len(watched.requests)) == ([], 1)
    assert watched.page.evaluate("document.documentElement.scrollWidth - innerWidth") == 0


def test_the_watch_sees_requests_complaints_and_overflow_where_there_are_some(
    chromium: Browser, tmp_path: Path
) -> None:
    (tmp_path / "bad.html").write_text(
        "<img src='missing.png' width=900><script>console.error('broken'); undefinedFunction()</script>"
    )
    watched = opened(chromium, tmp_path / "bad.html", 400)

    assert [Path(address).name for address in watched.requests] == ["bad.html", "missing.png"]
    assert any("broken" in complaint for complaint in watched.complaints)
    assert any("undefinedFunction" in complaint for complaint in watched.complaints)
    assert watched.page.evaluate("document.documentElement.scrollWidth - innerWidth") > 0
