"""The network of ConvNetJS's CIFAR-10 demo (Karpathy 2014), which CS231n shows in a browser."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from model.nets.arithmetic import InputShape, Window, after
from model.nets.initialisation import initialise_for_relu

FILTERS = (16, 20, 20)


def convnetjs(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Three times 5x5 convolution (16, 20, 20 filters), ReLU and 2x2 max pooling; one linear layer.

    Raises:
        NetError: the input is smaller than 8x8.
    """
    height, width = after(input_shape, *[Window(5, padding=2), Window(2, 2)] * 3)
    layers: list[nn.Module] = []
    for channels, filters in pairwise([input_shape[0], *FILTERS]):
        layers += [nn.Conv2d(channels, filters, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(FILTERS[-1] * height * width, num_classes))
    initialise_for_relu(net)
    return net
