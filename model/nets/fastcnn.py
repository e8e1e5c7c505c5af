"""The bundled model's network: small, and quick to train (airbench family, Jordan 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.batches import images_at_once
from model.nets.arithmetic import InputShape, Window, after


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

    Raises:
        NetError: the input is smaller than 9x9.
    """

    def __init__(self, num_classes: int, input_shape: InputShape = (3, 32, 32)) -> None:
        after(input_shape, Window(2), *[Window(2, 2)] * 3)
        super().__init__()
        channels = input_shape[0]
        # As many filters as a patch has numbers, each once more with its sign turned.
        whitened = 2 * 4 * channels
        self.whiten = nn.Conv2d(channels, whitened, 2)
        self.whiten.weight.requires_grad_(False)
        self.groups = nn.Sequential(nn.GELU(), ConvGroup(whitened, 64), ConvGroup(64, 256), ConvGroup(256, 256))
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
    def prepare(self, images: Tensor, preprocess: nn.Module) -> None:
        """Set the whitening filters from (N, H, W, C) uint8 training images, which `preprocess` normalises."""
        _, height, width, channels = images.shape
        products = self.whiten.weight.new_zeros(4 * channels, 4 * channels)
        for batch in torch.split(images, images_at_once(height, width)):
            windows = preprocess(batch).unfold(2, 2, 1).unfold(3, 2, 1)
            patches = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, 4 * channels)
            products += patches.T @ patches
        count = len(images) * (height - 1) * (width - 1)
        values, vectors = torch.linalg.eigh(products / count)
        filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).reshape(4 * channels, channels, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-5, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
