"""A result as a page of Markdown: medians over the rounds, and their ranges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from loadtests.peers.figures import Figures
from loadtests.peers.result import Measurement, Result
from loadtests.report.levels import Spread
from loadtests.report.numbers import number

OURS = "Fovea"
"""How the names of its own servers begin."""

BY_CONNECTIONS: dict[str, Callable[[Measurement], float | None]] = {
    "Processor time of a request, µs": lambda each: each.server_cpu_us,
    "Median latency, ms": lambda each: each.p50_ms,
    "99th percentile of the latency, ms": lambda each: each.p99_ms,
}


def page(result: Result) -> str:
    lines = ["# Fovea and its peers", "", *(f"- {name}: {fact}" for name, fact in result.facts.items()), ""]
    lines += ["How each is configured:", "", *(f"- {name}: {words}" for name, words in result.peers.items()), ""]
    lines += ["Figures are medians over the rounds, and ranges; shares and ratios are of two rates of one round.", ""]
    for model in dict.fromkeys(each.model for each in result.ceilings):
        figures = Figures(result, model)
        lines += [f"## {model}", "", ratios(figures), "", _rates(figures), "", _ceilings(figures), ""]
        for title, figure in BY_CONNECTIONS.items():
            lines += [_by_connections(figures, title, figure), ""]
        lines += [_starts(figures), ""]
    if result.not_measured:
        lines += ["## Not measured", "", *_not_measured(result), ""]
    return "\n".join(lines)


def ratios(figures: Figures) -> str:
    """Fovea's rates to those of each peer that answers over the same wire."""
    rows = [
        [
            f"{ours} / {peer}, {wire}",
            *(_cell(figures.ratio((ours, wire), (peer, wire), count)) for count in figures.counts),
        ]
        for (ours, our_wire), (peer, wire) in product(figures.servers, figures.servers)
        if ours.startswith(OURS) and not peer.startswith(OURS) and our_wire == wire
    ]
    return _table(["Requests per second", *map(_connections, figures.counts)], rows)


def _rates(figures: Figures) -> str:
    rows = [
        [
            ", ".join(server),
            *(_cell(figures.of(server, count, lambda each: each.requests_per_s)) for count in figures.counts),
            _cell(figures.best_share(server)),
        ]
        for server in figures.servers
    ]
    return _table(["Requests per second", *map(_connections, figures.counts), "best share of the ceiling"], rows)


def _ceilings(figures: Figures) -> str:
    rows = [
        [
            f"{each.sessions} sessions of one thread, batch size {each.batch_size}"
            + (": the ceiling" if each == figures.ceiling else ""),
            _cell(Spread.of(rates.values())),
        ]
        for each, rates in figures.arrangements.items()
    ]
    return _table(["ONNX Runtime alone", "images per second"], rows)


def _by_connections(figures: Figures, title: str, figure: Callable[[Measurement], float | None]) -> str:
    rows = [
        [", ".join(server), *(_cell(figures.of(server, count, figure)) for count in figures.counts)]
        for server in figures.servers
    ]
    return _table([title, *map(_connections, figures.counts)], rows)


def _starts(figures: Figures) -> str:
    rows = [
        [
            ", ".join(server),
            _cell(figures.of_start(server, lambda each: each.cold_start_s)),
            _cell(figures.of_start(server, lambda each: each.pss_bytes / 1e6)),
            f"{figures.failed(server):,}",
            number(figures.generator_busy(server)),
        ]
        for server in figures.servers
    ]
    return _table(["", "cold start, s", "memory (PSS), MB", "failed requests", "cores taken by h2load, at most"], rows)


def _not_measured(result: Result) -> list[str]:
    return [
        f"- {each.subject.peer}, {each.subject.wire}, {each.subject.model}, "
        f"{f'round {each.subject.round}' if each.subject.round else 'every round'}: {each.reason}"
        for each in result.not_measured
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *rows))


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    if spread.rounds == 1:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.least)} – {number(spread.most)})"
