"""A picture's file, PNG or SVG by its suffix, and the style that all pictures have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")

INK, FAINT, PAPER = "#0a0b0c", "#8d8e8f", "#ffffff"

# Of Okabe and Ito, Color Universal Design: told apart by colour-blind people too.
BLUE, SKY, VERMILLION = "#0072b2", "#56b4e9", "#d55e00"

STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    # A class may have a dollar in its name.
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titlepad": 10,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
    "savefig.pad_inches": 0.12,
    "svg.hashsalt": "fovea",
}


class PictureError(Exception):
    """There is nothing to draw; the message says why."""


@contextmanager
def picture(file: Path) -> Iterator[Figure]:
    """A figure to draw on, which is written to the file in the end, whose folder is made."""
    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        yield figure
        file.parent.mkdir(parents=True, exist_ok=True)
        form = file.suffix.lower().removeprefix(".")
        # Drawn twice, a picture is the same file.
        figure.savefig(file, format=form, metadata={"Date": None} if form == "svg" else None)
