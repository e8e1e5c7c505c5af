"""The Neocognitron's sandwich S-C-S-C-S-C (Fukushima 1980), trained by backpropagation."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from model.nets.arithmetic import InputShape, Window, after
from model.nets.initialisation import initialise_for_relu

PLANES = 24
"""Cell planes of every layer, as in the paper."""

S = Window(5, padding=2)
C = Window(4, stride=2, padding=1)


def neocognitron(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Three times simple cells and complex cells, then one linear layer.

    Simple cells see 5x5, share their weights within a plane and answer max(0, .). Complex cells are not trained: they
    blur, by the mean over overlapping 4x4 at stride 2, so that a feature may be a little elsewhere. The paper learned
    without labels, by competition; here the labels teach all layers.

    Raises:
        NetError: the input is smaller than 8x8.
    """
    height, width = after(input_shape, S, C, S, C, S, C)
    layers: list[nn.Module] = []
    for planes_in, planes in pairwise([input_shape[0], PLANES, PLANES, PLANES]):
        layers += [
            nn.Conv2d(planes_in, planes, S.size, padding=S.padding),
            nn.ReLU(),
            nn.AvgPool2d(C.size, C.stride, C.padding),
        ]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(PLANES * height * width, num_classes))
    initialise_for_relu(net)
    return net
