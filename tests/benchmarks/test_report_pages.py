"""Documents as HTML and as Markdown: nothing is loaded, nothing breaks out, nothing is lost."""

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure as Picture
from PIL import Image

from benchmarks.report.curves import Axes, Line, draw_curves
from benchmarks.report.document import (
    Bullets,
    Code,
    Document,
    Entry,
    Figure,
    Interval,
    Notice,
    Paragraph,
    Section,
    Strong,
    Table,
    Tabs,
)
from benchmarks.report.heat_map import draw_heat_map
from benchmarks.report.html import to_html
from benchmarks.report.markdown import to_markdown
from benchmarks.report.numbers import counted, duration, listing, p_value, significant, times
from benchmarks.report.svg import INK, SERIES, standalone, style, to_svg
from benchmarks.report.ticks import round_up

HOSTILE = '<script>alert("x")</script> & a|b *c* `d` [e](f) _g_'

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """A page's tags, attributes and text; raises where tags are not balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(text)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def assert_self_contained(text):
    """Nothing is loaded from elsewhere, every id is there once, and every reference is kept."""
    page = Page(text)
    assert "link" not in {tag for tag, _ in page.tags}
    assert "@import" not in text
    for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
        for value in page.all(name):
            assert value.startswith(("#", "data:")), (name, value)
    for value in re.findall(r"url\(([^)]*)\)", text):
        assert value.startswith("#"), value
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    for value in [*page.all("href"), *re.findall(r"url\((#[^)]*)\)", text)]:
        assert value.startswith("data:") or value[1:] in ids, value
    return page


def drawing(label="p(z | x)"):
    with style():
        figure = Picture(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot([1, 2], [3, 4], marker="o", color=SERIES[0], label=label)
        axes.fill_between([1, 2], [2, 3], [4, 5], color=SERIES[1], alpha=0.2)
        axes.legend()
        return to_svg(figure)


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (220, 110)).save(buffer, format="png", dpi=(110, 110))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def document():
    rows = [
        [Entry("b", note="a note"), Entry("2.0", 2.0, mark="best"),
         Entry("1 to 3", 2.0, interval=Interval(2.0, 1.0, 3.0))],
        [Entry(HOSTILE), Entry("10.0", 10.0, mark="tied"),
         Entry("9 to 16", 10.0, interval=Interval(10.0, 9.0, 16.0))],
    ]  # fmt: skip
    table = Table(["name", "two\nlines", "drawn"], rows, HOSTILE, logarithmic=True)
    words = Paragraph("see ", Strong(HOSTILE), " or ", Code("gfnem report"), HOSTILE)
    sections = [
        Section("First", [Notice(words), Bullets([words, words]), Section("First", [words])]),
        Section(HOSTILE, [table, Figure(f"a/{HOSTILE}", drawing(HOSTILE), HOSTILE, HOSTILE)]),
        Section("Same", [Tabs({"one": [Figure("one", drawing(), "x")], "two": [words]})]),
        Section("Same", [Figure("two", drawing(), "x"), Figure("three", png(), HOSTILE)]),
    ]
    return Document(HOSTILE, "sub & title", sections)


# -- HTML -----------------------------------------------------------------------------------------


def test_a_page_is_self_contained_and_escaped(document):
    text = to_html(document)
    page = assert_self_contained(text)
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    assert page.text.count('alert("x")') >= 8  # shown as it is, wherever it stands
    assert page.all("aria-label").count(HOSTILE) == 1
    assert page.all("alt") == [HOSTILE]


def test_a_page_has_every_word_and_number(document):
    page = Page(to_html(document))
    for text in ("sub & title", "a note", "2.0", "gfnem report", "one", "two", "p(z | x)"):
        assert text in page.text
    numbers = [attributes.get("data-sort") for tag, attributes in page.tags if tag == "td"]
    assert numbers == [None, "2.0", "2.0", None, "10.0", "10.0"]
    classes = [attributes.get("class") for tag, attributes in page.tags if tag == "td"]
    assert classes == ["text", "number best", "number", "text", "number tied", "number"]


def test_intervals_lie_on_one_logarithmic_scale(document):
    lines = re.findall(r'<svg class="interval".*?</svg>', to_html(document))
    places = [[float(value) for value in re.findall(r'x[12]="([\d.]+)"', line)] for line in lines]
    # of log 1 to log 16: 2 is a quarter, 3 is log 3 / log 16
    assert places[0][2:] == pytest.approx([0, 39.62, 25, 25], abs=0.01)
    assert places[1][2:] == pytest.approx([79.25, 100, 83.05, 83.05], abs=0.01)


def test_a_page_does_not_change_from_one_time_to_the_next(document):
    assert to_html(document) == to_html(document)
    assert drawing() == drawing()


# -- Markdown -------------------------------------------------------------------------------------


def test_markdown_is_escaped_and_its_pictures_are_there(document):
    text, files = to_markdown(document, "pictures")
    named = re.findall(r"!\[(?:[^\]\\]|\\.)*\]\(pictures/([^)\s]*)\)", text)
    assert sorted(named) == sorted(files)
    assert len(files) == 4
    assert all(re.fullmatch(r"[\w.-]+", name) for name in files)
    assert files["three.png"] == png()
    for escaped in (r"\<script\>", r"a\|b", r"\*c\*", r"\`d\`", r"\[e\](f)", r"\_g\_"):
        assert escaped in text
    assert "<script>" not in text


def test_markdown_tables_have_as_many_cells_as_headers(document):
    text, _ = to_markdown(document, "pictures")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert cells == {3}  # two columns: the drawn one is left out
    assert "b (a note)" in rows[2]
    assert "**2.0**" in rows[2]


def test_a_picture_in_a_file_needs_no_page():
    text = standalone(drawing())
    assert "var(" not in text
    assert INK in text
    assert SERIES[0] in text
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg" width="216pt"')
    Page(text)


def test_a_picture_on_a_page_takes_the_pages_colours():
    text = drawing()
    for colour in (INK, SERIES[0], SERIES[1]):
        assert colour not in text
    assert "var(--ink)" in text
    assert "var(--series-0)" in text
    assert "p(z | x)" in text  # text, not outlines


# -- pictures -------------------------------------------------------------------------------------


def test_curves_have_a_panel_for_each_title_and_a_legend():
    x = np.array([1.0, 10.0, 100.0])
    lines = [Line(name, x, 1 / x, 0.5 / x, 2 / x) for name in ("slow", "quick")]
    axes = Axes("updates", "error", x_logarithmic=True, y_logarithmic=True, level=0.02)
    panels = {title: lines[: 1 + i % 2] for i, title in enumerate(["a", "b", "c", "d", "e"])}
    text = draw_curves(panels, ["quick", "slow", "never"], axes)
    words = re.findall(r"<text[^>]*>([^<]+)</text>", text)
    for title in panels:
        assert words.count(title) == 1
    assert words.count("slow") == words.count("quick") == 1
    assert "never" not in words
    assert words.count("error") == 2  # two rows
    assert "100" in words


@pytest.mark.parametrize(
    ("low", "high", "linear_to", "ticks"),
    [
        (-0.002, 1.1, 0.002, ["-0.001", "0", "0.001", "0.002", "0.005", "0.01", "1"]),
        (0.003, 90.0, 0.005, ["0", "0.0025", "0.005", "0.05", "0.5", "5", "50"]),
        (-0.04, -0.01, 0.05, ["-0.025"]),
    ],
)
def test_an_axis_that_is_linear_near_zero(low, high, linear_to, ticks):
    y = np.array([high, (low + high) / 2, low])
    axes = Axes("updates", "gap", y_logarithmic=True, y_linear_to=linear_to, level=low)
    text = draw_curves({"a": [Line("a", np.arange(3.0), y, y, y)]}, ["a"], axes)
    words = re.findall(r"<text[^>]*>([^<]+)</text>", text)
    assert set(ticks) <= set(words)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.53, 0.99, ["0.6", "0.75", "0.9"]),
        (0.012, 0.3, ["0.02", "0.05", "0.1", "0.2"]),
        (0.0005, 0.9, ["0.001", "0.01", "0.1"]),
    ],
)
def test_a_logarithmic_axis_has_numbers(low, high, ticks):
    y = np.array([high, low])
    axes = Axes("updates", "error", y_logarithmic=True, level=low)
    x = np.array([1000.0, 2000.0])
    text = draw_curves({"a": [Line("a", x, y, y, y)]}, ["a"], axes)
    assert set(ticks) <= set(re.findall(r"<text[^>]*>([^<]+)</text>", text))


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(1.0, 1.0), (1.01, 2.0), (0.0011, 0.002), (0.005, 0.005), (6e-7, 1e-6), (51.0, 100.0)],
)
def test_rounding_up_to_a_tick(value, rounded):
    assert round_up(value) == rounded


def test_a_heat_map_marks_the_best_and_the_ties():
    values = np.array([[0.001, 0.02], [0.5, np.nan]])
    figure = draw_heat_map(values, ["a", "b"], ["c", "d"], "error", (0, 0), {(0, 1)})
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert set(texts) == {"0.0010", "≈ 0.020", "0.50", "-"}
    assert texts["0.0010"].get_fontweight() == "bold"
    assert texts["0.0010"].get_color() == "white"  # on dark
    assert texts["0.50"].get_color() == "black"
    (frame,) = (p for p in figure.axes[0].patches if p.get_linewidth() == 3)
    assert frame.get_xy() == (0, 0)


def test_a_heat_map_of_nothing():
    figure = draw_heat_map(np.full((1, 2), np.nan), ["a"], ["c", "d"], "error")
    assert [text.get_text() for text in figure.axes[0].texts] == ["-", "-"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.00123456, "0.00123"), (0.0009999, "0.00100"), (12.345, "12.3"), (123456.0, "123,000"),
     (-3.34299, "-3.34"), (0.0, "0"), (3.7e-7, "3.70e-07"), (float("inf"), "inf")],
)  # fmt: skip
def test_significant_digits(value, shown):
    assert significant(value) == shown


def test_words_for_numbers():
    assert [p_value(0.0004), p_value(0.0213)] == ["p < 0.001", "p = 0.021"]
    assert [times(1.34), times(45.2)] == ["1.3 times", "45 times"]
    assert [duration(8.31), duration(600), duration(9000)] == ["8.3 s", "10 min", "2.5 h"]
    assert [counted(1, "cell"), counted(0, "cell")] == ["1 cell", "0 cells"]
    assert counted(1234, "EM iteration") == "1,234 EM iterations"
    assert [listing([]), listing(["a"]), listing(["a", "b", "c"])] == ["", "a", "a, b and c"]
