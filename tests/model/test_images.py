from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from model.images import BACKGROUND, Pixels, fit, read_pixels, to_rgb

Array = npt.NDArray[np.uint8]

# How the file holds an upright picture, for each value of EXIF's orientation tag.
STORED: dict[int, Callable[[Array], Array]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: np.rot90,
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def encode(image: Image.Image, file_format: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    file.seek(0)
    return file


def read_colour(file: io.BytesIO) -> tuple[int, ...]:
    """The one colour of a one-coloured picture."""
    colours = np.unique(read_pixels(file, 8).reshape(-1, 3), axis=0)
    assert len(colours) == 1
    return tuple(int(level) for level in colours[0])


@pytest.mark.parametrize("orientation", STORED)
def test_a_turned_photo_comes_out_upright(orientation: int) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    assert np.array_equal(read_pixels(encode(stored, exif=exif), 32), fit(Image.fromarray(upright), 32))


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (31, 33), (33, 31), (32, 32), (97, 131), (640, 32), (7, 500)])
def test_any_size_gives_the_same_square(size: tuple[int, int]) -> None:
    pixels = fit(Image.new("RGB", size, (10, 20, 30)), 32)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == (10, 20, 30)).all()


def test_an_image_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(fit(Image.fromarray(pixels), 32), pixels)


@pytest.mark.parametrize(("width", "height"), [(53, 32), (32, 53)])
def test_the_centre_is_cut_out(width: int, height: int) -> None:
    """21 pixels too many: 10.5 on either side, rounded to the even 10."""
    y, x = np.mgrid[:height, :width]
    pixels: Pixels = np.stack([y, x, 0 * x], 2).astype(np.uint8)
    corner = fit(Image.fromarray(pixels), 32)[0, 0]
    assert corner.tolist() == ([0, 10, 0] if width > height else [10, 0, 0])


def test_an_image_that_is_all_length_is_refused() -> None:
    with pytest.raises(ValueError, match="5x501 pixels: longer than 100 times its short side"):
        fit(Image.new("RGB", (5, 501)), 32)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
        ("L", 77, (77, 77, 77)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("LA", (77, 255), (77, 77, 77)),
        ("LA", (77, 0), BACKGROUND),
        ("RGBA", (1, 2, 3, 255), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 0), BACKGROUND),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
    ],
)
def test_modes_of_png(mode: str, colour: int | tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert read_colour(encode(Image.new(mode, (9, 9), colour))) == expected


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (9, 9), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert read_colour(encode(image)) == (40, 50, 60)
    assert read_colour(encode(image, transparency=0)) == (40, 50, 60)
    assert read_colour(encode(image, transparency=1)) == BACKGROUND


def test_one_transparent_colour_shows_the_background() -> None:
    assert read_colour(encode(Image.new("RGB", (9, 9), (1, 2, 3)), transparency=(1, 2, 3))) == BACKGROUND


def test_a_cmyk_jpeg_is_converted() -> None:
    file = encode(Image.new("RGB", (9, 9), (200, 30, 40)).convert("CMYK"), "JPEG", quality=100)
    with Image.open(file) as image:
        assert image.mode == "CMYK"
    assert np.abs(np.array(read_colour(file)) - (200, 30, 40)).max() <= 2


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_to_eight(file_format: str) -> None:
    levels = np.full((9, 9), 0xABCD, np.uint16)
    assert read_colour(encode(Image.fromarray(levels), file_format)) == (0xAB, 0xAB, 0xAB)


def test_wider_integers_are_clipped() -> None:
    levels = np.array([[-5, 0x1234, 0x12345]], np.int32)
    assert np.asarray(to_rgb(Image.fromarray(levels)))[0, :, 0].tolist() == [0, 0x12, 255]


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point pixels have no fixed range"):
        read_pixels(encode(Image.new("F", (9, 9), 0.5), "TIFF"), 8)


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "note.jpg"
    path.write_text("not a picture")
    with pytest.raises(OSError, match=r"note\.jpg"):
        read_pixels(str(path), 8)
