"""VGG-16 (Simonyan and Zisserman 2014): 3x3 convolutions and nothing else."""

from __future__ import annotations

from torch import nn

from model.nets.arithmetic import InputShape, Window, after
from model.nets.initialisation import initialise_for_relu

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Filters of each convolution, by block; 2x2 max pooling ends a block (the paper's configuration D)."""


def vgg16(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Thirteen convolutions and three linear layers: 138,357,544 parameters at 3x224x224 and 1,000 classes.

    The first linear layer is as wide as what five poolings leave of the input: 7x7 of 224x224, 1x1 of 32x32. No batch
    normalisation, as in the paper; the first weights are He's, with which that many layers learn from the start.

    Raises:
        NetError: the input is smaller than 32x32.
    """
    height, width = after(input_shape, *[Window(2, 2)] * len(BLOCKS))
    layers: list[nn.Module] = []
    channels = input_shape[0]
    for block in BLOCKS:
        for filters in block:
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
            channels = filters
        layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(channels * height * width, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )
    initialise_for_relu(net)
    return net
