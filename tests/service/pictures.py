"""Encoded images of every kind that the service takes, and hostile ones that it must refuse."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "P+transparency", "RGB", "RGB+transparency", "RGBA", "I;16"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P", "P+transparency"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"),
}
SIZES = ((1, 1), (1, 7), (8, 8), (9, 8), (31, 17), (17, 31), (53, 40), (90, 3))
# A directory entry's tag and type, before and after.
STRIP_OFFSET_AS_FRACTION = (b"\x11\x01\x04\x00", b"\x11\x01\x05\x00")
WITH_EXIF = ("JPEG", "PNG", "WEBP", "TIFF")
LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}}

# How an image is stored whose EXIF orientation is the key.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def scene(width: int, height: int) -> Image.Image:
    """Noise over gradients: no two directions of it look the same."""
    rows, columns = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(width * 1000 + height).integers(0, 60, (height, width, 3))
    gradients = np.stack([rows * 195 // height, columns * 195 // width, (rows + columns) % 195], -1)
    return Image.fromarray((gradients + noise).astype(np.uint8))


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An image in a mode; "+transparency": one of its colours is transparent."""
    levels = np.asarray(image.convert("L"))
    if mode == "I;16":
        return Image.fromarray(levels.astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(levels.astype(np.int32) * 257)
    if mode in ("RGBA", "LA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(levels[::-1].copy()))
        return image
    return image.convert(mode.removesuffix("+transparency"))


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def transparency(mode: str) -> dict[str, Any]:
    if not mode.endswith("+transparency"):
        return {}
    return {"transparency": 3 if mode.startswith("P") else (0, 0, 0)}


@cache
def valid_images() -> dict[str, bytes]:
    """Every format in every mode and size, and every orientation."""
    images = {}
    for image_format, modes in MODES.items():
        for mode, (width, height) in product(modes, SIZES):
            image = in_mode(scene(width, height), mode)
            name = f"{image_format} {mode} {width}x{height}"
            images[name] = encode(image, image_format, **transparency(mode), **LOSSLESS.get(image_format, {}))
    for image_format, orientation in product(WITH_EXIF, STORED):
        images[f"{image_format} orientation {orientation}"] = oriented(scene(31, 17), image_format, orientation)
    images["JPEG progressive"] = encode(scene(31, 17), "JPEG", progressive=True)
    images["PNG animated"] = frames("PNG", 3)
    images["GIF animated"] = frames("GIF", 3)
    images["WEBP animated"] = frames("WEBP", 3)
    images["TIFF of pages"] = frames("TIFF", 3)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        images[f"TIFF {compression}"] = encode(scene(31, 17), "TIFF", compression=compression)
    return images


def oriented(image: Image.Image, image_format: str, orientation: int) -> bytes:
    """An image stored turned or mirrored, with the orientation that undoes it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = STORED[orientation]
    stored = image if how is None else image.transpose(how)
    return encode(stored, image_format, exif=exif, **LOSSLESS.get(image_format, {}))


def frames(image_format: str, count: int) -> bytes:
    """An animation or a file of pages, no two alike."""
    first, *others = [Image.new("RGB", (16, 12), (255 - n, n * 40 % 256, n % 256)) for n in range(count)]
    options: dict[str, Any] = {"duration": 100} if image_format != "TIFF" else {}
    return encode(first, image_format, save_all=True, append_images=others, **options, **LOSSLESS.get(image_format, {}))


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is of this size, with almost no pixels in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@cache
def hostile_images(max_bytes: int, max_frames: int) -> dict[str, tuple[bytes, str, bool]]:
    """Name: content, what the error says (a pattern), and whether it is one of size (413) or of content (400)."""
    jpeg, png, webp = (encode(scene(200, 150), image_format) for image_format in ("JPEG", "PNG", "WEBP"))
    gif, bmp, tiff = (encode(scene(60, 40), image_format) for image_format in ("GIF", "BMP", "TIFF"))
    corrupt = bytearray(png)
    corrupt[len(png) // 2 : len(png) // 2 + 50] = bytes(50)
    not_an_image, broken = "not an image: must be one of JPEG", "broken image: "
    return {
        "zero bytes": (b"", "no image: zero bytes", False),
        "one byte": (b"\xff", not_an_image, False),
        "noise": (np.random.default_rng(0).bytes(5000), not_an_image, False),
        "zeros": (bytes(5000), not_an_image, False),
        "text": (b"This is not an image. " * 100, not_an_image, False),
        "web page": (b"<!doctype html><script>alert(1)</script>", not_an_image, False),
        "SVG": (
            b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
            not_an_image,
            False,
        ),
        "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type/Catalog>>", not_an_image, False),
        "zip": (b"PK\x03\x04" + bytes(200), not_an_image, False),
        "EPS, which would start Ghostscript": (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            not_an_image,
            False,
        ),
        "ICO, a format not taken": (encode(scene(16, 16), "ICO"), not_an_image, False),
        "JPEG's first bytes": (jpeg[:10], f"{broken}|{not_an_image}", False),
        "half a JPEG": (jpeg[: len(jpeg) // 2], broken, False),
        "half a PNG": (png[: len(png) // 2], broken, False),
        "half a WebP": (webp[: len(webp) // 2], f"{broken}|{not_an_image}", False),
        "half a GIF": (gif[: len(gif) // 2], broken, False),
        "half a BMP": (bmp[: len(bmp) // 2], broken, False),
        "half a TIFF": (tiff[: len(tiff) // 2], f"{broken}|{not_an_image}", False),
        "PNG, corrupt": (bytes(corrupt), broken, False),
        "TIFF whose pixels begin at a fraction": (tiff.replace(*STRIP_OFFSET_AS_FRACTION), broken, False),
        "PNG bomb": (png_header(60000, 60000), "60000x60000 pixels: an image may have at most", True),
        "PNG bomb, the largest": (png_header(2**31 - 1, 2**31 - 1), "2147483647x2147483647 pixels", True),
        "PNG of no size": (png_header(0, 0), f"{broken}|{not_an_image}", False),
        "long and thin": (encode(Image.new("1", (20_000, 2)), "PNG"), "20000x2 pixels: longer than 100 times", False),
        "more bytes than allowed": (jpeg + bytes(max_bytes), f"bytes: an image may have at most {max_bytes}", True),
        "GIF of frames": (frames("GIF", max_frames + 1), f"more than {max_frames} frames", True),
        "WebP of frames": (frames("WEBP", max_frames + 1), f"more than {max_frames} frames", True),
        "PNG of frames": (frames("PNG", max_frames + 1), f"more than {max_frames} frames", True),
        "TIFF of pages": (frames("TIFF", max_frames + 1), f"more than {max_frames} frames", True),
    }
