"""AlexNet (Krizhevsky, Sutskever and Hinton 2012) in its form for one GPU, and one for CIFAR's images."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from model.nets.arithmetic import InputShape, NetError, Window, after
from model.nets.initialisation import initialise_for_relu


def alexnet(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Five convolutions, of which the first is 11x11 at stride 4, and three linear layers.

    The form for one GPU (Krizhevsky 2014, "One weird trick"): 64, 192, 384, 256, 256 filters without groups, no local
    response normalisation. 61,100,840 parameters at 3x224x224 and 1,000 classes. The first linear layer is as wide as
    what the convolutions leave of the input.

    Raises:
        NetError: the input is smaller than 63x63.
    """
    pool = Window(3, 2)
    try:
        height, width = after(
            input_shape, Window(11, 4, 2), pool, Window(5, padding=2), pool, *[Window(3, padding=1)] * 3, pool
        )
    except NetError as error:
        raise NetError(f"{error}; alexnet_cifar is for small images") from None
    return _alexnet(
        nn.Conv2d(input_shape[0], 64, 11, stride=4, padding=2),
        lambda: nn.MaxPool2d(3, stride=2),
        positions=height * width,
        hidden=4096,
        num_classes=num_classes,
    )


def alexnet_cifar(num_classes: int, input_shape: InputShape) -> nn.Module:
    """The same for 32x32: 5x5 at stride 1 first, 2x2 pooling so that 32 comes out whole, 1,024 hidden units.

    Raises:
        NetError: the input is smaller than 8x8.
    """
    height, width = after(input_shape, *[Window(5, padding=2), Window(2, 2)] * 2, Window(3, padding=1), Window(2, 2))
    return _alexnet(
        nn.Conv2d(input_shape[0], 64, 5, padding=2),
        lambda: nn.MaxPool2d(2),
        positions=height * width,
        hidden=1024,
        num_classes=num_classes,
    )


def _alexnet(
    first: nn.Conv2d, pool: Callable[[], nn.Module], *, positions: int, hidden: int, num_classes: int
) -> nn.Module:
    net = nn.Sequential(
        first,
        nn.ReLU(),
        pool(),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        pool(),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        pool(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(256 * positions, hidden),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )
    initialise_for_relu(net)
    return net
