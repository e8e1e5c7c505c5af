"""What takes a step: PyTorch's optimizers by name, and Muon."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.optim import SGD, Adadelta, Adam, AdamW, Optimizer, RMSprop

from model.muon import Muon


class OptimizerError(ValueError):
    """An optimizer cannot train a network; the message says why."""


Make = Callable[[list[nn.Parameter], float, float, float], Optimizer]

OPTIMIZERS: dict[str, Make | None] = {
    "sgd": lambda params, lr, momentum, l2: SGD(params, lr, weight_decay=l2),
    # Polyak 1964.
    "momentum": lambda params, lr, momentum, l2: SGD(params, lr, momentum, weight_decay=l2),
    # Nesterov 1983, as Sutskever et al. 2013 write it.
    "nesterov": lambda params, lr, momentum, l2: SGD(params, lr, momentum, weight_decay=l2, nesterov=True),
    # Tieleman & Hinton 2012.
    "rmsprop": lambda params, lr, momentum, l2: RMSprop(params, lr, weight_decay=l2),
    # Kingma & Ba 2014.
    "adam": lambda params, lr, momentum, l2: Adam(params, lr, weight_decay=l2),
    # Loshchilov & Hutter 2017.
    "adamw": lambda params, lr, momentum, l2: AdamW(params, lr, weight_decay=l2),
    # Zeiler 2012, with the paper's constants.
    "adadelta": lambda params, lr, momentum, l2: Adadelta(params, lr, rho=0.95, eps=1e-6, weight_decay=l2),
    # For filters alone: see below.
    "muon": None,
}
"""By name: from the weights, learning rate, momentum and decay to the optimizer."""


def optimizers_for(
    net: nn.Module, name: str, *, lr: float, muon_lr: float | None, momentum: float, l2: float, batch_size: int
) -> list[Optimizer]:
    """What together trains all weights of `net` that are trained at all.

    Args:
        muon_lr: Muon's learning rate, for filters; `lr` is then that of everything else.

    Raises:
        OptimizerError: Muon is asked for, and there are no filters or no rate for them.
    """
    params = [p for p in net.parameters() if p.requires_grad]
    make = OPTIMIZERS[name]
    if make:
        return [make(params, lr, momentum, l2)]
    filters = [p for p in params if p.ndim == 4]
    if muon_lr is None or not filters:
        raise OptimizerError(
            "optimizer muon: is for the filters of convolutions, of which there must be some, and needs muon_lr, "
            "their learning rate"
        )
    biases = [p for p in params if p.ndim == 1]
    rest = [p for p in params if p.ndim == 2]
    decay = 2e-6 * batch_size
    groups = [
        {"params": biases, "lr": 0.08 * lr, "weight_decay": decay / (0.08 * lr)},
        {"params": rest, "lr": lr, "weight_decay": decay / lr},
    ]
    return [Muon(filters, muon_lr, momentum), SGD(groups, lr, momentum=0.85, nesterov=True)]
