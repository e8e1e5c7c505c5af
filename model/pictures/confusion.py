"""The confusion matrix: which class is taken for which."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from model.evaluate import Report
from model.pictures.figure import INK, PAPER
from model.pictures.tiles import shortened

MOST_WITH_FIGURES = 20
"""Classes, beyond which a cell is too small for a number."""


def draw_confusion(figure: Figure, found: Report) -> None:
    """Draw the share of each true class (a row) that each prediction (a column) got, with the counts in figures."""
    counts = np.array(found.confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [shortened(name) for name in found.class_accuracy]
    few = len(names) <= MOST_WITH_FIGURES
    side_inches = max(3.5, 0.5 * len(names)) if few else 10
    figure.set_size_inches(side_inches + 2, side_inches + 1)
    axes = figure.add_subplot()
    image = axes.imshow(shares, "Blues", vmin=0, vmax=1)
    font_size = 9 if few else max(2, min(9, 72 * side_inches / len(names) * 0.8))
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=font_size)
    axes.set_yticks(range(len(names)), names, fontsize=font_size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"Confusion: accuracy {found.accuracy:.4f} on {found.images:,} images")
    if few:
        for (i, j), count in np.ndenumerate(counts):
            colour = PAPER if shares[i, j] > 0.5 else INK
            axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=8)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1), label="share of the true class")
    bar.outline.set_visible(False)
