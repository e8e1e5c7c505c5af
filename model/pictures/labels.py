"""Names beside points, where they cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import cos, hypot, pi, sin

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from model.pictures.figure import FAINT

Point = tuple[float, float]
Boxes = npt.NDArray[np.float64]
"""(N, 4): left, bottom, right and top, in pixels."""

DISTANCES_POINTS = (7, 14, 24, 36, 50, 66, 84, 104)
"""From a point to its name: the nearer, the better."""

DIRECTIONS = 16

LEADER_POINTS = 20
"""From this distance on, a line leads from the point to its name."""

NAME_WEIGHT = 20
"""Of the area that a name covers, against what its line covers."""

MARKER_POINTS = 8


def label_points(axes: Axes, points: Sequence[Point], names: Sequence[str]) -> list[Annotation]:
    """Write each name at the nearest free place in the axes, whose limits, scales and size must be set before."""
    figure = axes.figure.get_figure(root=True)
    assert figure
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw_without_rendering()
    pixels = figure.dpi / 72
    centres: list[Point] = [(x, y) for x, y in axes.transData.transform(points)]
    taken = _around(np.array(centres), MARKER_POINTS * pixels, MARKER_POINTS * pixels)
    written = []
    for name, point, centre in zip(names, points, centres, strict=True):
        note = axes.annotate(
            name,
            point,
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3},
        )
        note.set_in_layout(False)
        extent = note.get_window_extent(renderer)
        size = extent.width + 2 * pixels, extent.height + 2 * pixels
        others = [other for other in centres if other != centre]
        best = None
        for middle, far in _places(centre, size, pixels):
            box = _around(np.array([middle]), *size)
            parts = np.concatenate([box, _leader(centre, middle, size, MARKER_POINTS * pixels)]) if far else box
            cost = NAME_WEIGHT * _not_free(box, np.array(axes.bbox.extents), taken) + _shared(parts[1:], taken)
            if not far and any(_gap(box[0], other) < 1.5 * _gap(box[0], centre) for other in others):
                # It would be taken for another's.
                cost += size[0] * size[1]
            if best is None or cost < best[0]:
                best = cost, middle, parts
            if cost == 0:
                break
        assert best
        _, (x, y), parts = best
        taken = np.concatenate([taken, parts])
        note.set_position(((x - centre[0]) / pixels, (y - centre[1]) / pixels))
        if note.arrow_patch:
            note.arrow_patch.set_visible(len(parts) > 1)
        written.append(note)
    return written


def _places(centre: Point, size: tuple[float, float], pixels: float) -> Iterator[tuple[Point, bool]]:
    """The middles of a name's places around a point, the nearest first, and whether they are far from it."""
    for distance in DISTANCES_POINTS:
        for turn in np.arange(DIRECTIONS) * 2 * pi / DIRECTIONS:
            x = centre[0] + cos(turn) * (distance * pixels + size[0] / 2)
            y = centre[1] + sin(turn) * (distance * pixels + size[1] / 2)
            yield (x, y), distance > LEADER_POINTS


def _around(centres: npt.NDArray[np.float64], width: float, height: float) -> Boxes:
    half = np.array([width, height]) / 2
    return np.concatenate([centres - half, centres + half], 1)


def _leader(start: Point, end: Point, size: tuple[float, float], marker: float) -> Boxes:
    """The line from a point's marker to its name, as small boxes."""
    steps = np.array(start) + np.linspace(0, 1, 40)[:, None] * (np.array(end) - start)
    outside = (np.abs(steps - end) > np.array(size) / 2).any(1) & (np.abs(steps - start) > marker).any(1)
    return _around(steps[outside], 4, 4)


def _not_free(boxes: Boxes, inside: Boxes, taken: Boxes) -> float:
    """The area of boxes that is taken, or not inside."""
    area = float((boxes[:, 2:] - boxes[:, :2]).prod(1).sum())
    outside = area - _shared(boxes, inside[None])
    return _shared(boxes, taken) + (outside if outside > 1e-6 else 0)


def _shared(some: Boxes, others: Boxes) -> float:
    """The area that boxes share with others."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    return float((high - low).clip(0).prod(2).sum())


def _gap(box: Boxes, point: Point) -> float:
    """The distance from a point to the nearest one of a box."""
    left, bottom, right, top = box
    return hypot(max(left - point[0], 0, point[0] - right), max(bottom - point[1], 0, point[1] - top))
