from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from model.nets import build

SPECIFICATION = "conv:N=2,M=3,K=1,filters=32-64-128,F=3,P=1,pool=max2"


@pytest.mark.parametrize("name", ["vgg16", "alexnet_cifar", "convnetjs", "neocognitron", SPECIFICATION])
def test_the_first_loss_is_near_that_of_equal_scores(name: str) -> None:
    """CS231n's check before any training: log K, of K classes."""
    torch.manual_seed(0)
    net = build(name, 10, (3, 32, 32)).eval()
    with torch.no_grad():
        loss = functional.cross_entropy(net(torch.randn(20, 3, 32, 32)), torch.arange(20) % 10)
    assert abs(loss - math.log(10)) < 0.3


@pytest.mark.parametrize("name", ["vgg16", SPECIFICATION])
def test_the_signal_neither_dies_nor_grows_on_its_way(name: str) -> None:
    torch.manual_seed(0)
    *hidden, _ = build(name, 10, (3, 32, 32)).eval().children()
    x = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        for layer in hidden:
            x = layer(x)
            assert 0.1 < x.square().mean().sqrt() < 20
