from __future__ import annotations

import pytest

from model.batches import images_at_once


@pytest.mark.parametrize(
    ("height", "width", "images"),
    [(32, 32, 500), (16, 16, 500), (64, 64, 125), (32, 320, 50), (224, 224, 10), (2000, 2000, 1)],
)
def test_as_many_pixels_whatever_the_size(height: int, width: int, images: int) -> None:
    assert images_at_once(height, width) == images
