"""A bag of visual words (Csurka et al. 2004): how often an image has patches like each one of a codebook."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.nets.arithmetic import InputShape, Window, after

WORDS = 400
"""Of the codebook."""

PATCH = 6
"""Side in pixels."""

STRIDE = 2
"""From one patch of an image to the next, in pixels."""

PARTS = 2
"""Along height and along width, each part of the image with a histogram of its own (Lazebnik et al. 2006)."""

CONTRAST = 10.0
"""Added to a patch's variance, in squares of pixel values: noise in a flat patch stays small."""

WHITENING = 0.1
"""Added to the variances of patches whose contrast is normalised, before they are divided by."""

SHARPNESS = 0.3
"""How much nearer words get more of a patch's vote: e^-0.3 of it for 1 more of squared distance."""

PATCHES_PER_IMAGE = 20
ITERATIONS = 20
"""What the codebook is learned from, and how long."""


class VisualWords(nn.Module):
    """Whole numbers from 0 to 255, (N, C, H, W) float32, to (N, 400 * 2 * 2) float32.

    Patches are brought to one contrast and whitened, and compared with the codebook's words, the centres that k-means
    found, as by Coates et al. (2011). Each patch has one vote, which the words share by their distances from it, as by
    van Gemert et al. (2008): a whole vote for the nearest would make a step between two images that hardly differ.

    A convolution does it: of |x - w|^2 = x.x - 2 x.w + w.w, the first part is the same for all words, and falls out
    of the votes; the second is linear in the patch, once its contrast is divided out.

    Raises:
        NetError: the input is smaller than a patch.
    """

    offset: Tensor

    def __init__(self, input_shape: InputShape) -> None:
        after(input_shape, Window(PATCH, STRIDE))
        super().__init__()
        self.channels = input_shape[0]
        self.length = WORDS * PARTS**2
        self.words = nn.Conv2d(self.channels, WORDS, PATCH, STRIDE, bias=False)
        self.words.weight.requires_grad_(False)
        self.register_buffer("offset", torch.zeros(WORDS, 1, 1))
        self.patch_mean = nn.AvgPool2d(PATCH, STRIDE)
        self.parts = nn.AdaptiveAvgPool2d(PARTS)

    def forward(self, pixels: Tensor) -> Tensor:
        mean = self.patch_mean(pixels.sum(1, keepdim=True)) / self.channels
        squares = self.patch_mean(pixels.square().sum(1, keepdim=True)) / self.channels
        contrast = ((squares - mean.square()).clamp(min=0) + CONTRAST).sqrt()
        votes = (self.words(pixels) / contrast + self.offset).softmax(1)
        histogram: Tensor = self.parts(votes)
        return histogram.flatten(1)

    @torch.no_grad()
    def learn(self, images: Tensor) -> None:
        """Learn the codebook from random patches of (N, C, H, W) uint8 training images."""
        patches = _random_patches(images, PATCHES_PER_IMAGE * len(images))
        variance, mean = torch.var_mean(patches, 1, correction=0, keepdim=True)
        patches = (patches - mean) / (variance + CONTRAST).sqrt()
        middle = patches.mean(0)
        values, vectors = torch.linalg.eigh((patches - middle).T @ (patches - middle) / len(patches))
        whiten = vectors / (values + WHITENING).sqrt() @ vectors.T
        words = _k_means((patches - middle) @ whiten, WORDS)
        filters = 2 * SHARPNESS * words @ whiten
        self.offset.copy_((-filters @ middle - SHARPNESS * words.square().sum(1))[:, None, None])
        # Filters of sum zero take a patch's mean off by themselves.
        filters = filters - filters.mean(1, keepdim=True)
        self.words.weight.copy_(filters.view_as(self.words.weight))


def _random_patches(images: Tensor, count: int) -> Tensor:
    """(count, C * 6 * 6), each from a random place of a random image."""
    windows = images.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    number, _, rows, columns = windows.shape[:4]
    image, row, column = (torch.randint(size, (count,)).to(images.device) for size in (number, rows, columns))
    return windows[image, :, row, column].flatten(1).float()


def _k_means(points: Tensor, count: int) -> Tensor:
    """(count, D): each the mean of those of the (N, D) points that are nearer to it than to the others (Lloyd 1982)."""
    centres = points[torch.randint(len(points), (count,)).to(points.device)]
    for _ in range(ITERATIONS):
        nearest = (2 * points @ centres.T - centres.square().sum(1)).argmax(1)
        members = torch.bincount(nearest, minlength=count)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        # One that is nearest to none stays where it is.
        centres = torch.where(members > 0, sums / members.clamp(min=1), centres)
    return centres
