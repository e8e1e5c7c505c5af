"""The golden sample: one photo whose pixels and logits a server must reproduce before it may answer."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from model.images import Pixels

PIXEL_TOLERANCE = 1
"""Largest allowed difference of a pixel, in levels of 0 to 255: decoders round differently."""

LOGIT_TOLERANCE = 0.02
"""Largest allowed difference of a logit or feature, relative to the largest absolute one: accelerators use fewer
bits."""

ORIENTATION_TAG = 0x112


def draw_photo(image_size: int) -> bytes:
    """Draw a JPEG that shows each mistake a server could make with a photo, always the same for a size.

    Larger than the model's input (resize), not square (crop), turned by EXIF orientation 6 (rotation), and
    no two of its corners or channels alike (mirroring, channel order).
    """
    width, height = 4 * image_size + 3, 3 * image_size + 1
    y, x = np.mgrid[:height, :width].astype(np.float64)
    u, v = x / width, y / height
    texture = 24 * np.sin(40 * u + 6 * v) * np.sin(30 * v)
    channels = (70 + 170 * u + texture, 40 + 150 * v - texture, 220 - 190 * u * v + texture / 2)
    image = Image.fromarray(np.stack(channels, 2).clip(0, 255).astype(np.uint8))

    def at(u: float, v: float) -> tuple[float, float]:
        return u * width, v * height

    draw = ImageDraw.Draw(image)
    draw.ellipse((*at(0.16, 0.2), *at(0.4, 0.52)), fill=(226, 60, 44))
    draw.rectangle((*at(0.56, 0.12), *at(0.8, 0.38)), fill=(36, 84, 190))
    draw.polygon((at(0.5, 0.9), at(0.68, 0.48), at(0.84, 0.86)), fill=(250, 214, 60))
    draw.line((*at(0.1, 0.94), *at(0.46, 0.6)), fill=(18, 24, 20), width=max(2, image_size // 8))

    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, exif=exif)
    return file.getvalue()


def golden_arrays(
    pixels: Pixels,
    outputs: npt.NDArray[np.float32],
    tolerance: float = LOGIT_TOLERANCE,
    *,
    kind: Literal["logit", "feature"] = "logit",
) -> bytes:
    """The content of `golden.npz`: what training made of the photo, and how far a server may be from it.

    Args:
        kind: what the outputs are.
    """
    file = io.BytesIO()
    arrays = {
        "pixels": pixels,
        f"{kind}s": outputs,
        "pixel_tolerance": np.array(PIXEL_TOLERANCE, np.int64),
        f"{kind}_tolerance": np.array(tolerance, np.float64),
    }
    np.savez(file, **arrays)  # type: ignore[arg-type]  # the stubs know one more argument
    return file.getvalue()
