"""The plots of a comparison: requests per second by connections, and what a request costs the server."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from loadtests.peers.figures import Figures, Server
from loadtests.report.levels import Spread
from loadtests.report.plots import BLUE, FAINT, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION

COLOURS = {
    "Fovea": BLUE, "Fovea native": SKY, "Triton": GREEN, "mosec": ORANGE, "FastAPI": PURPLE, "LitServe": VERMILLION,
}  # fmt: skip
"""By peer, the same in every plot."""

USUAL_COUNT = 64


def throughput(axes: Axes, figures: Figures) -> None:
    """Medians over the rounds with their ranges, and that of ONNX Runtime alone where it leaves the others room."""
    places = np.arange(len(figures.counts))
    most = 0.0
    for server in figures.servers:
        found = [figures.of(server, count, lambda each: each.requests_per_s) for count in figures.counts]
        known = [(place, spread) for place, spread in zip(places, found, strict=True) if spread]
        spreads = [spread for _, spread in known]
        most = max([most, *(spread.median for spread in spreads)])
        axes.errorbar(
            [place for place, _ in known],
            [spread.median for spread in spreads],
            _ranges(spreads),
            color=_colour(server),
            linestyle="-" if server[1] == "HTTP" else "--",
            marker="o" if server[1] == "HTTP" else "s",
            capsize=2,
            elinewidth=1,
            label=", ".join(server),
        )
    ceiling = Spread.of(figures.arrangements[figures.ceiling].values())
    if ceiling and ceiling.median < 2 * most:
        axes.axhline(ceiling.median, color=INK, linewidth=1, linestyle=":", label="ONNX Runtime alone")
    axes.set_xticks(places, [f"{count}" for count in figures.counts])
    axes.set_xlabel("connections")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("requests/s")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def processor_time(axes: Axes, figures: Figures) -> None:
    """Of all of a server's processes for a request, where there are USUAL_COUNT connections, or else most."""
    count = USUAL_COUNT if USUAL_COUNT in figures.counts else figures.counts[-1]
    found = [(server, figures.of(server, count, lambda each: each.server_cpu_us)) for server in figures.servers]
    known = sorted(((server, spread) for server, spread in found if spread), key=lambda each: -each[1].median)
    spreads = [spread for _, spread in known]
    axes.barh(
        [", ".join(server) for server, _ in known],
        [spread.median for spread in spreads],
        0.7,
        xerr=_ranges(spreads),
        color=[_colour(server) for server, _ in known],
        ecolor=INK,
        error_kw={"capsize": 2, "elinewidth": 1},
    )
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"processor time of a request, µs, {count} connections")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _colour(server: Server) -> str:
    return COLOURS.get(server[0], FAINT)


def _ranges(spreads: Sequence[Spread]) -> list[list[float]]:
    """From the medians down and up, as Matplotlib takes them."""
    return [
        [spread.median - spread.least for spread in spreads],
        [spread.most - spread.median for spread in spreads],
    ]
