"""The report's page in a real browser: nothing fetched, nothing broken, readable in both themes and on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from pruning_core.reporting import page as report_page
from pruning_core.spec.report_parts.search import TrialReport
from tests.conftest import REPOSITORY
from tests.pruning_core import reports

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARTIFACTS = REPOSITORY / "tests" / "artifacts"
DESK, PHONE = 1100, 390


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here: one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    hostile = reports.full(
        2,
        perplexity=(reports.perplexity(reports.HOSTILE, 10.0, 12.0),),
        warnings=(reports.HOSTILE,),
    )
    wide = reports.full(80, perplexity=(reports.perplexity("a" * 100, 9.0, 1e6),))
    made = {
        "full": reports.full(),
        "least": reports.report(),
        "hostile": hostile,
        "wide": wide,
        "units": reports.refitted(),
        "long": reports.full(2, perplexity=(reports.perplexity("a", 123456.5, 1234567.25),)),
        "close": reports.full(
            4,
            perplexity=(reports.perplexity("a", 12.0, 300.0),),
            search=reports.search().model_copy(
                update={
                    "trials": (*reports.search().trials, TrialReport(g=0, b=0, kernel=3, value=61))
                }
            ),
        ),
        "far": reports.full(
            1,
            perplexity=(
                reports.perplexity("a", 1.5, 2e14),
                reports.perplexity("b", 3e-5, 12.0),
            ),
        ),
    }
    for name, report in made.items():
        (folder / f"{name}.html").write_text(report_page.html(report), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@dataclass
class Seen:
    """What the browser did on the page's behalf."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def opened(
    browser: Browser, path: Path, theme: Literal["light", "dark"], width: int
) -> tuple[Page, Seen]:
    context = browser.new_context(color_scheme=theme, viewport={"width": width, "height": 900})
    page, seen = context.new_page(), Seen()
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.goto(path.as_uri())
    return page, seen


@pytest.mark.parametrize("name", ["full", "least", "hostile", "wide", "units"])
@pytest.mark.parametrize(
    ("theme", "width"), [("light", DESK), ("dark", DESK), ("light", PHONE), ("dark", PHONE)]
)
def test_page_in_a_browser(
    browser: Browser,
    files: dict[str, Path],
    name: str,
    theme: Literal["light", "dark"],
    width: int,
) -> None:
    page, seen = opened(browser, files[name], theme, width)
    try:
        assert seen == Seen(requests=[files[name].as_uri()], complaints=[])
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        drawings = page.locator("svg")
        for index in range(drawings.count()):
            box = drawings.nth(index).bounding_box()
            assert box is not None
            assert box["width"] > 250
            assert box["height"] > 100
        page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
        found = Axe().run(page)
        assert found.response["passes"]
        assert found.violations_count == 0, found.generate_report()
    finally:
        ARTIFACTS.mkdir(exist_ok=True)
        page.screenshot(path=ARTIFACTS / f"report-{name}-{theme}-{width}.png", full_page=True)
        page.context.close()


OVERLAPS = """[...document.querySelectorAll('svg')].flatMap((svg) => {
  const all = [...svg.querySelectorAll('text')].map((one) => [one.textContent, one.getBoundingClientRect()]);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
  return all.flatMap(([text, box], at) => all.slice(at + 1)
    .filter(([, other]) => meet(box, other)).map(([other]) => `${text} over ${other}`));
})"""


@pytest.mark.parametrize("name", ["full", "hostile", "wide", "units", "long", "close", "far"])
def test_no_text_of_a_plot_lies_over_another(
    browser: Browser, files: dict[str, Path], name: str
) -> None:
    page, _ = opened(browser, files[name], "light", PHONE)
    assert page.locator("svg text").count() > 5
    assert page.evaluate(OVERLAPS) == []
    page.context.close()


def test_plots_change_with_the_theme(browser: Browser, files: dict[str, Path]) -> None:
    colours = set()
    for theme in ("light", "dark"):
        page, _ = opened(browser, files["full"], theme, DESK)  # type: ignore[arg-type]
        script = "getComputedStyle(document.querySelector('svg text')).fill"
        colours.add(page.evaluate(script))
        page.context.close()
    assert len(colours) == 2
