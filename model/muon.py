"""Muon: momentum whose update is orthogonalised (Jordan et al. 2024), for convolution filters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer


class Muon(Optimizer):
    """Nesterov momentum, each filter bank's update replaced by its nearest semi-orthogonal matrix.

    `torch.optim.Muon` takes matrices only and works in bfloat16; this one takes (K, C, F, F) filters
    as (K, C*F*F) matrices in float32, and keeps each bank's rows at unit norm on average, which makes
    the learning rate a relative step.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                buffer = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
                buffer.mul_(group["momentum"]).add_(weight.grad)
                update = weight.grad.add(buffer, alpha=group["momentum"])
                weight.mul_(len(weight) ** 0.5 / weight.norm())
                weight.add_(orthogonalise(update.flatten(1)).view_as(weight), alpha=-group["lr"])


def orthogonalise(matrix: Tensor, steps: int = 3) -> Tensor:
    """Push every singular value of a (rows, columns) matrix near 1 by a quintic Newton-Schulz iteration.

    The coefficients (3.4445, -4.7750, 2.0315) are those published with Muon: steepest at zero, so
    that few steps suffice; singular values end between about 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.size(0) > matrix.size(1)
    x: Tensor = (matrix.T if tall else matrix) / (matrix.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
