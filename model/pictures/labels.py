"""Names beside points, where they cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, hypot, pi, sin

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from model.pictures.figure import FAINT

Point = tuple[float, float]

DISTANCES_POINTS = (7, 14, 24, 36, 50, 66)
"""From a point to its name: the nearer, the better."""

DIRECTIONS = 16

LEADER_POINTS = 20
"""From this distance on, a line leads from the point to its name."""

MARKER_POINTS = 8


def label_points(axes: Axes, points: Sequence[Point], names: Sequence[str]) -> list[Annotation]:
    """Write each name at the nearest free place in the axes, whose limits, scales and size must be set before."""
    figure = axes.figure.get_figure(root=True)
    assert figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    pixels = figure.dpi / 72
    centres: list[Point] = [(x, y) for x, y in axes.transData.transform(points)]
    taken = [_around(centre, MARKER_POINTS * pixels, MARKER_POINTS * pixels) for centre in centres]
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
        size = note.get_window_extent(renderer)
        others = [other for other in centres if other != centre]
        best = None
        for distance in DISTANCES_POINTS:
            for turn in np.arange(DIRECTIONS) * 2 * pi / DIRECTIONS:
                x = centre[0] + cos(turn) * (distance * pixels + size.width / 2)
                y = centre[1] + sin(turn) * (distance * pixels + size.height / 2)
                box = _around((x, y), size.width + 2 * pixels, size.height + 2 * pixels)
                leader = _leader(centre, (x, y), box) if distance > LEADER_POINTS else []
                cost = sum(_outside(part, axes.bbox, taken) for part in (box, *leader))
                if not leader and any(_gap(box, other) < 1.5 * _gap(box, centre) for other in others):
                    cost += box.width * box.height
                if best is None or cost < best[0]:
                    best = cost, (x, y), [box, *leader]
        assert best
        _, (x, y), parts = best
        taken += parts
        note.set_position(((x - centre[0]) / pixels, (y - centre[1]) / pixels))
        if note.arrow_patch:
            note.arrow_patch.set_visible(len(parts) > 1)
        written.append(note)
    return written


def _around(centre: Point, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(centre[0] - width / 2, centre[1] - height / 2, width, height)


def _leader(start: Point, end: Point, name: Bbox) -> list[Bbox]:
    """The line between a point's marker and its name, as small boxes."""
    steps = [np.array(start) + (np.array(end) - start) * share for share in np.linspace(0.2, 1, 20)]
    return [_around((x, y), 2, 2) for x, y in steps if not name.contains(x, y)]


def _outside(box: Bbox, allowed: Bbox, taken: Sequence[Bbox]) -> float:
    """The area of a box that is not free."""
    covered = sum(both.width * both.height for other in taken if (both := Bbox.intersection(box, other)))
    within = Bbox.intersection(box, allowed)
    return covered + box.width * box.height - (within.width * within.height if within else 0)


def _gap(box: Bbox, point: Point) -> float:
    """The distance from a point to the nearest one of a box."""
    x, y = point
    return hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))
