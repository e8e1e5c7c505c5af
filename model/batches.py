"""How many images a network is given at once where it does not learn: fewer of large ones, so that memory is enough."""

from __future__ import annotations

IMAGES = 500
"""Of 32x32 pixels or less."""


def images_at_once(height: int, width: int) -> int:
    """As many images of this size as have the pixels of 500 images of 32x32; at least 1, and at most 500."""
    return max(1, min(IMAGES, IMAGES * 32 * 32 // (height * width)))
