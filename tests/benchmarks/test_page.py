"""The page stands alone, shows every engine in charts and in tables, and gives no figure to wrong tokens."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from isotoken.api.bench.charts import stream_chart, styles, workload_chart
from isotoken.api.bench.compare import compare
from isotoken.api.bench.page import STREAM_CHARTS, render_page
from isotoken.api.bench.results import Variant
from isotoken.api.bench.scales import linear_scale, log_scale
from isotoken.api.bench.tables import change_table, disturbance, number, rich_table, workload_tables
from isotoken.api.cli.bench import _show
from rich.console import Console

from .made import ORT, TORCH, WRONG, point, report, result

VOID = {"meta", "br", "hr", "img", "link", "input", "path", "rect"}


class Checker(HTMLParser):
    """Sees that what is opened is closed, and keeps the attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed() -> None:
    page = render_page(report())
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert "script" not in {tag for tag, _ in checker.tags}
    assert not re.search(r"https?://|@import|url\(", page)
    assert not [attrs for _, attrs in checker.tags if {"src", "href"} & set(attrs)]
    assert "a &lt;model&gt; &amp; more" in page
    assert "prefers-color-scheme: dark" in page
    ids = [attrs["id"] for _, attrs in checker.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_a_machine_that_others_use_is_told_before_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert disturbance(report()) == disturbance(report(others=[])) == ""
    _show(report(others=[0.1, 0.9, 0.5]), None)
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("not quiet: other processes kept 0.5 CPUs busy")


def test_charts_are_titled_described_and_told_in_tables_too() -> None:
    page = render_page(report())
    charts = re.findall(r'<svg viewBox="0 0 460.*?</svg>', page, re.DOTALL)
    assert len(charts) == len(STREAM_CHARTS) + 1
    for chart in charts:
        root = ElementTree.fromstring(chart)
        names = root.attrib["aria-labelledby"].split()
        texts = [child.text for child in root if child.attrib.get("id") in names]
        assert root.attrib["role"] == "img"
        assert len(texts) == 2
        assert all("torch float32" in text and "onnxruntime float32 int8" in text for text in texts[1:])
    for label in ("torch float32", "onnxruntime float32 int8"):
        assert page.count(f'<td class="left">{label}</td>') + page.count(f">{label}</th>") >= 4
    assert "Left out: torch float32 int8" in page
    assert "other processes kept 0.2 CPUs busy (0.3 at most); load average 0.5 before, 1.5 after" in page
    assert "1.50 x" in page and "50%" in page
    assert page.count("of so few the p99 is about the slowest") == 2, "beside the charts and the table"


def test_wrong_tokens_get_no_figure() -> None:
    bad = result(ORT, [999.0], [100.0], check=WRONG)
    shown = report(
        results=[result(TORCH, [100.0], [100.0]), bad], points=[point(TORCH, 1, 5.0), point(ORT, 1, 777.0, WRONG)]
    )
    page = render_page(shown)
    assert "Wrong tokens" in page and "wrong tokens: no figure" in page
    assert "999" not in page and "777" not in page
    assert "9.99 x" not in page
    (table,) = workload_tables(shown.results)
    assert table.rows[1][2:] == ("–",) * 5


def test_nobody_is_said_to_reach_more_than_the_roof() -> None:
    """It only says that the roof was measured too low."""
    over, under = result(TORCH, [300.0], [300.0], 200.0), result(ORT, [100.0], [300.0], 200.0)
    (table,) = workload_tables([over, under])
    assert [row[5] for row in table.rows] == ["> 100%", "50%"]
    assert "> 100%: measured too low" in table.note
    page = render_page(report(results=[over, under]))
    assert "150%" not in page and "&gt; 100%" in page
    (table,) = workload_tables([under])
    assert ">" not in table.note


def test_looks_tell_backends_by_colour_and_schedulers_by_dashes_and_marks() -> None:
    variants = [
        Variant(b, "float32", None, s) for b in ("torch", "onnxruntime") for s in ("continuous", "static", "naive")
    ]
    looks = styles(variants)
    assert len({(look.colour, look.dash, look.shape) for look in looks.values()}) == 6
    assert looks[variants[0]].colour == looks[variants[2]].colour != looks[variants[3]].colour
    assert looks[variants[1]].dash == looks[variants[4]].dash != ""


@pytest.mark.parametrize("most", [0.0, 1e-9, 0.3, 1.0, 7, 99, 101, 12345, 9.9e6])
def test_axes_begin_at_zero_and_hold_the_most(most: float) -> None:
    scale = linear_scale(most, 100, 0)
    ticks = scale.ticks
    assert ticks[0] == 0 and ticks[-1] >= most * 0.999 and 2 <= len(ticks) <= 7
    assert scale(0) == 100 and scale(ticks[-1]) == pytest.approx(0)


@pytest.mark.parametrize(("least", "most"), [(0.01, 0.01), (0.003, 40), (1e-5, 1e-4), (0.999, 1.001), (5, 5)])
def test_logarithmic_axes_hold_both_ends(least: float, most: float) -> None:
    scale = log_scale(least, most, 100, 0)
    assert scale.low <= least * 1.001 and most <= scale.high * 1.001 and scale.low < scale.high
    assert 2 <= len(scale.ticks) <= 8
    assert 0 <= scale(most) <= scale(least) <= 100


def test_charts_of_one_engine_and_one_count_can_be_drawn() -> None:
    looks = styles([TORCH])
    for name, title, value, seconds in STREAM_CHARTS:
        ElementTree.fromstring(stream_chart(name, [point(TORCH, 1, 10)], looks, value, title=title, seconds=seconds))
    none = [result(TORCH, [1.0], [1.0], check=WRONG)]
    assert "no figure" in workload_chart("w", none, looks, "W1")


def test_what_changed_is_a_table_on_page_and_terminal() -> None:
    slower = [result(TORCH, [10.0] * 3, [10.0] * 3)]
    table = change_table(compare(report().results, slower), "old.json")
    assert "SLOWER" in render_page(report(), table)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(rich_table(table))
    assert "Since old.json" in captured.get() and "0.10 x" in captured.get()


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (99.6, "100"), (12.34, "12.3"), (0.0123, "0.0123")])
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text
