"""The weights of a network's first layer, and how they become images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from model.run import Run


def first_layer(net: nn.Module) -> nn.Module:
    """The first layer that has weights."""
    return next(module for module in net.modules() if any(True for _ in module.parameters(recurse=False)))


def weight_images(run: Run, weights: Tensor) -> npt.NDArray[np.float32]:
    """What each unit does with each pixel: 0.5 (grey) for nothing, its largest weight, by size, at 0 or at 1.

    Args:
        weights: (N, 3, H, W), of what the network takes; shown are those of pixels, which are not yet divided by their
            standard deviation.

    Returns:
        (N, H, W, 3), 0 to 1; each of the N on a scale of its own.
    """
    of_pixels = (weights.detach() / run.preprocess.std).permute(0, 2, 3, 1).numpy()
    largest = np.abs(of_pixels).max((1, 2, 3), keepdims=True)
    images: npt.NDArray[np.float32] = 0.5 + of_pixels / (2 * np.maximum(largest, np.finfo(np.float32).tiny))
    return images
