from __future__ import annotations

import pytest
import torch
from torch import nn

from model.nets import build
from model.nets.arithmetic import NetError, Window
from model.nets.pattern import read_pattern

EXAMPLE = "conv:N=2,M=3,K=1,filters=32-64-128,F=3,S=1,P=1,pool=max2"


def test_a_specification_is_read() -> None:
    read = read_pattern(EXAMPLE)
    assert (read.convolutions, read.filters, read.window) == (2, (32, 64, 128), Window(3, 1, 1))
    assert (read.pooling, read.hidden) == (("max", Window(2, 2)), (128,))
    short = read_pattern("conv:M=2,N=1,filters=8,F=5")
    assert (short.filters, short.window, short.pooling, short.hidden) == ((8, 8), Window(5), None, ())
    assert read_pattern("conv:M=1,N=1,filters=8,F=5,pool=avg3s2,K=2,hidden=50").pooling == ("avg", Window(3, 2))


def test_the_layers_are_those_of_the_pattern() -> None:
    net = build(EXAMPLE, 10, (3, 32, 32))
    block = [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.MaxPool2d]
    assert [type(layer) for layer in net.children()] == [*3 * block, nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    average = build("conv:N=1,M=1,filters=4,F=3,pool=avg3s2,K=2,hidden=6", 5, (1, 9, 13))
    assert [type(layer) for layer in average.children()][2:] == [
        nn.AvgPool2d,
        nn.Flatten,
        *[nn.Linear, nn.ReLU] * 2,
        nn.Linear,
    ]
    assert average(torch.zeros(2, 1, 9, 13)).shape == (2, 5)


@pytest.mark.parametrize(
    ("text", "size", "message"),
    [
        (
            "conv:N=1,M=1,filters=8,F=3,S=3",
            7,
            "convolution 1 of block 1, on 7x7: (7 - 3 + 2*0)/3 + 1 = 2.33 is not whole: "
            "N = 6 or 9, P = 1, or S = 2 would fit",
        ),
        (
            "conv:N=1,M=2,filters=8,F=5,pool=max2",
            32,
            None,
        ),
        (
            "conv:N=1,M=3,filters=8,F=5,pool=max2",
            32,
            "pooling of block 3, on 1x1: (1 - 2 + 2*0)/2 + 1 = 0.50 is less than 1: N must be at least 2",
        ),
        (
            "conv:N=2,M=2,filters=8,F=3,pool=max2",
            30,
            "pooling of block 2, on 9x9: (9 - 2 + 2*0)/2 + 1 = 4.50 is not whole: N = 8 or 10, or S = 1 would fit",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_arithmetic(text: str, size: int, message: str | None) -> None:
    if message is None:
        build(text, 10, (3, size, size))
        return
    with pytest.raises(NetError) as refused:
        build(text, 10, (3, size, size))
    assert str(refused.value) == f"{text}: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv:", "conv needs N=…, M=…, filters=…, F=…"),
        ("conv:N=1,M=1,filters=8", "conv needs F=…"),
        (
            "conv:N=1,M=1,filters=8,F=3,G=2",
            "'G=2' is none of N=…, M=…, filters=…, F=…, S=…, P=…, pool=…, K=…, hidden=…",
        ),
        ("conv:N=1,N=2,M=1,filters=8,F=3", "N is given twice"),
        ("conv:N,M=1,filters=8,F=3", "'N' is none of"),
        ("conv:N=0,M=1,filters=8,F=3", "N=0 must be a whole number, 1 or more"),
        ("conv:N=1,M=1,filters=8,F=3,P=-1", "P=-1 must be a whole number, 0 or more"),
        ("conv:N=1,M=1,filters=8,F=two", "F=two must be a whole number, 1 or more"),
        ("conv:N=1,M=3,filters=8-16,F=3", "filters=8-16 are 2 numbers: must be 1 or M = 3"),
        ("conv:N=1,M=1,filters=8,F=3,pool=median2", "pool=median2 must be none, max2, max3s2, avg2 or the like"),
    ],
)
def test_a_specification_that_cannot_be_read_is_refused(text: str, message: str) -> None:
    with pytest.raises(NetError) as refused:
        read_pattern(text)
    assert str(refused.value).startswith(f"{text}: {message}")
