"""The general pattern of CS231n's CNN lecture, [(CONV-RELU)^N - POOL?]^M - (FC-RELU)^K - SOFTMAX, from one line.

`conv:N=2,M=3,K=1,filters=32-64-128,F=3,P=1,pool=max2`

| key | what | default |
|---|---|---|
| N | convolutions, each with a ReLU, in a block | needed |
| M | blocks | needed |
| filters | of each convolution: one number for all blocks, or M with `-` between | needed |
| F | side of the filters, in pixels | needed |
| S | stride of the convolutions | 1 |
| P | zero padding on each border, in pixels | 0 |
| pool | what ends a block: `none`, or `max` or `avg` with its side, and `s` with its stride if that is another | none |
| K | fully connected layers with ReLU before the last | 0 |
| hidden | units of each of those | 128 |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from model.nets.arithmetic import InputShape, NetError, Window
from model.nets.initialisation import initialise_for_relu
from model.nets.specification import parse, whole, window

PREFIX = "conv:"


@dataclass(frozen=True)
class Pattern:
    """A specification that has been read.

    Attributes:
        text: as it was given.
        convolutions: N.
        filters: of each of the M blocks.
        window: of every convolution.
        pooling: what ends a block: `max` or `avg`, and its window; None for nothing.
        hidden: the units of each of the K fully connected layers before the last.
    """

    text: str
    convolutions: int
    filters: tuple[int, ...]
    window: Window
    pooling: tuple[str, Window] | None
    hidden: tuple[int, ...]


def read_pattern(text: str) -> Pattern:
    """Read a specification.

    Raises:
        NetError: it does not follow the grammar above.
    """
    values = parse(
        text,
        required=("N", "M", "filters", "F"),
        defaults={"S": "1", "P": "0", "pool": "none", "K": "0", "hidden": "128"},
    )
    blocks = whole(text, "M", values["M"], 1)
    filters = tuple(whole(text, "filters", part, 1) for part in values["filters"].split("-"))
    if len(filters) not in (1, blocks):
        raise NetError(f"{text}: filters={values['filters']} are {len(filters)} numbers: must be 1 or M = {blocks}")
    return Pattern(
        text=text,
        convolutions=whole(text, "N", values["N"], 1),
        filters=filters if len(filters) == blocks else filters * blocks,
        window=window(text, values),
        pooling=_pooling(text, values["pool"]),
        hidden=(whole(text, "hidden", values["hidden"], 1),) * whole(text, "K", values["K"], 0),
    )


def _pooling(text: str, value: str) -> tuple[str, Window] | None:
    if value == "none":
        return None
    parts = re.fullmatch(r"(max|avg)([1-9][0-9]?)(?:s([1-9][0-9]?))?", value)
    if not parts:
        raise NetError(f"{text}: pool={value} must be none, max2, max3s2, avg2 or the like")
    kind, size, stride = parts.groups()
    return kind, Window(int(size), int(stride or size))


def pattern(text: str, num_classes: int, input_shape: InputShape) -> nn.Module:
    """Build the network of a specification.

    Raises:
        NetError: the specification cannot be read, or a window of it does not fit what is before it.
    """
    read = read_pattern(text)
    channels, height, width = input_shape
    layers: list[nn.Module] = []
    conv = read.window
    for block, filters in enumerate(read.filters, 1):
        for number in range(1, read.convolutions + 1):
            height, width = _fit(read, conv, height, width, f"convolution {number} of block {block}")
            layers += [nn.Conv2d(channels, filters, conv.size, conv.stride, conv.padding), nn.ReLU()]
            channels = filters
        if read.pooling:
            kind, pool = read.pooling
            height, width = _fit(read, pool, height, width, f"pooling of block {block}", most_padding=0)
            layers.append((nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(pool.size, pool.stride))
    layers.append(nn.Flatten())
    units = channels * height * width
    for hidden in read.hidden:
        layers += [nn.Linear(units, hidden), nn.ReLU()]
        units = hidden
    net = nn.Sequential(*layers, nn.Linear(units, num_classes))
    initialise_for_relu(net)
    return net


def _fit(
    read: Pattern, window: Window, height: int, width: int, where: str, *, most_padding: int | None = None
) -> tuple[int, int]:
    for size in (height, width):
        misfit = window.misfit(size, most_padding=most_padding)
        if misfit:
            raise NetError(f"{read.text}: {where}, on {height}x{width}: {misfit}")
    return int(window.positions(height)), int(window.positions(width))
