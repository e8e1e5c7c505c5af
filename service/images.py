"""Encoded images to pixels: the serving half of the preprocessing contract, and every limit on hostile images.

The training package has its own implementation of the same steps. The two may not share code; each
model version's golden sample, checked at load, is what holds them together.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from service.errors import FoveaError, InvalidInputError, TooLargeError

Pixels = npt.NDArray[np.uint8]
ResizeFilter = Literal["bilinear", "bicubic", "lanczos"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_ASPECT_RATIO = 100
SMALL_BYTES = 16 * 2**10
SMALL_PIXELS = 128 * 128
BACKGROUND = (255, 255, 255)
GIF_FRAME_MARK = b"\x21\xf9\x04"
JPEG_MARK = b"\xff\xd8\xff"
METADATA_MARK = b"\xff\xe1"
"""Where a JPEG's EXIF or XMP begins."""

# Pillow's own limit warns at one size and raises at another; ours is checked from the header instead.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class ImageLimits:
    """What an encoded image may hold, checked before any pixel is decoded."""

    max_bytes: int
    max_pixels: int
    max_frames: int


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the graph sees it. Height and width in pixels."""

    height: int
    width: int
    resize_short_side: int
    resize_filter: ResizeFilter = "bilinear"


def decode(content: bytes, preprocessing: Preprocessing, limits: ImageLimits) -> Pixels:
    """Decode to (H, W, 3) uint8 RGB: orientation, colour, resize of the short side, centre crop.

    Raises:
        InvalidInputError: not an image of a known format, truncated, broken, too long for its width.
        TooLargeError: more bytes, pixels or frames than the limits allow.
    """
    pixels = _decode(content, preprocessing, limits, limits.max_pixels)
    assert pixels is not None
    return pixels


def decode_if_small(content: bytes, preprocessing: Preprocessing, limits: ImageLimits) -> Pixels | None:
    """Decode at once what takes less time than handing it to a thread; None for a larger image.

    Raises:
        InvalidInputError, TooLargeError: as `decode`.
    """
    return None if len(content) > SMALL_BYTES else _decode(content, preprocessing, limits, SMALL_PIXELS)


def _decode(content: bytes, preprocessing: Preprocessing, limits: ImageLimits, most_pixels: int) -> Pixels | None:
    """None where the image is within the limits, and has more pixels than `most_pixels`."""
    if not content:
        raise InvalidInputError("no image: zero bytes")
    if len(content) > limits.max_bytes:
        raise TooLargeError(f"{len(content)} bytes: an image may have at most {limits.max_bytes}")
    if size := _size_of_plain_jpeg(content):
        _check_size(size, limits)
        if size[0] * size[1] > most_pixels:
            return None
        # Pillow decodes to the same pixels, in several times the time; only it says what is wrong with a broken one.
        with suppress(ValueError):
            pixels: Pixels = simplejpeg.decode_jpeg(content, "RGB", fastdct=False, fastupsample=False)
            if size == (preprocessing.width, preprocessing.height) and min(size) == preprocessing.resize_short_side:
                return pixels
            return _fit(Image.fromarray(pixels), preprocessing)
    with _opened(content, limits) as image:
        if image.width * image.height > most_pixels:
            return None
        ImageOps.exif_transpose(image, in_place=True)
        return _fit(_to_rgb(image), preprocessing)


def _size_of_plain_jpeg(content: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG in colour or grey, without the metadata that may turn it; None for all else."""
    if not content.startswith(JPEG_MARK) or METADATA_MARK in content:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    return (width, height) if colours in ("YCbCr", "Gray") else None


@contextmanager
def _opened(content: bytes, limits: ImageLimits) -> Iterator[ImageFile.ImageFile]:
    """The image by its header, within the limits; what goes wrong inside is the image's fault."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image.size, limits)
            if _has_more_frames(image, content, limits.max_frames):
                raise TooLargeError(f"more than {limits.max_frames} frames: an image may have at most that many")
            yield image
    except FoveaError:
        raise
    except UnidentifiedImageError:
        raise InvalidInputError(f"not an image: must be one of {', '.join(FORMATS)}") from None
    except Exception as error:
        # Of a broken file Pillow raises whatever its parser ran into: TypeError and struct.error as well as OSError.
        raise InvalidInputError(f"broken image: {error}") from error


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise TooLargeError(f"{width}x{height} pixels: an image may have at most {limits.max_pixels}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InvalidInputError(f"{width}x{height} pixels: longer than {MAX_ASPECT_RATIO} times its short side")


def _has_more_frames(image: ImageFile.ImageFile, content: bytes, limit: int) -> bool:
    """Whether the file has more frames than `limit`, found without decoding any."""
    if image.format == "GIF":
        # Counting with Pillow would decode them; each frame of an animation has one of these marks.
        return content.count(GIF_FRAME_MARK) > limit
    if image.format == "TIFF":
        # Pillow counts a TIFF's pages by reading every directory: go no further than the limit.
        try:
            image.seek(limit)
        except EOFError:
            return False
        finally:
            image.seek(0)
        return True
    frames: int = getattr(image, "n_frames", 1)
    return frames > limit


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range: convert the image to 8 or 16 bits")
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips it to 8 bits instead of scaling.
        levels = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return Image.alpha_composite(canvas, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _fit(image: Image.Image, to: Preprocessing) -> Pixels:
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if short != to.resize_short_side:
        resized = int(to.resize_short_side * long / short)
        width, height = (to.resize_short_side, resized) if width <= height else (resized, to.resize_short_side)
        image = image.resize((width, height), Image.Resampling[to.resize_filter.upper()])
    left, top = round((width - to.width) / 2), round((height - to.height) / 2)
    if (width, height) != (to.width, to.height):
        image = image.crop((left, top, left + to.width, top + to.height))
    return np.asarray(image)
