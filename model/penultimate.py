"""A network's features: what it has made of an image before its last linear layer scores it."""

from __future__ import annotations

from torch import Tensor, nn


class Penultimate(nn.Module):
    """Normalised (N, C, H, W) to features (N, D): what the network's last linear layer takes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    @property
    def size(self) -> int:
        """D."""
        return self._last().in_features

    def forward(self, x: Tensor) -> Tensor:
        taken: list[Tensor] = []
        hook = self._last().register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
        self.net(x)
        hook.remove()
        (features,) = taken
        return features

    def _last(self) -> nn.Linear:
        *_, last = (module for module in self.net.modules() if isinstance(module, nn.Linear))
        return last
