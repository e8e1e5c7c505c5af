"""How often each colour occurs in an image, wherever it is (Swain & Ballard 1991)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.nets.arithmetic import InputShape, NetError

LEVELS = 8
"""Of each channel, equally wide."""

MAX_CHANNELS = 6
"""8^6 colours, a quarter of a million, are enough."""


class ColourHistogram(nn.Module):
    """Whole numbers from 0 to 255, (N, C, H, W) float32, to (N, 8^C) float32.

    The square root of each colour's share of the pixels, so that frequent colours do not outweigh all others.

    Raises:
        NetError: there are more than 6 channels.
    """

    level: Tensor

    def __init__(self, input_shape: InputShape) -> None:
        super().__init__()
        self.channels, height, width = input_shape
        if self.channels > MAX_CHANNELS:
            raise NetError(
                f"{self.channels} channels are too many for a colour histogram, which has {LEVELS}^{self.channels} "
                f"colours then: {MAX_CHANNELS} or fewer would fit"
            )
        self.pixels = height * width
        self.length = LEVELS**self.channels
        self.register_buffer("level", torch.arange(LEVELS).view(1, 1, LEVELS, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        levels = (pixels * (LEVELS / 256)).floor().flatten(2).unsqueeze(2)
        # 1 at each pixel's level: (N, C, 8, H * W).
        marked = (levels == self.level).float()
        first = torch.ones_like(marked[:, 0, :1])
        for channel in range(self.channels - 1):
            first = (first.unsqueeze(2) * marked[:, channel].unsqueeze(1)).flatten(1, 2)
        # A product of matrices for the last channel: as one more outer product it would need 8 times the memory.
        counts = first @ marked[:, -1].transpose(1, 2)
        return (counts.flatten(1) / self.pixels).sqrt()
