"""GoogLeNet (Szegedy et al. 2014): nine inception modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.nets.arithmetic import InputShape, Window, after

SMALL = 64
"""Inputs below this many pixels get a first layer that does not shrink them."""

INCEPTIONS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""The paper's table 1, between poolings: filters of 1x1, before and of 3x3, before and of 5x5, after pooling."""


class ConvNorm(nn.Sequential):
    """Convolution without bias that keeps the size at stride 1, batch normalisation, ReLU."""

    def __init__(self, channels: int, filters: int, size: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(filters, eps=1e-3),
            nn.ReLU(),
        )


class Inception(nn.Module):
    """Four branches side by side, (N, C, H, W) to (N, filters of all branches, H, W)."""

    def __init__(self, channels: int, filters: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        of_1x1, before_3x3, of_3x3, before_5x5, of_5x5, of_pooling = filters
        self.channels = of_1x1 + of_3x3 + of_5x5 + of_pooling
        self.branches = nn.ModuleList(
            [
                ConvNorm(channels, of_1x1, 1),
                nn.Sequential(ConvNorm(channels, before_3x3, 1), ConvNorm(before_3x3, of_3x3, 3)),
                nn.Sequential(ConvNorm(channels, before_5x5, 1), ConvNorm(before_5x5, of_5x5, 3)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), ConvNorm(channels, of_pooling, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def googlenet(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Torchvision's form: with batch normalisation, without auxiliary classifiers, 3x3 where the paper has 5x5.

    6,624,904 parameters at 1,000 classes. Inputs below 64x64 get one 3x3 convolution of 192 filters instead of the
    three first ones, which would leave a quarter of each side.

    Raises:
        NetError: the input is smaller than 2x2, which pooling at stride 2 leaves nothing of even where it rounds up.
    """
    after(input_shape, Window(2))
    channels = 192
    if min(input_shape[1:]) < SMALL:
        layers: list[nn.Module] = [ConvNorm(input_shape[0], channels, 3)]
    else:
        layers = [
            ConvNorm(input_shape[0], 64, 7, stride=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            ConvNorm(64, 64, 1),
            ConvNorm(64, channels, 3),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
        ]
    poolings = [nn.MaxPool2d(3, stride=2, ceil_mode=True), nn.MaxPool2d(2, stride=2, ceil_mode=True)]
    for group in INCEPTIONS:
        for filters in group:
            inception = Inception(channels, filters)
            channels = inception.channels
            layers.append(inception)
        if poolings:
            layers.append(poolings.pop(0))
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels, num_classes)
    )
