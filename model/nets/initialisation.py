"""First weights for networks without batch normalisation."""

from __future__ import annotations

from torch import nn


def initialise_for_relu(net: nn.Module) -> None:
    """Draw every filter and matrix of `net` from N(0, 2 / fan-in), and set the biases to zero (He et al. 2015).

    PyTorch's own first weights are smaller: through the layers of a deep network the signal dies of them.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
