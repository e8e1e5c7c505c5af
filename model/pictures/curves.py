"""Loss and accuracy of a run, epoch by epoch."""

from __future__ import annotations

import json

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model.pictures.figure import BLUE, FAINT, VERMILLION, PictureError
from model.run import Run


def draw_curves(figure: Figure, run: Run) -> None:
    """Draw what `metrics.jsonl` holds.

    Raises:
        PictureError: it holds nothing, or cannot be read.
    """
    file = run.folder / "metrics.jsonl"
    try:
        metrics = run.metrics()
    except json.JSONDecodeError as error:
        raise PictureError(f"{file}: cannot be read as JSON lines: {error}") from error
    if not metrics:
        raise PictureError(f"{file}: no epoch was finished, or the file is missing: there are no curves")
    figure.set_size_inches(8, 3.4)
    left, right = figure.subplots(1, 2)
    _draw(left, metrics, {"loss": ("training", BLUE)})
    _draw(right, metrics, {"train_accuracy": ("training", BLUE), "held_out_accuracy": ("held out", VERMILLION)})
    left.set_title(f"Loss of {run.recipe.net}")
    left.set_ylim(0, 1.05 * max(line["loss"] for line in metrics))
    right.set_title("Accuracy")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(visible=True)
        first, last = run.recipe.epochs, metrics[-1]["epoch"]
        if last > first:
            axes.axvspan(first, last, color=FAINT, alpha=0.2, linewidth=0, label="weights averaged")
    right.legend(loc="best")


def _draw(axes: Axes, metrics: list[dict[str, float]], series: dict[str, tuple[str, str]]) -> None:
    """Draw the values of each key, by its label and colour, and the last ones in figures, the highest above."""
    ends = []
    for key, (label, colour) in series.items():
        points = [(line["epoch"], line[key]) for line in metrics if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o" if len(points) < 20 else None, label=label)
            ends.append((points[-1], colour))
    ends.sort(key=lambda end: end[0][1])
    for place, (end, colour) in enumerate(ends):
        align = "center" if len(ends) == 1 else ("top", "bottom")[place]
        axes.annotate(f"{end[1]:.3g}", end, (5, 0), textcoords="offset points", color=colour, va=align, fontsize=8)
