"""Residual networks (He et al. 2015)."""

from __future__ import annotations

from torch import Tensor, nn

from model.nets.arithmetic import InputShape

SMALL = 64
"""Inputs below this many pixels get a first layer that does not shrink them, as the paper's own for CIFAR-10."""


class Residual(nn.Module):
    """max(0, F(x) + x), with a 1x1 convolution on x where F changes the shape. (N, C, H, W) to (N, C', H/S, W/S)."""

    def __init__(self, channels: int, filters: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            self.channels = 4 * filters
            # The stride stands in the 3x3 convolution, not the first 1x1 one, which would skip three of four pixels.
            layers = [(channels, filters, 1, 1), (filters, filters, 3, stride), (filters, self.channels, 1, 1)]
        else:
            self.channels = filters
            layers = [(channels, filters, 3, stride), (filters, filters, 3, 1)]
        parts: list[nn.Module] = []
        for layer in layers:
            parts += [*_conv_norm(*layer), nn.ReLU()]
        self.residual = nn.Sequential(*parts[:-1])
        same = stride == 1 and channels == self.channels
        self.shortcut = nn.Sequential() if same else nn.Sequential(*_conv_norm(channels, self.channels, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        activations: Tensor = self.relu(self.residual(x) + self.shortcut(x))
        return activations


def resnet18(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Eight blocks of two 3x3 convolutions: 11,689,512 parameters at 1,000 classes, for inputs from 64x64 on."""
    return _resnet((2, 2, 2, 2), num_classes, input_shape, bottleneck=False)


def resnet50(num_classes: int, input_shape: InputShape) -> nn.Module:
    """Sixteen blocks of 1x1, 3x3 and 1x1: 25,557,032 parameters at 1,000 classes, for inputs from 64x64 on."""
    return _resnet((3, 4, 6, 3), num_classes, input_shape, bottleneck=True)


def _resnet(blocks: tuple[int, ...], num_classes: int, input_shape: InputShape, *, bottleneck: bool) -> nn.Module:
    """Any size works; inputs below 64x64 begin with one 3x3 convolution instead of 7x7 at stride 2 and pooling."""
    if min(input_shape[1:]) < SMALL:
        layers: list[nn.Module] = [*_conv_norm(input_shape[0], 64, 3, 1), nn.ReLU()]
    else:
        layers = [*_conv_norm(input_shape[0], 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
    channels = 64
    for group, count in enumerate(blocks):
        for number in range(count):
            stride = 2 if group and not number else 1
            block = Residual(channels, 64 * 2**group, stride, bottleneck=bottleneck)
            channels = block.channels
            layers.append(block)
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def _conv_norm(channels: int, filters: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(channels, filters, size, stride, padding=size // 2, bias=False)
    return conv, nn.BatchNorm2d(filters)
