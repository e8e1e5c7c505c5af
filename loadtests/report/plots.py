"""The plots of a result as SVG that takes its colours of ink and paper from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from loadtests.report.levels import Level
from loadtests.report.numbers import number, rate_text
from loadtests.report.result import PERCENTILES, Moment, Overload, Run, Search

INK, FAINT, PAPER = "#0a0b0c", "#8d8e8f", "#f7f8f9"
"""Stand for the page's colours, which Matplotlib cannot name."""

SHORTEST_MS = 0.01
"""That a logarithmic axis begins with."""

PAGE_COLOURS = {INK: "var(--ink)", FAINT: "var(--faint)", PAPER: "var(--paper)"}

# Okabe and Ito, Color Universal Design: told apart by colour-blind people too, here without yellow and black.
BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}
SIZE_INCHES = (6.0, 3.9)
MOST_LEVELS = 8
LAST_PERCENTILE = 99.9
"""That a curve shows: beyond it, one request decides."""


def latency_against_throughput(axes: Axes, levels: Sequence[Level], limits_ms: tuple[float, float]) -> None:
    """Medians over the rounds, with their ranges."""
    shown = [level for level in levels if level.latency_ms(50)]
    rates = np.array([level.images_per_s.median for level in shown])
    for percentile, colour, marker in ((50, BLUE, "o"), (95, ORANGE, "s"), (99, VERMILLION, "^")):
        spreads = [spread for level in shown if (spread := level.latency_ms(percentile))]
        medians = np.array([spread.median for spread in spreads])
        ranges = np.abs([[spread.least, spread.most] for spread in spreads] - medians[:, None]).T
        label = f"p{percentile}"
        axes.errorbar(rates, medians, ranges, color=colour, marker=marker, capsize=2, elinewidth=1, label=label)
        if percentile == 99:
            for level, rate, time_ms in zip(shown, rates, medians, strict=True):
                value = rate_text(level.load.value)
                axes.annotate(value, (rate, time_ms), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    axes.set_xlabel("answered, images/s")
    axes.set_xlim(0, 1.1 * max(rates))
    _latency_axis(axes, limits_ms)
    axes.legend(loc="upper left", ncols=3)


def percentile_curves(axes: Axes, levels: Sequence[Level], limits_ms: tuple[float, float]) -> None:
    """Each load's latencies, in such a way that every step of the axis has ten times fewer requests above it."""
    shown = _some([level for level in levels if level.latency_ms(50)])
    percentiles = [percentile for percentile in PERCENTILES if percentile <= LAST_PERCENTILE]
    places = -np.log10(1 - np.array(percentiles) / 100)
    for level, colour in zip(shown, _gradient(len(shown)), strict=True):
        spreads = [level.latency_ms(percentile) for percentile in percentiles]
        axes.plot(places, [spread.median for spread in spreads if spread], color=colour, label=str(level.load))
    ticks = (0.0, 50.0, 90.0, 99.0, 99.9)
    axes.xaxis.set_major_locator(FixedLocator([-np.log10(1 - tick / 100) for tick in ticks]))
    axes.set_xticklabels([f"{tick:g}" for tick in ticks])
    axes.set_xlabel("percentile of the requests")
    axes.set_xlim(0, 3.05)
    _latency_axis(axes, limits_ms)
    _legend_beside(axes, "")


def batch_sizes(axes: Axes, levels: Sequence[Level], sizes: Sequence[str]) -> None:
    """The share of the batches that had each of the sizes.

    Args:
        sizes: all that occur, the smallest first, so that a size has the same colour everywhere.
    """
    levels = _some(levels)
    below = np.zeros(len(levels))
    for size, colour in zip(sizes, _gradient(len(sizes)), strict=True):
        shares = np.array([100 * level.batch_shares.get(size, 0.0) for level in levels])
        axes.bar(_places(levels), shares, 0.7, below, color=colour, edgecolor=PAPER, linewidth=0.5, label=size)
        below += shares
    _by_load(axes, levels)
    axes.set_ylim(0, 100)
    axes.set_ylabel("share of the batches, %")
    _legend_beside(axes, "images")


def time_by_stage(axes: Axes, levels: Sequence[Level]) -> None:
    """Each part's share of a request's mean time, and that time above, in milliseconds."""
    levels = _some(levels)
    colours = (SKY, ORANGE, PURPLE, BLUE, GREEN, VERMILLION, FAINT)
    times = [level.where_the_time_went_ms for level in levels]
    totals_ms = [sum(parts.values()) for parts in times]
    below = np.zeros(len(levels))
    names = dict.fromkeys(part for parts in times for part in parts)
    for part, colour in zip(names, colours, strict=False):
        shares = np.array([100 * parts.get(part, 0.0) / all_ms for parts, all_ms in zip(times, totals_ms, strict=True)])
        axes.bar(_places(levels), shares, 0.7, below, color=colour, edgecolor=PAPER, linewidth=0.5, label=part)
        below += shares
    for place, total_ms in enumerate(totals_ms):
        axes.annotate(number(total_ms), (place, 100), (0, 4), textcoords="offset points", ha="center", fontsize=9)
    _by_load(axes, levels)
    axes.set_ylim(0, 108)
    axes.set_ylabel("share of a request's mean time, %")
    _legend_beside(axes, "")


def power(axes: Axes, levels: Sequence[Level], most_w: float) -> None:
    """Of each load's first run with a reading."""
    series = [(level.load, found) for level in levels if (found := next(filter(None, map(power_w, level.runs)), None))]
    for (load, (times_s, watts)), colour in zip(series, _gradient(len(series)), strict=True):
        axes.plot(times_s, watts, color=colour, label=str(load))
    axes.set_xlabel("time since the start of the run, s")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.1 * most_w)
    axes.set_ylabel("power, W")
    _legend_beside(axes, "")


def probes(axes: Axes, search: Search, runs: Sequence[Run]) -> None:
    """The 99th percentile of every probe, the bound, and where the rate that is held lies."""
    answered = [run for run in runs if 99.0 in run.latency_ms]
    for held, label, face in ((True, "held", BLUE), (False, "missed", "none")):
        some = [run for run in answered if (run.latency_ms[99.0] <= search.p99_ms and not run.failures) == held]
        rates, times_ms = [run.load.value for run in some], [run.latency_ms[99.0] for run in some]
        edge = BLUE if held else VERMILLION
        axes.scatter(rates, times_ms, 28, facecolors=face, edgecolors=edge, marker="o" if held else "^", label=label)
    axes.axhline(search.p99_ms, color=INK, linewidth=1, linestyle="--", label=f"{search.p99_ms:g} ms")
    if search.low_per_s and search.high_per_s:
        axes.axvspan(search.low_per_s, search.high_per_s, color=SKY, alpha=0.3, linewidth=0, label="interval")
    axes.set_xscale("log")
    rates = [run.load.value for run in runs]
    axes.set_xlim(min(rates) / 1.2, 1.2 * max(rates))
    _plain_log_ticks(axes.xaxis)
    axes.set_xlabel("offered, requests/s")
    _latency_axis(axes, limits_ms([run.latency_ms[99.0] for run in answered] + [search.p99_ms]))
    axes.set_ylabel("p99 latency, ms")
    axes.legend(loc="upper left")


def over_time(axes: Axes, overload: Overload) -> None:
    """Percentiles of the requests that were due at a moment: those answered and those refused."""
    figures: tuple[tuple[str, str, Callable[[Moment], float | None]], ...] = (
        ("answered, p50", BLUE, lambda moment: moment.p50_ms),
        ("answered, p99", ORANGE, lambda moment: moment.p99_ms),
        ("refused, p99", VERMILLION, lambda moment: moment.refused_p99_ms),
    )
    times_ms: list[float] = []
    for label, colour, figure in figures:
        points = [(moment.start_s, value) for moment in overload.moments if (value := figure(moment)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=".", linewidth=1, label=label)
            times_ms += [value for _, value in points]
    axes.axvspan(0, overload.duration_s, color=SKY, alpha=0.2, linewidth=0)
    axes.set_xlabel("time since the start of the overload, s")
    _latency_axis(axes, limits_ms(times_ms))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def power_w(run: Run) -> tuple[list[float], list[float]] | None:
    """Times in seconds and the power at each in watts; None: it was not read."""
    series = ((run.readings or {}).get("figures") or {}).get("power_w")
    return (series["t_s"], series["values"]) if series else None


def limits_ms(times_ms: Sequence[float]) -> tuple[float, float]:
    """Of a logarithmic axis with all these times on it. By a clock that counts milliseconds, an answer may seem to have
    taken no time, or less."""
    return max(SHORTEST_MS, min(times_ms)) / 1.3, max(SHORTEST_MS, *times_ms) * 1.6


def as_svg(name: str, label: str, draw: Callable[[Axes], None]) -> str:
    """What is drawn, as an SVG element for a page.

    Args:
        name: one for each plot of a page: the elements' ids begin with it.
        label: what it shows, for those who do not see it.
    """
    svg = drawn(name, draw)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' width="[^"]*" height="[^"]*"', f' role="img" aria-label="{label}"', svg, count=1)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg


def drawn(name: str, draw: Callable[[Axes], None]) -> str:
    """What is drawn, as the text of an SVG file in which INK, FAINT and PAPER still stand for colours.

    Args:
        name: the same name gives the same ids.
    """
    style: Any = {**STYLE, "svg.hashsalt": name}
    with rc_context(style):
        figure = Figure(SIZE_INCHES, layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return file.getvalue().replace("'DejaVu Sans', ", "")


def _latency_axis(axes: Axes, limits: tuple[float, float]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(limits)
    _plain_log_ticks(axes.yaxis)
    axes.set_ylabel("latency, ms")


def _plain_log_ticks(axis: Any) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _by_load(axes: Axes, levels: Sequence[Level]) -> None:
    axes.set_xticks(_places(levels), [rate_text(level.load.value) for level in levels])
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("requests in flight" if levels[0].load.kind == "closed" else "offered, requests/s")


def _places(levels: Sequence[Level]) -> Any:
    return np.arange(len(levels))


def _legend_beside(axes: Axes, title: str) -> None:
    """In the order of the stack."""
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], title=title, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _gradient(count: int) -> list[str]:
    """Colours from dark to light that stand out on both a light and a dark page."""
    return [to_hex(colour) for colour in colormaps["viridis"](np.linspace(0.25, 0.85, count))]


def _some(levels: Sequence[Level]) -> Sequence[Level]:
    """As many as can be told apart, evenly chosen, with the first and the last."""
    if len(levels) <= MOST_LEVELS:
        return levels
    return [levels[round(place)] for place in np.linspace(0, len(levels) - 1, MOST_LEVELS)]
