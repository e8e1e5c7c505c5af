from __future__ import annotations

import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from model.evaluate import calibration
from model.pictures.reliability import draw_reliability


def test_the_bars_are_the_bins(figure: Figure) -> None:
    """Bins are a fifth wide: 0.9 and 0.92 share the last one, 0.7 has the one before."""
    logits = np.log(np.array([[0.9, 0.1], [0.08, 0.92], [0.3, 0.7]], np.float32))
    found = calibration(logits, np.array([0, 0, 0]), bins=5)
    draw_reliability(figure, found)
    above, below = figure.axes
    accuracy, gap = (bars for bars in above.containers if isinstance(bars, BarContainer))
    (counts,) = (bars for bars in below.containers if isinstance(bars, BarContainer))
    assert [bar.get_height() for bar in accuracy] == [0, 0.5]
    assert [bar.get_y() + bar.get_height() for bar in gap] == pytest.approx([0.7, 0.91])
    assert [bar.get_x() for bar in accuracy] == pytest.approx([0.6, 0.8])
    assert [bar.get_height() for bar in counts] == pytest.approx([1 / 3, 2 / 3])
    error = (abs(0 - 0.7) + 2 * abs(0.5 - 0.91)) / 3
    assert found.error == pytest.approx(error, abs=1e-6)
    assert f"error {error:.4f}, 3 images" in above.get_title(loc="left") + above.get_title()
