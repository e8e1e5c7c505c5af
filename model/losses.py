"""The two losses of a classifier, and the penalty on its weights (CS231n, lecture 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

MARGIN = 1.0
"""The SVM's Δ, by which the right class's score must lead."""


def softmax(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, -log of the right class's probability.

    Args:
        logits: (N, K) float32.
        labels: (N,) int64.

    Returns:
        (N,) float32, each image's.
    """
    return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")


def svm(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Multi-class SVM (Weston & Watkins 1999): the sum over the wrong classes of max(0, score - right score + Δ).

    Args:
        logits: (N, K) float32.
        labels: (N,) int64.
        label_smoothing: must be 0: a margin has no use for it.

    Returns:
        (N,) float32, each image's.
    """
    margins = (logits - logits.gather(1, labels[:, None]) + MARGIN).clamp(min=0)
    # The right class is in the sum too, with exactly Δ.
    return margins.sum(1) - MARGIN


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"softmax": softmax, "svm": svm}


def l1_penalty(net: nn.Module) -> Tensor:
    """The sum of the absolute weights that are trained, biases and scales left out. () float32."""
    weights = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    return torch.stack([weight.abs().sum() for weight in weights]).sum()
