"""Single layers from one line each, to look at their arithmetic: `conv2d:filters=10,F=5,S=1,P=2`.

| kind | keys that are needed | and their defaults |
|---|---|---|
| `conv2d` | filters, F | S=1, P=0, D=1 (dilation), G=1 (groups) |
| `maxpool` | F | S=F, P=0, D=1 |
| `avgpool` | F | S=F, P=0 |
| `fc` | units | |
| `relu` | | |
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import nn

from model.nets.arithmetic import InputShape, NetError, after
from model.nets.specification import parse, whole, window

KINDS = ("conv2d", "maxpool", "avgpool", "fc", "relu")


def is_layer(text: str) -> bool:
    """Whether a text is of a layer's kind, rather than the name of a network."""
    return text.partition(":")[0] in KINDS


def layers(texts: Sequence[str], input_shape: InputShape) -> nn.Module:
    """Layers one after another, each for what the one before it leaves. PyTorch rounds down what is not whole.

    Raises:
        NetError: a specification cannot be read, a window is larger than its padded input or has a linear layer before
            it, or groups do not divide.
    """
    made: list[nn.Module] = []
    shape = input_shape
    flat = False
    for text in texts:
        kind = text.partition(":")[0]
        if kind in ("conv2d", "maxpool", "avgpool"):
            if flat:
                raise NetError(f"{text}: must stand before any fc, which leaves neither height nor width")
            layer, shape = _windowed(kind, text, shape)
            made.append(layer)
        elif kind == "fc":
            units = whole(text, "units", parse(text, required=("units",), defaults={})["units"], 1)
            made += [nn.Flatten(), nn.Linear(prod(shape), units)]
            shape, flat = (units, 1, 1), True
        elif kind == "relu":
            parse(text, required=(), defaults={})
            made.append(nn.ReLU())
        else:
            raise NetError(f"no layer {kind!r}: must be one of {', '.join(KINDS)}")
    return nn.Sequential(*made)


def _windowed(kind: str, text: str, shape: InputShape) -> tuple[nn.Module, InputShape]:
    needed = ("filters", "F") if kind == "conv2d" else ("F",)
    extra = {"conv2d": {"D": "1", "G": "1"}, "maxpool": {"D": "1"}, "avgpool": {}}[kind]
    values = parse(text, required=needed, defaults={"S": "", "P": "0", **extra})
    values["S"] = values["S"] or ("1" if kind == "conv2d" else values["F"])
    moved = window(text, values)
    channels, height, width = shape
    for size in (height, width):
        if moved.positions(size) < 1:
            raise NetError(f"{text}, on {channels}x{height}x{width}: {moved.misfit(size)}")
    height, width = after(shape, moved)
    if kind == "conv2d":
        filters, groups = whole(text, "filters", values["filters"], 1), whole(text, "G", values["G"], 1)
        if channels % groups or filters % groups:
            fitting = [str(n) for n in range(1, min(channels, filters) + 1) if channels % n == 0 and filters % n == 0]
            raise NetError(
                f"{text}: {groups} groups do not divide {channels} input channels and {filters} filters: "
                f"G = {' or '.join(fitting)} would"
            )
        conv = nn.Conv2d(channels, filters, moved.size, moved.stride, moved.padding, moved.dilation, groups)
        return conv, (filters, height, width)
    if moved.padding > moved.size // 2:
        raise NetError(
            f"{text}: P = {moved.padding} is more than half of F = {moved.size}, which pooling does not take"
        )
    pool: nn.Module = (
        nn.MaxPool2d(moved.size, moved.stride, moved.padding, moved.dilation)
        if kind == "maxpool"
        else nn.AvgPool2d(moved.size, moved.stride, moved.padding)
    )
    return pool, (channels, height, width)
