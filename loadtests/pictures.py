"""`python -m loadtests.pictures FILE…`: pictures for the docs, of the JSON that load tests leave."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes

from loadtests.command import run
from loadtests.peers import plots as peers_plots
from loadtests.peers.figures import Figures
from loadtests.peers.result import Result as PeersResult
from loadtests.report import plots
from loadtests.report.levels import levels_of
from loadtests.report.result import Result, read_result

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
PEERS_FILE = "peers.json"

COLOURS = {plots.INK: "#1b1d1f", plots.FAINT: "#85898e", plots.PAPER: "#ffffff"}

Picture = tuple[str, Callable[[Axes], None]]
"""A name, and what draws it."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.pictures",
        description="Draw what load tests found, as SVG files: of a comparison with peers each model's requests per "
        "second and processor time; of a report latency against throughput; of a search its probes; of an overload "
        "its course.",
    )
    parser.add_argument("results", type=Path, nargs="+", metavar="FILE", help=f"{PEERS_FILE} or result.json")
    parser.add_argument("--into", type=Path, default=FOLDER, metavar="FOLDER", help="default: docs/pictures")
    options = parser.parse_args(arguments)
    try:
        pictures = [picture for file in options.results for picture in _pictures(file)]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    options.into.mkdir(parents=True, exist_ok=True)
    for name, draw in pictures:
        file = options.into / f"{name}.svg"
        file.write_text(_on_paper(plots.drawn(name, draw)))
        print(f"{file}: {file.stat().st_size:,} bytes")
    return 0


def _pictures(file: Path) -> Iterator[Picture]:
    if file.name == PEERS_FILE:
        yield from _of_peers(PeersResult.read(file))
    else:
        yield from _of_result(read_result(file))


def _of_peers(result: PeersResult) -> Iterator[Picture]:
    for model in dict.fromkeys(each.subject.model for each in result.measurements):
        figures = Figures(result, model)
        yield f"peers-{model}-throughput", partial(peers_plots.throughput, figures=figures)
        yield f"peers-{model}-processor-time", partial(peers_plots.processor_time, figures=figures)


def _of_result(result: Result) -> Iterator[Picture]:
    search, overload = result.search, result.overload
    if search:
        yield f"search-{search.protocol.lower()}", partial(plots.probes, search=search, runs=result.runs)
    elif overload:
        yield f"overload-{overload.protocol.lower()}", partial(plots.over_time, overload=overload)
    else:
        levels = [level for level in levels_of(result.runs) if level.latency_ms(50)]
        times_ms = [run.latency_ms[percent] for run in result.runs if run.latency_ms for percent in (1.0, 99.0)]
        limits = plots.limits_ms(times_ms)
        for protocol in dict.fromkeys(level.protocol for level in levels):
            some = [level for level in levels if level.protocol == protocol]
            name = f"latency-against-throughput-{protocol.lower()}"
            yield name, partial(plots.latency_against_throughput, levels=some, limits_ms=limits)


def _on_paper(svg: str) -> str:
    """With colours of its own and a ground, so that a dark page does not swallow it."""
    for colour, own in COLOURS.items():
        svg = svg.replace(colour, own)
    return re.sub(
        r"(<svg[^>]*>)", rf'\1\n <rect width="100%" height="100%" fill="{COLOURS[plots.PAPER]}"/>', svg, count=1
    )


if __name__ == "__main__":
    run(main)
