from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.nets.visual_words import SHARPNESS, VisualWords, _k_means, _random_patches


def images(channels: int = 3) -> Tensor:
    """(6, C, 16, 20), soft spots and noise on them."""
    draw = torch.Generator().manual_seed(0)
    spots = functional.interpolate(torch.rand(6, channels, 3, 4, generator=draw), (16, 20), mode="bicubic")
    return (spots * 200 + 50 * torch.rand(6, channels, 16, 20, generator=draw)).clamp(0, 255).round()


def learned(pixels: Tensor) -> VisualWords:
    torch.manual_seed(0)
    words = VisualWords((pixels.size(1), *pixels.shape[2:]))
    words.learn(pixels)
    return words


@pytest.mark.parametrize("channels", [1, 3])
def test_votes_are_those_of_the_distances_from_the_words(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written out: patches, contrast, whitening, distances; the convolution has them all in one."""
    pixels = images(channels)
    seen: list[Tensor] = []

    def note(points: Tensor, count: int) -> Tensor:
        seen.extend([points, _k_means(points, count)])
        return seen[-1]

    monkeypatch.setattr("model.nets.visual_words._k_means", note)
    net = learned(pixels)
    points, words = seen
    torch.manual_seed(0)
    VisualWords((channels, 16, 20))  # Draws its first filters.
    patches = _random_patches(pixels, len(points))
    deviation = patches - patches.mean(1, keepdim=True)
    same = deviation / (patches.var(1, correction=0, keepdim=True) + 10).sqrt()
    values, vectors = torch.linalg.eigh(torch.cov(same.T, correction=0))
    whiten = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T
    torch.testing.assert_close((same - same.mean(0)) @ whiten, points, rtol=1e-3, atol=1e-3)

    expected = (-SHARPNESS * torch.cdist(points, words).square()).softmax(1)
    windows = patches.view(-1, channels, 6, 6)
    with torch.no_grad():
        one = VisualWords((channels, 6, 6))
        one.load_state_dict(net.state_dict())
        found = one(windows).view(len(patches), -1, 4)
    torch.testing.assert_close(found[..., 0], expected, rtol=1e-2, atol=1e-4)


def test_each_part_of_the_image_has_one_vote() -> None:
    pixels = images()
    net = learned(pixels)
    with torch.no_grad():
        found = net(pixels).view(6, -1, 4)
        # An image's upper left changes the histogram of no other part.
        pixels[:, :, :6, :6] = 0
        changed = (net(pixels).view(6, -1, 4) != found).any(1)
    torch.testing.assert_close(found.sum(1), torch.ones(6, 4))
    assert changed.tolist() == [[True, False, False, False]] * 6


def test_the_seed_decides_the_codebook() -> None:
    first, again = learned(images()).state_dict(), learned(images()).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.manual_seed(1)
    other = VisualWords((3, 16, 20))
    other.learn(images())
    assert not torch.equal(other.words.weight, first["words.weight"])
    assert not other.words.weight.requires_grad


def test_k_means_finds_the_centres() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    points = (centres[:, None] + 0.1 * torch.randn(3, 50, 2)).flatten(0, 1)
    found = _k_means(points, 12)
    nearest = torch.cdist(centres, found).min(1).values
    assert nearest.max() < 0.2
    # Those that are nearest to nothing stay points of the set, never without a place.
    assert torch.cdist(found, centres).min(1).values.max() < 0.5


def test_flat_images_have_a_histogram_too() -> None:
    net = learned(images())
    with torch.no_grad():
        assert torch.isfinite(net(torch.full((1, 3, 16, 20), 255.0))).all()
        net.learn(torch.zeros(2, 3, 16, 20))
        assert torch.isfinite(net(images())).all()
