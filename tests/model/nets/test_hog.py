from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from skimage import data
from skimage.feature import hog
from torch.nn import functional

from model.golden import draw_photo
from model.images import Pixels, read_pixels
from model.nets.arithmetic import NetError
from model.nets.hog import Hog

TOLERANCE = 1e-6
"""Of numbers from 0 to 1, each float32 where scikit-image has float64."""

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "moon")
"""Those that scikit-image brings along."""


def photos() -> dict[str, Pixels]:
    """(H, W, C) uint8: a picture decoded from JPEG, one of soft spots, and what has only borders, or nothing."""
    photo = read_pixels(io.BytesIO(draw_photo(64)), 64)
    spots = functional.interpolate(
        torch.rand(1, 3, 6, 9, generator=torch.Generator().manual_seed(0)), (45, 70), mode="bicubic"
    )
    soft = (spots[0].permute(1, 2, 0) * 255).clamp(0, 255).byte().numpy()
    noise = np.random.default_rng(0).integers(0, 256, (32, 24, 3), np.uint8)
    step = np.zeros((16, 16, 3), np.uint8)
    step[:, 8:] = 255
    return {
        "photo": photo,
        "grey": photo[..., 1:2],
        "soft": soft,
        "noise": noise,
        "few levels": noise // 100,
        "step": step,
        "steps": step.transpose(1, 0, 2),
        "flat": np.full((9, 9, 3), 200, np.uint8),
    }


def ours(image: Pixels) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    net = Hog((image.shape[2], *image.shape[:2]))
    found = net(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float())
    assert found.shape == (1, net.length)
    return np.asarray(found[0].numpy())


@pytest.mark.parametrize("name", photos())
def test_it_is_scikit_images(name: str) -> None:
    assert_is_scikit_images(photos()[name])


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_it_is_scikit_images_on_photographs(name: str) -> None:
    image = getattr(data, name)()
    assert_is_scikit_images(image if image.ndim == 3 else image[..., None])


def assert_is_scikit_images(image: Pixels) -> None:
    expected = hog(image, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(1, 1), channel_axis=2)
    np.testing.assert_allclose(ours(image), expected, rtol=0, atol=TOLERANCE)


def test_the_lectures_count() -> None:
    """CS231n: 320x240 pixels have 40x30 cells, 9 numbers each."""
    with torch.device("meta"):
        net = Hog((3, 240, 320))
        assert net(torch.zeros(1, 3, 240, 320)).shape == (1, 10_800)
    assert net.length == 40 * 30 * 9 == 10_800


def test_every_gradient_there_is_has_its_orientations_bin() -> None:
    """Float32 is enough: no gradient of whole numbers is so near a bin's border that it falls on the wrong side."""
    down, across = np.mgrid[-255:256, -255:256]
    degrees = np.rad2deg(np.arctan2(down, across)) % 180
    opposite = (down < 0) | ((down == 0) & (across < 0))
    gradients = torch.from_numpy(np.where(opposite, -1, 1) * np.stack([down, across])).float()
    with torch.no_grad():
        bins = (Hog((1, 8, 8)).turn(gradients[None])[0] >= 0).sum(0).numpy() - 1
    there = (down != 0) | (across != 0)
    np.testing.assert_array_equal(bins[there], np.floor(degrees / 20)[there])


def test_nothing_of_it_is_trained() -> None:
    assert not any(parameter.requires_grad for parameter in Hog((3, 8, 8)).parameters())


def test_an_image_without_a_cell_is_refused() -> None:
    with pytest.raises(NetError, match="3x8x8 or larger would fit"):
        Hog((3, 7, 8))
