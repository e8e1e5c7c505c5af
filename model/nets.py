"""The networks. Each takes normalised float32 (N, 3, H, W) and returns logits (N, num_classes)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Preprocess(nn.Module):
    """uint8 (N, H, W, 3) pixels to normalised float32 (N, 3, H, W): the first step of training and of the export."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std


class LeNet(nn.Sequential):
    """LeNet-5's shape with today's parts: two 5x5 convolutions, three linear layers (LeCun et al. 1998)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(5),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_classes),
        )


class ConvGroup(nn.Sequential):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            _batch_norm(channels_out),
            nn.GELU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            _batch_norm(channels_out),
            nn.GELU(),
        )


class FastCNN(nn.Module):
    """About 2 million parameters, of the airbench family (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds").

    A 2x2 convolution whose filters whiten the training images' patches and stay fixed, three groups
    of two 3x3 convolutions, global max pooling, one linear layer.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad_(False)
        self.groups = nn.Sequential(nn.GELU(), ConvGroup(24, 64), ConvGroup(64, 256), ConvGroup(256, 256))
        self.head = nn.Linear(256, num_classes, bias=False)
        for module in self.groups.modules():
            if isinstance(module, nn.Conv2d):
                # The first filters pass their inputs on unchanged, so the signal survives from the start.
                nn.init.dirac_(module.weight[: module.in_channels].detach())

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(self.whiten(x)).amax((2, 3))
        logits: Tensor = self.head(x) / 9
        return logits

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Set the whitening filters from (N, 3, H, W) normalised training images."""
        patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-5, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


NETS: dict[str, Callable[[int], nn.Module]] = {"lenet": LeNet, "fastcnn": FastCNN}


def build(name: str, num_classes: int) -> nn.Module:
    """Build a network by name.

    Raises:
        KeyError: no such network.
    """
    return NETS[name](num_classes)
