"""How good features are for retrieval: do an image's nearest neighbours have its label?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.evaluate import Labels
from model.images import Pixels

RANKS = (1, 5, 10)


@dataclass(frozen=True)
class Neighbours:
    """Shares of neighbours with an image's own label, by how many of the nearest are counted; means over the images.

    Attributes:
        features: nearest by the angle between features (cosine).
        pixels: nearest by the distance between pixels (L2).
    """

    images: int
    features: dict[int, float]
    pixels: dict[int, float]


def neighbours(features: npt.NDArray[np.float32], images: Pixels, labels: Labels) -> Neighbours:
    """Look for each image's nearest among the others, by features (N, D) and by pixels (N, H, W, 3)."""
    # Between vectors of one length the order of angles is that of distances.
    of_length_1 = torch.nn.functional.normalize(torch.from_numpy(features))
    levels = torch.from_numpy(images.reshape(len(images), -1)).float()
    truth = torch.from_numpy(labels)
    return Neighbours(len(labels), same_label(of_length_1, truth), same_label(levels, truth))


def same_label(vectors: Tensor, labels: Tensor, batch_size: int = 500) -> dict[int, float]:
    """For each of `RANKS` that there are neighbours for: how many of that many nearest have the same label, a share.

    Args:
        vectors: (N, D) float32.
        labels: (N,).
    """
    count = len(vectors)
    ranks = [rank for rank in RANKS if rank < count]
    if not ranks:
        return {}
    same = []
    for begin in range(0, count, batch_size):
        distances = torch.cdist(vectors[begin : begin + batch_size], vectors)
        own = torch.arange(begin, begin + len(distances))
        distances[own - begin, own] = torch.inf
        nearest = distances.topk(ranks[-1], largest=False).indices
        same.append(labels[nearest] == labels[own, None])
    agrees = torch.cat(same).double()
    return {rank: float(agrees[:, :rank].mean()) for rank in ranks}


def table(found: Neighbours) -> str:
    """A comparison as lines of text."""
    lines = [f"neighbours with the same label, of {found.images} images", "nearest   features   pixels"]
    lines += [f"{rank:>7} {share:>10.4f} {found.pixels[rank]:>8.4f}" for rank, share in found.features.items()]
    return "\n".join(lines)
