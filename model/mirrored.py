"""A network asked about each image and about its mirror image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mirrored(nn.Module):
    """Normalised (N, C, H, W) to logits (N, K): the mean of what a network says of each image and of its mirror image.

    Twice the cost of one (Krizhevsky et al. 2012, section 4.1, who averaged over crops as well; airbench, Jordan 2024).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        # As one batch: a small one leaves a processor idle.
        logits: Tensor = self.net(torch.cat([x, x.flip(3)]))
        return logits.view(2, -1, logits.shape[1]).mean(0)
