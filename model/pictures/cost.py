"""Accuracy against cost: what ideas bought."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from model.pictures.cost_rows import CostRow
from model.pictures.figure import BLUE, INK
from model.pictures.labels import label_points


def draw_cost(figure: Figure, rows: Sequence[CostRow]) -> None:
    """Draw each classifier as a point, coloured by its parameters where all are told, with its name."""
    figure.set_size_inches(7.5, 4.8)
    axes = figure.add_subplot()
    costs, accuracies = [row.mflops for row in rows], [row.accuracy for row in rows]
    parameters = [row.parameters for row in rows if row.parameters]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 2, max(costs) * 5)
    height = max(0.1, max(accuracies) - min(accuracies))
    axes.set_ylim(min(accuracies) - 0.08 * height, max(accuracies) + 0.15 * height)
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel="multiply-adds an image, millions", ylabel="accuracy")
    axes.set_title("Accuracy against cost")
    axes.grid(visible=True)
    if len(parameters) == len(rows):
        norm = LogNorm(min(parameters), max(min(parameters) * 10, *parameters))
        dots = axes.scatter(
            costs, accuracies, s=42, c=parameters, cmap="viridis_r", norm=norm, edgecolors=INK, linewidths=0.6, zorder=3
        )
        bar = figure.colorbar(dots, ax=axes, label="parameters", format=FuncFormatter(_rounded))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.scatter(costs, accuracies, s=42, c=BLUE, edgecolors=INK, linewidths=0.6, zorder=3)
    label_points(axes, [*zip(costs, accuracies, strict=True)], [row.name for row in rows])


def _rounded(value: float, _position: int | None = None) -> str:
    for unit, name in ((1e9, " billion"), (1e6, " million"), (1e3, ",000")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
