from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from model.losses import LOSSES, l1_penalty, softmax, svm

# CS231n's lecture on losses: the scores of cat, car and frog for a cat, a car and a frog.
SCORES = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
LABELS = torch.tensor([0, 1, 2])


def test_the_lectures_svm_losses() -> None:
    losses = svm(SCORES, LABELS)
    torch.testing.assert_close(losses, torch.tensor([2.9, 0.0, 12.9]))
    assert losses.mean().item() == pytest.approx(5.27, abs=0.005)


def test_the_lectures_softmax_loss() -> None:
    assert math.exp(-softmax(SCORES, LABELS)[0]) == pytest.approx(0.13, abs=0.005)
    assert softmax(SCORES, LABELS)[0].item() == pytest.approx(2.04, abs=0.005)


@pytest.mark.parametrize(("loss", "first"), [("softmax", math.log(10)), ("svm", 9.0)])
def test_the_first_loss_of_equal_scores(loss: str, first: float) -> None:
    torch.testing.assert_close(LOSSES[loss](torch.zeros(4, 10), torch.arange(4), 0.0), torch.full((4,), first))


def test_a_lead_of_the_margin_costs_nothing_and_has_no_gradient() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.5]], requires_grad=True)
    loss = svm(scores, torch.tensor([0])).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert scores.grad is not None
    assert scores.grad[0, 2] == 0


def test_the_penalty_is_of_trained_weights_without_biases() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    for parameter in net.parameters():
        nn.init.constant_(parameter, -2.0)
    assert l1_penalty(net) == 12
    net.get_parameter("1.weight").requires_grad_(False)
    assert l1_penalty(net) == 8
