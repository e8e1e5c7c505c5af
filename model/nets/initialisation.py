"""First weights for networks without batch normalisation."""

from __future__ import annotations

from torch import nn


def initialise_for_relu(net: nn.Module) -> None:
    """Draw every filter and matrix of `net` from N(0, 2 / fan-in), and set the biases to zero (He et al. 2015).

    PyTorch's own first weights are smaller: through the layers of a deep network the signal dies of them. The last
    layer, which no ReLU follows, is drawn from N(0, 0.01^2) instead: scores begin near zero, and the loss near log K.
    """
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.normal_(layers[-1].weight, std=0.01)
