"""A report in a real browser: no error, nothing asked of the network, tables and tabs at work."""

import shutil

import pytest

from benchmarks.report.command import write_report
from tests.benchmarks.test_posterior_report import GRID, carry_out

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium"),
]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = carry_out(tmp_path_factory.mktemp("browser") / "run", **GRID)
    return write_report(path)[0]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser, page_file, request):
    """The page, opened; afterwards there must be nothing on the console."""
    settings = getattr(request, "param", {})
    context = browser.new_context(offline=True, **settings)
    opened, said, asked = context.new_page(), [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(page_file.as_uri())
    yield opened
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    context.close()


def column(table, number):
    return table.locator(f"tbody tr td:nth-child({number})").all_inner_texts()


def test_a_click_sorts_and_a_second_one_turns_around(page):
    table = page.locator("table.sortable").first
    headers = table.locator("th").all_inner_texts()
    number = headers.index("objective") + 1
    before, button = column(table, number), table.locator(f"th:nth-child({number}) button")
    button.click()
    assert column(table, number) == sorted(before)
    assert table.locator(f"th:nth-child({number})").get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert column(table, number) == sorted(before, reverse=True)
    assert table.locator("th[aria-sort]").count() == 1
    table.locator("th:nth-child(1) button").click()
    assert column(table, number) == before
    assert table.locator("th[aria-sort]").all_inner_texts() == ["rank"]


def test_numbers_are_sorted_as_numbers(page):
    table = page.locator("table.sortable").first
    number = table.locator("th").all_inner_texts().index("total\nvariation") + 1
    for way in ("ascending", "descending"):
        table.locator(f"th:nth-child({number}) button").click()
        found = [float(text) for text in column(table, number)]
        assert found == sorted(found, reverse=way == "descending")


def test_tabs_show_one_panel_and_follow_the_arrow_keys(page):
    tabs = page.locator("[role=tablist]").first.locator("[role=tab]")
    assert tabs.all_inner_texts() == list(GRID["tasks"])
    first, second = (page.locator(f"#{tab.get_attribute('aria-controls')}") for tab in tabs.all())
    assert (first.is_visible(), second.is_visible()) == (True, False)
    tabs.nth(0).press("ArrowRight")
    assert (first.is_visible(), second.is_visible()) == (False, True)
    assert tabs.nth(1).get_attribute("aria-selected") == "true"
    assert page.evaluate("document.activeElement.id") == tabs.nth(1).get_attribute("id")


def test_print_shows_every_panel_and_no_tabs(page):
    page.emulate_media(media="print")
    assert all(panel.is_visible() for panel in page.locator(".panel").all())
    assert not page.locator("[role=tab]").first.is_visible()
    assert len(page.pdf(prefer_css_page_size=True)) > 10_000


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_javascript_everything_is_there(page):
    assert all(panel.is_visible() for panel in page.locator(".panel").all())
    assert page.locator(".label").first.is_visible()


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_a_telephone_scrolls_tables_and_not_the_page(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("table.sortable").first.bounding_box()["width"] > 390


CONTRASTS = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const style = getComputedStyle(document.documentElement);
  const of = (name) => light(style.getPropertyValue(name));
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const series = [0, 1, 2, 3, 4, 5, 6].map((i) => `--series-${i}`);
  const names = ["--ink", "--soft", "--accent", ...series];
  return Object.fromEntries(names.map((name) => [name, contrast(of(name), of("--paper"))]));
})()
"""


@pytest.mark.parametrize(
    "page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True
)
def test_text_and_lines_stand_out_in_light_and_dark(page):
    contrasts = page.evaluate(CONTRASTS)
    for name in ("--ink", "--soft", "--accent"):
        assert contrasts[name] >= 4.5, name  # WCAG 2.2, text
    for i in range(7):
        assert contrasts[f"--series-{i}"] > 2, i  # orange and sky blue have markers and dashes too
