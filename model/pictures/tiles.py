"""Small images side by side: what most of the pictures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Image = npt.NDArray[np.uint8] | npt.NDArray[np.float32]

Item = TypeVar("Item")

GAP = 0.06
"""Between two tiles, in their sides."""

LINE_INCHES = 0.145
"""The height of a caption's line."""


def draw_tiles(
    figure: Figure,
    rows: Sequence[Sequence[Image]],
    *,
    side_inches: float,
    title: str,
    captions: Sequence[Sequence[str]] | None = None,
    row_names: Sequence[str] | None = None,
) -> Axes:
    """Draw rows of square tiles and make the figure as large as they need.

    Args:
        rows: the tiles; each (H, W, 3), uint8 or 0 to 1, or (H, W), 0 (black) to 1 (white).
        side_inches: of a tile.
        captions: of one or more lines, above each tile.
        row_names: left of each row.
    """
    lines = max(text.count("\n") + 1 for row in captions for text in row) if captions else 0
    above = lines * LINE_INCHES / side_inches
    across, down = 1 + GAP, 1 + GAP + above
    width, height = max(map(len, rows)) * across - GAP, len(rows) * down - GAP
    figure.set_size_inches(width * side_inches, height * side_inches)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    for i, row in enumerate(rows):
        top = i * down + above
        for j, tile in enumerate(row):
            left = j * across
            axes.imshow(tile, "gray", interpolation="none", vmin=0, vmax=1, extent=(left, left + 1, top + 1, top))
            if captions:
                axes.text(left + 0.5, top - 0.02 / side_inches, captions[i][j], ha="center", va="bottom", fontsize=8)
        if row_names:
            axes.text(-2 * GAP, top + 0.5, row_names[i], ha="right", va="center", fontsize=8)
    axes.set(xlim=(0, width), ylim=(height, 0), title=title)
    axes.set_axis_off()
    return axes


def in_rows(items: Sequence[Item], columns: int) -> list[Sequence[Item]]:
    return [items[at : at + columns] for at in range(0, len(items), columns)]


def columns_for(count: int, *, wide: float = 1.0) -> int:
    """How many columns make a picture of so many tiles about `wide` times as wide as high, with few empty places."""
    wished = round(sqrt(wide * count))
    return min(range(count, 0, -1), key=lambda columns: abs(columns - wished) + -count % columns)


def shortened(name: str, most: int = 16) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
