"""The images that load tests send: JPEG files of a folder, or a set drawn by code."""

from __future__ import annotations

import io
import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = ((32, 32), (500, 375))
DRAWN = 32
MAX_FILES = 1000
"""More would only fill the memory."""

LARGEST_THUMBNAIL = 128
THUMBNAIL: dict[str, Any] = {"quality": 90}
PHOTO: dict[str, Any] = {"quality": 95, "subsampling": "4:4:4"}
GRAIN = ((2, 200.0), (6, 80.0), (24, 40.0), (96, 20.0), (384, 25.0))
"""Cells of noise along each side and their contrast; the finest is left out of thumbnails."""


def encoded_images() -> list[bytes]:
    """The JPEG files below the folder FOVEA_LOADTEST_IMAGES, in the order of their names; unset: drawn ones.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    folder = os.environ.get("FOVEA_LOADTEST_IMAGES")
    if not folder:
        return [draw(number, SIZES[number % len(SIZES)]) for number in range(DRAWN)]
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    if not files:
        raise FileNotFoundError(f"FOVEA_LOADTEST_IMAGES={folder}: no .jpg or .jpeg file in this folder")
    return [path.read_bytes() for path in islice(files, MAX_FILES)]


def draw(seed: int, size: tuple[int, int]) -> bytes:
    """A JPEG that costs what a photo costs: shapes and edges over noise that grows finer and fainter.

    One of 500x375 has about 140,000 bytes, in 4:4:4, as the photos of ImageNet have at that size (100,000 to 190,000).

    Args:
        size: width and height, in pixels.
    """
    photo = min(size) > LARGEST_THUMBNAIL
    random = np.random.default_rng(seed)
    width, height = size
    canvas = np.zeros((height, width, 3))
    for cells, contrast in GRAIN if photo else GRAIN[:-1]:
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
        canvas += contrast * (np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)) / 255 - 0.5)
    down, across = np.mgrid[:height, :width]
    for x, y, radius in random.random((3, 3)) * (width, height, width / 4):
        canvas[(across - x) ** 2 + (down - y) ** 2 < radius**2] += random.integers(-80, 80, 3)
    buffer = io.BytesIO()
    Image.fromarray((canvas + 128).clip(0, 255).astype(np.uint8)).save(
        buffer, "JPEG", **(PHOTO if photo else THUMBNAIL)
    )
    return buffer.getvalue()
