"""Histograms of oriented gradients (Dalal & Triggs 2005), as a network whose weights are fixed."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.nets.arithmetic import InputShape, Window, after

CELL = 8
"""Side of a cell in pixels."""

ORIENTATIONS = 9
"""Bins of 20 degrees, from 0 to 180: a gradient and its opposite have one orientation."""

CLIP = 0.2
EPSILON = 1e-5
"""Of the normalisation, as scikit-image has them."""


class Hog(nn.Module):
    """Whole numbers from 0 to 255, (N, C, H, W) float32, to (N, H // 8 * (W // 8) * 9) float32.

    It equals scikit-image's `hog` with 9 orientations, 8x8 pixels a cell and 1x1 cells a block. At every pixel, the
    gradient is the central difference of the channel in which that is longest, and 0 across the border. It votes with
    its length for its orientation in its cell; a cell's votes are normalised, clipped and normalised again (L2-Hys).

    Raises:
        NetError: the input is smaller than a cell.
    """

    def __init__(self, input_shape: InputShape) -> None:
        rows, columns = after(input_shape, Window(CELL, CELL))
        super().__init__()
        self.length = rows * columns * ORIENTATIONS
        channels = input_shape[0]
        difference = torch.tensor([-1.0, 0.0, 1.0]).expand(channels, 1, 3)
        # At the border a mirrored image has no gradient.
        self.down = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), padding_mode="reflect", groups=channels)
        self.across = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), padding_mode="reflect", groups=channels)
        _fix(self.down, difference[:, :, :, None])
        _fix(self.across, difference[:, :, None, :])
        angles = torch.arange(ORIENTATIONS) * math.pi / ORIENTATIONS
        self.turn = nn.Conv2d(2, ORIENTATIONS, 1)
        _fix(self.turn, torch.stack([angles.cos(), -angles.sin()], 1)[:, :, None, None])
        self.cells = nn.AvgPool2d(CELL)

    def forward(self, pixels: Tensor) -> Tensor:
        down, across = self.down(pixels), self.across(pixels)
        squares = down * down + across * across
        longest = squares.argmax(1, keepdim=True)
        down, across, squares = (each.gather(1, longest) for each in (down, across, squares))
        opposite = (down < 0) | ((down == 0) & (across < 0))
        gradient = torch.cat([down, across], 1) * (1 - 2 * opposite.float())
        # Positive where the gradient has turned beyond the first angle of a bin; it is in the last one of these.
        beyond = (self.turn(gradient) >= 0).float()
        votes = beyond - functional.pad(beyond[:, 1:], (0, 0, 0, 0, 0, 1))
        cells: Tensor = self.cells(votes * squares.sqrt())
        for limit in (CLIP, 1.0):
            # By sqrt(x.x + e^2), written so that no e^2 is added: the exporter's optimizer drops a sum with so little.
            cells = cells / EPSILON
            cells = (cells / (cells.square().sum(1, keepdim=True) + 1).sqrt()).clamp(max=limit)
        return cells.permute(0, 2, 3, 1).flatten(1)


def _fix(layer: nn.Conv2d, weights: Tensor) -> None:
    layer.weight = nn.Parameter(weights.contiguous(), requires_grad=False)
    layer.bias = None
