"""The networks. Each takes normalised float32 (N, C, H, W) and returns logits float32 (N, num_classes).

Those of `features` take pixels from 0 to 255 instead of normalised ones.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from model.nets.alexnet import alexnet, alexnet_cifar
from model.nets.arithmetic import InputShape, NetError
from model.nets.convnetjs import convnetjs
from model.nets.fastcnn import FastCNN
from model.nets.features import bovw, colour_histogram, features, hog
from model.nets.googlenet import googlenet
from model.nets.lenet import LeNet
from model.nets.linear import linear, two_layer
from model.nets.neocognitron import neocognitron
from model.nets.pattern import PREFIX, pattern, read_pattern
from model.nets.resnet import resnet18, resnet50
from model.nets.vgg import vgg16

NETS: dict[str, Callable[[int, InputShape], nn.Module]] = {
    "linear": linear,
    "two_layer": two_layer,
    "colour_histogram": colour_histogram,
    "hog": hog,
    "bovw": bovw,
    "features": features,
    "neocognitron": neocognitron,
    "lenet": LeNet,
    "convnetjs": convnetjs,
    "alexnet": alexnet,
    "alexnet_cifar": alexnet_cifar,
    "vgg16": vgg16,
    "googlenet": googlenet,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "fastcnn": FastCNN,
}


def check_name(name: str) -> str:
    """The name itself, if it is a network's or a specification that can be read.

    Raises:
        NetError: it is neither.
    """
    if name.startswith(PREFIX):
        read_pattern(name)
    elif name not in NETS:
        raise NetError(f"no network {name!r}: must be one of {', '.join(NETS)}, or a specification {PREFIX}…")
    return name


def build(name: str, num_classes: int, input_shape: InputShape) -> nn.Module:
    """Build a network by name, or by a specification `conv:…` (see `pattern`).

    Args:
        input_shape: (C, H, W) of what it will take.

    Raises:
        NetError: no such network, or the input is too small for it or does not fit the specification.
    """
    check_name(name)
    if name.startswith(PREFIX):
        return pattern(name, num_classes, input_shape)
    try:
        return NETS[name](num_classes, input_shape)
    except NetError as error:
        raise NetError(f"{name}: {error}") from error
