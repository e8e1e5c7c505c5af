from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adadelta, Adam, AdamW, Optimizer, RMSprop

from model.muon import Muon
from model.nets.fastcnn import FastCNN
from model.optimizers import OPTIMIZERS, OptimizerError, optimizers_for


def made(name: str, net: nn.Module, *, momentum: float = 0.9, muon_lr: float | None = None) -> list[Optimizer]:
    return optimizers_for(net, name, lr=0.5, muon_lr=muon_lr, momentum=momentum, l2=0.25, batch_size=1000)


@pytest.mark.parametrize(
    ("name", "kind", "momentum", "nesterov"),
    [
        ("sgd", SGD, 0, False),
        ("momentum", SGD, 0.9, False),
        ("nesterov", SGD, 0.9, True),
        ("rmsprop", RMSprop, 0, None),
        ("adam", Adam, None, None),
        ("adamw", AdamW, None, None),
        ("adadelta", Adadelta, None, None),
    ],
)
def test_pytorchs_own(name: str, kind: type[Optimizer], momentum: float | None, nesterov: bool | None) -> None:
    (optimizer,) = made(name, nn.Linear(2, 3))
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert (group.get("momentum"), group.get("nesterov")) == (momentum, nesterov)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"muon"}))
def test_each_goes_downhill(name: str) -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    inputs = torch.randn(64, 4)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]])
    (optimizer,) = optimizers_for(net, name, lr=0.02, muon_lr=None, momentum=0.9, l2=0.0, batch_size=64)
    losses = []
    for _ in range(100):
        loss = (net(inputs) - targets).square().mean()
        losses.append(loss.item())
        net.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]


def test_muon_is_for_filters_and_sgd_for_the_rest() -> None:
    net = FastCNN(3)
    muon, sgd = made("muon", net, momentum=0.7, muon_lr=0.17)
    assert isinstance(muon, Muon)
    assert (muon.param_groups[0]["lr"], muon.param_groups[0]["momentum"]) == (0.17, 0.7)
    assert len(muon.param_groups[0]["params"]) == 6
    biases, rest = sgd.param_groups
    assert (biases["lr"], biases["weight_decay"], rest["lr"], rest["weight_decay"]) == (0.04, 0.05, 0.5, 0.004)
    trained = {id(p) for p in net.parameters() if p.requires_grad}
    assert {id(p) for optimizer in (muon, sgd) for group in optimizer.param_groups for p in group["params"]} == trained


def test_muon_without_filters_or_a_rate_is_refused() -> None:
    for net, rate in ((nn.Linear(2, 3), 0.17), (FastCNN(3), None)):
        with pytest.raises(OptimizerError, match="is for the filters of convolutions"):
            made("muon", net, muon_lr=rate)
