"""The arithmetic of a network, layer by layer: `python -m model summary NAME --input 3x32x32 --num-classes 10`.

The network is traced, and run on shapes alone: nothing is computed, and a large one costs no memory.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from model.nets import build
from model.nets.arithmetic import InputShape, NetError, Window
from model.nets.layers import is_layer, layers
from model.receptive_field import Field, joined

FLOAT32_BYTES = 4

NO_LAYERS = ("placeholder", "get_attr", "output")
"""What a traced network has besides layers: its input, constants, and what it returns."""

OVER_THE_IMAGE = ("matmul", "amax")
"""Functions that, in these networks, make one number of the whole image."""

VIEWS = (nn.Flatten, nn.Dropout, nn.Identity)
"""Layers that give, at inference, what they got: no memory of their own."""


@dataclass(frozen=True)
class Layer:
    """One layer of a network, for one image.

    Attributes:
        name: its place in the network, or the function's name.
        output: its shape, N left out.
        parameters: trained or not, with biases.
        multiply_adds: of convolutions, linear layers and products of matrices; biases and all other layers count
            nothing.
        activation_bytes: of its output in float32.
        receptive_field: height and width in input pixels of what one of its outputs sees, padding included; None
            where it sees the whole image.
        stride: how many input pixels lie between two of its outputs, in height and width; None likewise, and where
            they are no maps.
        note: what is left out where a window does not fit, and what would.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int
    receptive_field: tuple[int, int] | None
    stride: tuple[float, float] | None
    note: str | None


@dataclass(frozen=True)
class Summary:
    """A network's layers in the order in which they run, and their sums."""

    input: InputShape
    layers: list[Layer]
    parameters: int
    multiply_adds: int
    activation_bytes: int


def summarise(names: Sequence[str], num_classes: int, input_shape: InputShape) -> Summary:
    """Look at one network, or at single layers one after another.

    Args:
        names: a network's name or specification (see `model.nets`), or layers (see `model.nets.layers`).
        num_classes: of the network; single layers have no use for it.

    Raises:
        NetError: neither, or it does not fit the input.
    """
    with torch.device("meta"):
        if any(is_layer(name) for name in names):
            net = layers(names, input_shape)
        elif len(names) == 1:
            net = build(names[0], num_classes, input_shape)
        else:
            raise NetError(f"{' '.join(names)}: one network at a time, or layers, one after another")
    return summarise_net(net, input_shape)


def summarise_net(net: nn.Module, input_shape: InputShape) -> Summary:
    """The same for a network that is there, in evaluation mode."""
    walk = _Walk(fx.symbolic_trace(copy.deepcopy(net).to("meta").eval()))
    walk.run(torch.empty(1, *input_shape, device="meta"))
    return Summary(
        input=input_shape,
        layers=walk.layers,
        parameters=sum(layer.parameters for layer in walk.layers),
        multiply_adds=sum(layer.multiply_adds for layer in walk.layers),
        activation_bytes=sum(layer.activation_bytes for layer in walk.layers),
    )


class _Walk(fx.Interpreter):
    """Runs a traced network on shapes and notes every layer it comes by."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.layers: list[Layer] = []
        self._fields: dict[fx.Node, Field | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "placeholder":
            self._fields[n] = Field.of_pixels()
        elif n.op not in NO_LAYERS and isinstance(result, Tensor):
            self._note(n, result)
        return result

    def _note(self, node: fx.Node, result: Tensor) -> None:
        module = self.fetch_attr(str(node.target)) if node.op == "call_module" else None
        given = [self.env[source] for source in node.all_input_nodes]
        field = joined([self._fields[source] for source in node.all_input_nodes if source in self._fields])
        notes: list[str] = []
        multiply_adds = 0
        match module:
            case nn.Conv2d() | nn.MaxPool2d() | nn.AvgPool2d():
                windows = _windows(module)
                field = field.through(windows) if field else None
                pairs = dict.fromkeys(zip(windows, given[0].shape[2:], result.shape[2:], strict=True))
                notes = [note for window, *sizes in pairs if (note := _left_out(module, window, *sizes))]
            case nn.AdaptiveAvgPool2d():
                field = field.adapted(given[0].shape[2:], result.shape[2:]) if field else None
            case nn.Linear():
                field = None
            case None if _function(node) in OVER_THE_IMAGE:
                field = None
        match module:
            case nn.Conv2d():
                multiply_adds = result.numel() * prod(module.kernel_size) * module.in_channels // module.groups
            case nn.Linear():
                multiply_adds = result.numel() * module.in_features
            case None if _function(node) == "matmul":
                multiply_adds = result.numel() * given[0].shape[-1]
        self._fields[node] = field
        self.layers.append(
            Layer(
                name=str(node.target) if module else node.name,
                kind=_kind(module, node),
                output=tuple(result.shape[1:]),
                parameters=sum(p.numel() for p in module.parameters()) if module else 0,
                multiply_adds=multiply_adds,
                activation_bytes=0 if isinstance(module, VIEWS) else result.numel() * FLOAT32_BYTES,
                receptive_field=field.size if field else None,
                stride=field.stride if field and result.ndim == 4 else None,
                note="; ".join(notes) or None,
            )
        )


def _windows(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> tuple[Window, Window]:
    """The module's window along the height and along the width."""
    parts = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
    along = [(part, part) if isinstance(part, int) else part for part in parts]
    return Window(*(int(part[0]) for part in along)), Window(*(int(part[1]) for part in along))


def _left_out(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, window: Window, size: int, positions: int) -> str | None:
    """What PyTorch does about a window that does not fit: pixels that no position covers, or one that hangs over."""
    if window.positions(size).denominator == 1:
        return None
    rest = size + 2 * window.padding - ((positions - 1) * window.stride + window.extent)
    # PyTorch pads a pooling window by half of it at most.
    most_padding = None if isinstance(module, nn.Conv2d) else window.size // 2
    if rest < 0:
        what = f"rounded up to {positions}, whose last window hangs over by {-rest}"
    elif rest <= window.padding:
        what = f"rounded down to {positions}, which leaves out the last {rest} of the padding and no pixel"
    else:
        what = f"rounded down to {positions}, which leaves out the last {rest - window.padding} of {size} pixels"
    return f"{window.misfit(size, most_padding=most_padding)}; {what}"


def _kind(module: nn.Module | None, node: fx.Node) -> str:
    """What a layer is, in a few words."""
    match module:
        case nn.Conv2d() | nn.MaxPool2d() | nn.AvgPool2d():
            name = {nn.Conv2d: "conv", nn.MaxPool2d: "max pool", nn.AvgPool2d: "average pool"}[type(module)]
            size, stride, padding, dilation = zip(*map(astuple, _windows(module)), strict=True)
            words = [f"{name} {_by(size)}", f"stride {_along(stride)}"]
            words += [f"pad {_along(padding)}"] * (padding != (0, 0))
            words += [f"dilation {_along(dilation)}"] * (dilation != (1, 1))
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                words.append(f"groups {module.groups}")
            return ", ".join(words)
        case None:
            function = _function(node)
            return {"cat": "concatenate", "amax": "max", "truediv": "divide"}.get(function, function)
    names = {"BatchNorm2d": "batch norm", "AdaptiveAvgPool2d": "average", "ReLU": "ReLU", "GELU": "GELU"}
    return names.get(type(module).__name__, type(module).__name__.lower())


def _function(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def table(summary: Summary) -> str:
    """A summary as lines of text: the layers, their sums, and notes on what does not fit."""
    header = ("layer", "kind", "output", "parameters", "multiply-adds", "bytes", "sees", "stride")
    rows = [
        (
            layer.name,
            layer.kind + (" *" if layer.note else ""),
            "x".join(map(str, layer.output)),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
            f"{layer.activation_bytes:,}",
            "all" if layer.receptive_field is None else _by(layer.receptive_field),
            "" if layer.stride is None else _by(layer.stride),
        )
        for layer in summary.layers
    ]
    total = ("total", "", "", f"{summary.parameters:,}", f"{summary.multiply_adds:,}", f"{summary.activation_bytes:,}")
    shown = [header, ("input", "", "x".join(map(str, summary.input)), "", "", "", "", ""), *rows, (*total, "", "")]
    widths = [max(len(row[column]) for row in shown) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]
    notes = [f"* {layer.name}: {layer.note}" for layer in summary.layers if layer.note]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _by(sides: tuple[float, float]) -> str:
    height, width = sides
    return f"{height:g}x{width:g}"


def _along(sides: tuple[int, int]) -> str:
    """One number where height and width have the same."""
    return _by(sides) if sides[0] != sides[1] else str(sides[0])


def read_shape(text: str) -> InputShape:
    """`3x32x32` as (C, H, W).

    Raises:
        NetError: it is no such text.
    """
    parts = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not parts:
        raise NetError(f"{text!r} is no shape: must be channels x height x width, such as 3x32x32")
    channels, height, width = map(int, parts.groups())
    return channels, height, width
