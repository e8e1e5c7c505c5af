"""The classifiers before the convolution: scores of the pixels themselves (CS231n, lectures 2 to 4)."""

from __future__ import annotations

from math import prod

from torch import nn

from model.nets.arithmetic import InputShape

HIDDEN = 100
"""Hidden units of the lecture's two-layer network."""


def linear(num_classes: int, input_shape: InputShape) -> nn.Module:
    """f = Wx + b, with one template per class in the rows of W."""
    layer = nn.Linear(prod(input_shape), num_classes)
    # The scores begin at zero: the first loss is then log K (softmax) or K - 1 (SVM), as the lecture checks.
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


def two_layer(num_classes: int, input_shape: InputShape) -> nn.Module:
    """f = W2 max(0, W1 x + b1) + b2, with 100 hidden units."""
    return nn.Sequential(nn.Flatten(), nn.Linear(prod(input_shape), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_classes))
