"""LeNet-5 (LeCun et al. 1998)."""

from __future__ import annotations

from torch import nn

from model.nets.arithmetic import InputShape, Window, after


class LeNet(nn.Sequential):
    """LeNet-5's shape with today's parts: two 5x5 convolutions, three linear layers.

    Today's are ReLU for the squashing function, max pooling for the trained subsampling, and every first feature map in
    every second one. Inputs of other sizes than 32x32 are averaged to the paper's 5x5 before the linear layers.

    Raises:
        NetError: the input is smaller than 14x14.
    """

    def __init__(self, num_classes: int, input_shape: InputShape = (3, 32, 32)) -> None:
        left = after(input_shape, Window(5), Window(2, 2), Window(5))
        super().__init__(
            nn.Conv2d(input_shape[0], 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2) if left == (10, 10) else nn.AdaptiveAvgPool2d(5),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )
