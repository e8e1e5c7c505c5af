from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from loadtests.report import plots
from loadtests.report.page import render
from loadtests.report.result import RESULT, Load, Result, Search
from tests.loadtests.made_up import made_up_result, made_up_run, made_up_sweep

SEARCH = Search("HTTP", 20.0, 160.0, 80.0, 320.0, 0.75, 0.05, "160 requests per second are held", "by trying")


class Page(HTMLParser):
    """What a page holds: its elements, each with its attributes, its headings, and its JSON."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.json = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = "json" if tag == "script" else tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "h2":
            self.headings.append(data)
        elif self._open == "json":
            self.json += data

    def count(self, tag: str) -> int:
        return sum(each == tag for each, _ in self.elements)


@pytest.fixture(scope="module")
def sweep() -> Result:
    return made_up_sweep()


@pytest.fixture(scope="module")
def text(sweep: Result) -> str:
    return render(sweep)


def test_each_plot_is_there_for_each_protocol(text: str) -> None:
    page = Page(text)
    assert page.headings[:5] == [
        "Latency against throughput", "Percentiles", "Where the time went", "Batch sizes", "Power",
    ]  # fmt: skip
    assert page.headings[5:] == [
        "Latency and throughput", "Where the time went, mean ms of a request", "Batch sizes, share of the batches",
        "Energy and processor time", "Environment",
    ]  # fmt: skip
    assert page.count("svg") == 10
    assert page.count("figure") == 10
    for words in ("answered, images/s", "latency, ms", "share of a request", "power, W", "Example 3000"):
        assert words in text


def test_the_page_asks_for_nothing(text: str) -> None:
    page = Page(text)
    assert {"link", "img", "iframe", "object"} & {tag for tag, _ in page.elements} <= {"link"}
    for tag, attributes in page.elements:
        for name in ("href", "xlink:href", "src"):
            target = attributes.get(name) or ""
            assert not target or target in ("result.json", "data:,") or target.startswith("#"), (tag, target)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "<!DOCTYPE svg" not in text


def test_ids_are_unique_and_what_they_are_used_for_is_there(text: str) -> None:
    page = Page(text)
    ids = [identity for _, attributes in page.elements if (identity := attributes.get("id"))]
    assert len(ids) == len(set(ids))
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert used
    assert {first or second for first, second in used} <= set(ids)


def test_plots_take_the_pages_colours(text: str) -> None:
    assert "var(--ink)" in text
    assert not re.search("#0a0b0c|#8d8e8f|#f7f8f9", text)


def test_the_json_behind_it_is_in_it(sweep: Result, text: str) -> None:
    assert RESULT.validate_python(json.loads(Page(text).json)) == sweep


def test_the_same_result_is_the_same_page(sweep: Result, text: str) -> None:
    assert render(sweep) == text


def test_text_from_elsewhere_is_text() -> None:
    run = made_up_run(failures=1, errors={"</script><b>503</b>": 1})
    result = made_up_result(run)
    result = replace(result, environment=replace(result.environment, model="<i>colours</i>"))
    page = Page(render(result))
    assert {"b", "i"}.isdisjoint(tag for tag, _ in page.elements)
    assert json.loads(page.json)["runs"][0]["errors"] == {"</script><b>503</b>": 1}
    assert "Failures" in page.headings


def test_no_plot_where_there_is_nothing_to_plot() -> None:
    run = made_up_run(
        failures=1000, errors={"500: broken": 1000}, images_per_s=0.0, latency_ms={}, mean_ms=None,
        stage_ms={}, batch_sizes={},
    )  # fmt: skip
    page = Page(render(made_up_result(run)))
    assert page.count("svg") == 0
    assert page.headings == ["Latency and throughput", "Failures", "Environment"]


def test_one_run_is_enough() -> None:
    assert Page(render(made_up_result(made_up_run()))).count("svg") == 4


def test_a_search_shows_its_probes() -> None:
    runs = [made_up_run(load=Load("open", 20.0 * 2**step), p50_ms=3.0 * 2**step) for step in range(10)]
    text = render(made_up_result(*runs, search=SEARCH))
    page = Page(text)
    assert page.headings[:2] == ["The probes", "Percentiles"]
    assert "160 requests per second are held" in text
    assert "by trying" in text
    assert "p99 latency, ms" in text


@pytest.mark.parametrize(
    ("times_ms", "limits_ms"), [([2.0, 5.0], (2 / 1.3, 8.0)), ([-0.4, 0.0, 5.0], (0.01 / 1.3, 8.0)), ([0.0], None)]
)
def test_a_latency_of_no_time_has_a_place_on_the_axis(
    times_ms: list[float], limits_ms: tuple[float, float] | None
) -> None:
    low, high = plots.limits_ms(times_ms)
    assert 0 < low < high
    assert limits_ms is None or (low, high) == pytest.approx(limits_ms)
