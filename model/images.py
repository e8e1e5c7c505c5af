"""One image file to RGB pixels: the training half of the preprocessing contract.

The service has its own implementation of the same steps. The two may not share code; the golden
sample that `export` writes, and the service checks at load, is what holds them together.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Pixels = npt.NDArray[np.uint8]

MAX_ASPECT_RATIO = 100
"""An image longer than this many times its short side is refused: resized, it would be all length."""

BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels."""


def read_pixels(file: str | BinaryIO, size: int) -> Pixels:
    """Read an image as (size, size, 3) uint8 RGB.

    Raises:
        OSError, ValueError, SyntaxError: the file is not an image that can be decoded.
    """
    with Image.open(file) as image:
        return fit(to_rgb(ImageOps.exif_transpose(image)), size)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB: 16-bit scaled to 8, transparency laid on white.

    Raises:
        ValueError: floating-point pixels, which have no range that could be scaled from.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range: convert the image to 8 or 16 bits")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(canvas, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def fit(image: Image.Image, size: int) -> Pixels:
    """Short side to `size` (bilinear, antialiased), then the centre square: (size, size, 3) uint8."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if long > MAX_ASPECT_RATIO * short:
        raise ValueError(f"{width}x{height} pixels: longer than {MAX_ASPECT_RATIO} times its short side")
    if short != size:
        resized = int(size * long / short)
        width, height = (size, resized) if width <= height else (resized, size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))
