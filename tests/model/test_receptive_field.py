from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from model.nets.googlenet import Inception
from model.nets.layers import layers
from model.nets.resnet import Residual
from model.receptive_field import Field, joined
from model.summary import summarise_net

SIDE = 61


class Branches(nn.Module):
    """A sum of what sees little to the left and of what sees much to the right: no branch alone sees the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Conv2d(1, 1, 2, padding=1), nn.MaxPool2d(2, 2))
        self.right = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, dilation=1), nn.MaxPool2d(3, 2, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.left(x) + self.right(x)
        return total


NETS = {
    "three 3x3": layers(["conv2d:filters=1,F=3"] * 3, (1, SIDE, SIDE)),
    "strides": layers(
        ["conv2d:filters=2,F=5,S=2,P=1", "relu", "maxpool:F=3,S=2", "conv2d:filters=2,F=3"], (1, SIDE, SIDE)
    ),
    "dilation": layers(
        ["conv2d:filters=2,F=3,D=3,P=3", "maxpool:F=2,D=2", "conv2d:filters=2,F=2,G=2"], (1, SIDE, SIDE)
    ),
    "residual": nn.Sequential(Residual(1, 2, 2, bottleneck=False), Residual(2, 1, 1, bottleneck=True)),
    "inception": nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), Inception(1, (1, 1, 1, 1, 1, 1))),
    "branches": Branches(),
    "adaptive": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.AdaptiveAvgPool2d(SIDE)),
}


def seen(net: nn.Module, output: int) -> list[int]:
    """The input columns that an output in the middle row depends on: those through which a NaN comes to it."""
    columns = []
    for column in range(SIDE):
        image = torch.ones(1, 1, SIDE, SIDE)
        image[..., column] = math.nan
        with torch.no_grad():
            found = net(image)
        if found[0, :, found.size(2) // 2, output].isnan().any():
            columns.append(column)
    return columns


@pytest.mark.parametrize("name", NETS)
def test_an_output_sees_what_is_told(name: str) -> None:
    net = NETS[name].eval()
    last = summarise_net(net, (1, SIDE, SIDE)).layers[-1]
    middle = last.output[-1] // 2
    columns = seen(net, middle)
    assert last.receptive_field is not None
    assert last.stride is not None
    # Dilation leaves holes between.
    assert columns[-1] - columns[0] + 1 == last.receptive_field[1]
    assert seen(net, middle + 1)[0] - columns[0] == last.stride[1]


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_lectures_stack(size: int, count: int) -> None:
    """L convolutions of KxK, one after another, see 1 + L(K - 1)."""
    net = layers([f"conv2d:filters=1,F={size}"] * count, (1, 64, 64))
    seen_by_last = 1 + count * (size - 1)
    assert summarise_net(net, (1, 64, 64)).layers[-1].receptive_field == (seen_by_last, seen_by_last)


def test_what_sees_everything_makes_a_sum_see_everything() -> None:
    assert joined([Field.of_pixels(), None]) is None
    assert joined([Field.of_pixels(), Field.of_pixels()]) == Field.of_pixels()


def test_pooling_to_one_number_sees_everything() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1))
    assert summarise_net(net, (1, 9, 9)).layers[-1].receptive_field is None
    uneven = nn.Sequential(nn.AdaptiveAvgPool2d(5))
    (layer,) = summarise_net(uneven, (1, 12, 12)).layers
    # Of 12, five windows begin 2.4 apart and cover at most 4.
    assert (layer.receptive_field, layer.stride) == ((4, 4), (2.4, 2.4))
