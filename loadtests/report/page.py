"""A result as one HTML page that needs nothing else: plots, tables, and the JSON behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes

from loadtests.report import plots
from loadtests.report.levels import Level, levels_of
from loadtests.report.result import FILE_NAME, Result, to_json
from loadtests.report.tables import facts, reading, sizes_of, tables

TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True)
class Figure:
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """One kind of plot, for each protocol."""

    title: str
    text: str
    figures: tuple[Figure, ...]


def render(result: Result) -> str:
    """The page, which asks for nothing from anywhere."""
    levels = levels_of(result.runs)
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(TEMPLATE.read_text()).render(
        title=result.title,
        found=result.found,
        facts=facts(result),
        reading=reading(result),
        sections=_sections(result, levels),
        tables=tables(levels),
        file_name=FILE_NAME,
        # No text in it can end the script element.
        json=Markup(to_json(result).replace("<", "\\u003c")),
    )


def _sections(result: Result, levels: Sequence[Level]) -> list[Section]:
    by_protocol = {level.protocol: [other for other in levels if other.protocol == level.protocol] for level in levels}
    found = [_probes(result), _over_time(result), *_latency(result, by_protocol), _stages(by_protocol)]
    found += [_batch_sizes(by_protocol), _power(by_protocol)]
    return [section for section in found if section]


def _probes(result: Result) -> Section | None:
    search = result.search
    if search is None or not any(run.latency_ms for run in result.runs):
        return None
    svg = plots.as_svg(
        "probes", "p99 latency of each probe by offered rate", lambda axes: plots.probes(axes, search, result.runs)
    )
    return Section(
        "The probes",
        "Every point is a probe; the dashed line is the bound. A probe with a failure is missed, however fast.",
        (Figure(search.protocol, Markup(svg)),),
    )


def _over_time(result: Result) -> Section | None:
    overload = result.overload
    if overload is None or not any(moment.answered for moment in overload.moments):
        return None
    svg = plots.as_svg(
        "overload",
        "latency and answers before, in and after the overload",
        lambda axes: plots.over_time(axes, overload),
    )
    return Section(
        "Before, in and after the overload",
        "Latency of the requests by the moment at which they were due; the overload is shaded.",
        (Figure(overload.protocol, Markup(svg)),),
    )


def _latency(result: Result, by_protocol: dict[str, list[Level]]) -> list[Section]:
    answered = _having(by_protocol, lambda level: level.latency_ms(50) is not None)
    times_ms = [run.latency_ms[percentile] for run in result.runs if run.latency_ms for percentile in (1.0, 99.0, 99.9)]
    if not answered:
        return []
    limits = plots.limits_ms(times_ms)
    curves = _section(
        "Percentiles",
        "Each load's latencies, median over the rounds. To the right each step has a tenth of the requests above it.",
        answered,
        lambda axes, levels: plots.percentile_curves(axes, levels, limits),
    )
    if result.found:
        return [curves]
    loads = "requests in flight" if result.runs[0].load.kind == "closed" else "requests offered per second"
    against = _section(
        "Latency against throughput",
        f"Median over the rounds; bars show the range. The number at each point: {loads}.",
        answered,
        lambda axes, levels: plots.latency_against_throughput(axes, levels, limits),
    )
    return [against, curves]


def _stages(by_protocol: dict[str, list[Level]]) -> Section | None:
    timed = _having(by_protocol, lambda level: bool(level.where_the_time_went_ms))
    if not timed:
        return None
    return _section(
        "Where the time went",
        "Parts of the mean time of a request, which is above, in ms. The stages are the service's own histograms; what "
        "is left of the latency is outside of them: connections, parsing, the load generator.",
        timed,
        plots.time_by_stage,
    )


def _batch_sizes(by_protocol: dict[str, list[Level]]) -> Section | None:
    batched = _having(by_protocol, lambda level: bool(level.batch_shares))
    if not batched:
        return None
    sizes = sizes_of([level for levels in batched.values() for level in levels])
    return _section(
        "Batch sizes",
        "How many images the batches had, from the service's histogram.",
        batched,
        lambda axes, levels: plots.batch_sizes(axes, levels, sizes),
    )


def _power(by_protocol: dict[str, list[Level]]) -> Section | None:
    watched = _having(by_protocol, lambda level: any(map(plots.power_w, level.runs)))
    if not watched:
        return None
    readings = [plots.power_w(run) for levels in watched.values() for level in levels for run in level.runs]
    most_w = max(watts for reading in readings if reading for watts in reading[1])
    return _section(
        "Power",
        "Of the target, during the first round's runs.",
        watched,
        lambda axes, levels: plots.power(axes, levels, most_w),
    )


def _having(by_protocol: dict[str, list[Level]], has: Callable[[Level], bool]) -> dict[str, list[Level]]:
    some = {protocol: [level for level in levels if has(level)] for protocol, levels in by_protocol.items()}
    return {protocol: levels for protocol, levels in some.items() if levels}


def _section(
    title: str, text: str, by_protocol: dict[str, list[Level]], draw: Callable[[Axes, Sequence[Level]], None]
) -> Section:
    figures = []
    for protocol, levels in by_protocol.items():
        name = f"{title}-{protocol}".replace(" ", "-").lower()
        svg = plots.as_svg(name, f"{title}, {protocol}", lambda axes, shown=levels: draw(axes, shown))  # type: ignore[misc]
        figures.append(Figure(protocol, Markup(svg)))
    return Section(title, text, tuple(figures))
