"""The reliability diagram: how often a classifier is right when it says that it is so sure (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from model.evaluate import Calibration
from model.pictures.figure import INK, PAPER, SKY, VERMILLION


def draw_reliability(figure: Figure, found: Calibration) -> None:
    """Draw each bin's accuracy, its gap to the confidence, and how many images the bin holds."""
    count = len(found.images)
    filled = found.images > 0
    middles, width = ((np.arange(count) + 0.5) / count)[filled], 1 / count
    accuracy, confidence = found.accuracy[filled], found.confidence[filled]
    figure.set_size_inches(4.6, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(middles, accuracy, width, color=SKY, edgecolor=PAPER, linewidth=0.8, label="accuracy")
    above.bar(
        middles,
        confidence - accuracy,
        width,
        accuracy,
        facecolor="none",
        edgecolor=VERMILLION,
        hatch="////",
        linewidth=0.8,
        label="gap to the confidence",
    )
    above.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="calibrated")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    above.set_title(f"Expected calibration error {found.error:.4f}, {found.images.sum():,} images")
    above.legend(loc="upper left")
    below.bar(middles, found.images[filled] / found.images.sum(), width, color=SKY, edgecolor=PAPER, linewidth=0.8)
    below.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    below.set(xlabel="confidence: the probability of the predicted class", ylabel="of the images")
