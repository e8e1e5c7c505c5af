"""Classifiers on features that are not trained: the way to recognise images before the convolutional network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.batches import images_at_once
from model.nets.arithmetic import InputShape
from model.nets.colour_histogram import ColourHistogram
from model.nets.hog import Hog
from model.nets.visual_words import VisualWords

CONSTANT = 1e-5
"""A feature whose standard deviation is smaller tells nothing, and is not divided by it."""


class OnFeatures(nn.Module):
    """One linear layer on standardised features of the pixels, whole numbers from 0 to 255, (N, C, H, W) float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, num_classes: int, *features: ColourHistogram | Hog | VisualWords) -> None:
        super().__init__()
        self.features = nn.ModuleList(features)
        length = sum(feature.length for feature in features)
        self.register_buffer("mean", torch.zeros(length))
        self.register_buffer("std", torch.ones(length))
        self.head = nn.Linear(length, num_classes)
        # As in the linear classifier of pixels, the scores begin at zero.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def measure(self, pixels: Tensor) -> Tensor:
        """The features as they are: (N, D) float32."""
        return torch.cat([feature(pixels) for feature in self.features], 1)

    def describe(self, pixels: Tensor) -> Tensor:
        """The features with mean 0 and standard deviation 1, which the linear layer gets: (N, D) float32."""
        return (self.measure(pixels) - self.mean) / self.std

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.describe(pixels))
        return logits

    @torch.no_grad()
    def prepare(self, images: Tensor, preprocess: nn.Module) -> None:
        """Learn the codebook, and each feature's mean and standard deviation.

        Args:
            images: (N, H, W, C) uint8, for training.
            preprocess: from those to what the network takes.
        """
        for feature in self.features:
            if isinstance(feature, VisualWords):
                feature.learn(images.permute(0, 3, 1, 2))
        batches = torch.split(images, images_at_once(*images.shape[1:3]))
        found = torch.cat([self.measure(preprocess(batch)) for batch in batches])
        std, mean = torch.std_mean(found, 0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > CONSTANT, std, 1.0))


def colour_histogram(num_classes: int, input_shape: InputShape) -> OnFeatures:
    return OnFeatures(num_classes, ColourHistogram(input_shape))


def hog(num_classes: int, input_shape: InputShape) -> OnFeatures:
    """Raises:
    NetError: the input is smaller than 8x8.
    """
    return OnFeatures(num_classes, Hog(input_shape))


def bovw(num_classes: int, input_shape: InputShape) -> OnFeatures:
    """Raises:
    NetError: the input is smaller than 6x6.
    """
    return OnFeatures(num_classes, VisualWords(input_shape))


def features(num_classes: int, input_shape: InputShape) -> OnFeatures:
    """All three, one after another.

    Raises:
        NetError: the input is smaller than 8x8.
    """
    return OnFeatures(num_classes, ColourHistogram(input_shape), Hog(input_shape), VisualWords(input_shape))
