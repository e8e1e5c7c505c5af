from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from model.pictures.figure import PictureError
from model.pictures.templates import draw_templates
from model.run import Run


def test_one_template_a_class(run_of: Callable[[str], Run], figure: Figure) -> None:
    run = run_of("linear")
    draw_templates(figure, run)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["disc", "square", "cross"]
    weights = next(run.net.parameters()).detach().numpy().reshape(3, 3, 16, 16).transpose(0, 2, 3, 1)
    weights = weights / run.preprocess.std.flatten().numpy()
    for image, template in zip(axes.images, weights, strict=True):
        shown = np.asarray(image.get_array())
        assert shown - 0.5 == pytest.approx(template / np.abs(template).max() / 2, abs=1e-6)
        assert np.abs(shown - 0.5).max() == pytest.approx(0.5)


def test_a_bank_of_templates(run_of: Callable[[str], Run], figure: Figure) -> None:
    draw_templates(figure, run_of("two_layer"))
    (axes,) = figure.axes
    assert len(axes.images) == 100
    assert len(axes.texts) == 0
    assert "100 hidden units" in axes.get_title(loc="left") + axes.get_title()


def test_a_convolution_has_none(run_of: Callable[[str], Run], figure: Figure) -> None:
    with pytest.raises(PictureError, match="lenet begins with a convolution: it has filters, and no templates"):
        draw_templates(figure, run_of("lenet"))
    with pytest.raises(PictureError, match="hog sees features of the image, not its pixels: it has no templates"):
        draw_templates(figure, run_of("hog"))


def test_features_have_none(run_of: Callable[[str], Run], figure: Figure) -> None:
    run = replace(run_of("linear"), net=nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 8 * 8, 3)))
    assert run.net(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    with pytest.raises(PictureError, match="sees features of the image, not its pixels"):
        draw_templates(figure, run)
