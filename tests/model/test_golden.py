from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model.golden import draw_photo
from model.images import fit, read_pixels


def test_the_drawing_is_always_the_same() -> None:
    assert draw_photo(32) == draw_photo(32)


@pytest.mark.parametrize("size", [10, 32, 224])
def test_the_drawing_is_larger_not_square_and_turned(size: int) -> None:
    with Image.open(io.BytesIO(draw_photo(size))) as image:
        assert min(image.size) > size
        assert image.width != image.height
        assert image.getexif()[0x112] == 6


def test_the_drawing_shows_a_servers_mistakes() -> None:
    """Each differs from the right pixels by far more than the tolerance."""
    photo = draw_photo(32)
    right = read_pixels(io.BytesIO(photo), 32).astype(int)
    with Image.open(io.BytesIO(photo)) as image:
        not_turned = fit(image.convert("RGB"), 32)
        stretched = np.rot90(np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)), -1)
        nearest = np.rot90(np.asarray(image.resize((43, 32), Image.Resampling.NEAREST)), -1)[6:38]
    wrongs = [not_turned, stretched, nearest, right[:, ::-1], right[::-1], right[..., ::-1], np.roll(right, 1, 0)]
    for wrong in wrongs:
        assert np.abs(wrong.astype(int) - right).max() > 40
