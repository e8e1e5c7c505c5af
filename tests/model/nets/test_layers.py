from __future__ import annotations

import pytest
import torch
from torch import nn

from model.nets.arithmetic import NetError
from model.nets.layers import is_layer, layers


def test_each_layer_takes_what_the_one_before_leaves() -> None:
    net = layers(
        ["conv2d:filters=6,F=5,S=2,P=1,D=2,G=3", "relu", "maxpool:F=2", "avgpool:F=3,S=1,P=1", "fc:units=4"],
        (3, 32, 20),
    )
    assert net(torch.zeros(2, 3, 32, 20)).shape == (2, 4)
    conv, _, maximum, average, _, linear = net.children()
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(maximum, nn.MaxPool2d)
    assert isinstance(average, nn.AvgPool2d)
    assert (conv.kernel_size, conv.stride, conv.padding) == ((5, 5), (2, 2), (1, 1))
    assert (conv.dilation, conv.groups) == ((2, 2), 3)
    assert (maximum.stride, average.stride, average.padding) == (2, 1, 1)
    # (32 - 9 + 2)/2 + 1 = 13.5 and (20 - 9 + 2)/2 + 1 = 7.5, then half of both.
    assert isinstance(linear, nn.Linear)
    assert linear.in_features == 6 * 6 * 3


def test_a_batch_of_the_lectures() -> None:
    """Six 5x5 filters on two images of 3x32x32 give 2x6x28x28."""
    assert layers(["conv2d:filters=6,F=5"], (3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape == (2, 6, 28, 28)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv2d:filters=10,F=5,G=2", "2 groups do not divide 3 input channels and 10 filters: G = 1 would"),
        ("conv2d:filters=10,F=5,G=3", "3 groups do not divide 3 input channels and 10 filters: G = 1 would"),
        ("conv2d:filters=9,F=5,G=9", "9 groups do not divide 3 input channels and 9 filters: G = 1 or 3 would"),
        ("conv2d:filters=10", "conv2d needs F=…"),
        ("conv2d", "conv2d needs filters=…, F=…"),
        ("conv2d:filters=4,F=3,S=0", "S=0 must be a whole number, 1 or more"),
        ("maxpool:F=2,G=1", "'G=1' is none of F=…, S=…, P=…, D=…"),
        ("maxpool:F=2,P=2", "P = 2 is more than half of F = 2, which pooling does not take"),
        ("relu:F=2", "'F=2' is none of "),
    ],
)
def test_what_cannot_be_built_is_refused(text: str, message: str) -> None:
    with pytest.raises(NetError) as refused:
        layers([text], (3, 32, 32))
    assert str(refused.value).startswith(f"{text}: {message}")


def test_a_window_larger_than_its_input_is_refused() -> None:
    with pytest.raises(NetError, match=r"maxpool:F=5, on 3x4x8: \(4 - 5 \+ 2\*0\)/5 \+ 1 = 0\.80 is less than 1"):
        layers(["maxpool:F=5"], (3, 4, 8))


@pytest.mark.parametrize("text", ["conv2d:filters=4,F=1", "maxpool:F=1", "avgpool:F=1"])
def test_behind_a_linear_layer_no_window_can_move(text: str) -> None:
    with pytest.raises(NetError, match=f"{text}: must stand before any fc, which leaves neither height nor width"):
        layers(["fc:units=10", "relu", text], (3, 32, 32))
    assert layers(["fc:units=10", "relu", "fc:units=4"], (3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


def test_layers_are_told_from_networks() -> None:
    assert is_layer("conv2d:filters=1,F=1")
    assert is_layer("relu")
    assert not is_layer("conv:N=1,M=1,filters=1,F=1")
    assert not is_layer("linear")
    with pytest.raises(NetError, match="no layer 'lenet': must be one of conv2d, maxpool, avgpool, fc, relu"):
        layers(["relu", "lenet"], (3, 32, 32))
