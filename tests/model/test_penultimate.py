from __future__ import annotations

import pytest
import torch
from torch import nn

from model.nets import NETS, build
from model.penultimate import Penultimate

SIZES = {"alexnet": 64, "vgg16": 32}


@pytest.mark.parametrize("name", [*NETS, "conv:N=1,M=1,K=1,filters=4,F=3,P=1,pool=max2"])
def test_the_last_linear_layer_of_the_features_is_the_network(name: str) -> None:
    torch.manual_seed(0)
    size = SIZES.get(name, 16)
    net = build(name, 3, (3, size, size)).eval()
    for parameter in net.parameters():
        # The linear classifier begins at zero, where everything is equal.
        if not parameter.any():
            nn.init.normal_(parameter.detach(), std=0.1)
    x = torch.randn(2, 3, size, size)
    penultimate = Penultimate(net)
    with torch.no_grad():
        features, logits = penultimate(x), net(x)
        *_, last = (module for module in net.modules() if isinstance(module, nn.Linear))
        scores = last(features)
    assert features.shape == (2, penultimate.size)
    factor = 9 if name == "fastcnn" else 1
    torch.testing.assert_close(scores, logits * factor)


def test_the_network_is_left_as_it_was() -> None:
    net = build("lenet", 3, (3, 16, 16)).eval()
    x = torch.zeros(1, 3, 16, 16)
    before = net(x)
    Penultimate(net)(x)
    assert torch.equal(net(x), before)
    assert not any(module._forward_pre_hooks for module in net.modules())
