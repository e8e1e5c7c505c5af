from __future__ import annotations

import io
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from model.images import read_pixels
from service.errors import InvalidInputError, TooLargeError
from service.images import (
    FORMATS,
    SMALL_BYTES,
    ImageLimits,
    Pixels,
    Preprocessing,
    _size_of_plain_jpeg,
    decode,
    decode_if_small,
)
from tests.service.pictures import (
    LOSSLESS,
    MODES,
    STORED,
    WITH_EXIF,
    encode,
    frames,
    hostile_images,
    in_mode,
    oriented,
    png_header,
    scene,
    valid_images,
)

# Pillow warns of many a broken file before it refuses it.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

LIMITS = ImageLimits(max_bytes=2**20, max_pixels=1_000_000, max_frames=20)
HOSTILE = hostile_images(LIMITS.max_bytes, LIMITS.max_frames)
SKEW_SIZES = (8, 32)


def square(side: int) -> Preprocessing:
    return Preprocessing(side, side, side)


def quadrants(side: int = 8) -> Pixels:
    """Red, green, blue, white."""
    pixels = np.zeros((side, side, 3), np.uint8)
    half = side // 2
    pixels[:half, :half, 0] = pixels[:half, half:, 1] = pixels[half:, :half, 2] = 255
    pixels[half:, half:] = 255
    return pixels


@pytest.mark.parametrize("name", valid_images())
def test_the_pixels_are_those_of_training(name: str) -> None:
    """The skew test: two implementations that share no code, over formats, modes, sizes and orientations."""
    content = valid_images()[name]
    for side in SKEW_SIZES:
        served = decode(content, square(side), LIMITS)
        assert served.dtype == np.uint8
        np.testing.assert_array_equal(served, read_pixels(io.BytesIO(content), side))


def test_the_grid_holds_every_format_that_is_taken() -> None:
    assert set(MODES) == set(FORMATS)


@pytest.mark.parametrize("image_format", FORMATS)
def test_colours_come_out_right(image_format: str) -> None:
    content = encode(Image.fromarray(quadrants(64)), image_format, **LOSSLESS.get(image_format, {}))
    pixels = decode(content, square(64), LIMITS).astype(int)
    # In the middle of each quadrant, where JPEG and GIF's palette leave the colour nearly alone.
    for row, column in ((16, 16), (16, 48), (48, 16), (48, 48)):
        np.testing.assert_allclose(pixels[row, column], quadrants(64)[row, column], atol=4)


@pytest.mark.parametrize("image_format", [name for name in FORMATS if name not in ("JPEG", "GIF")])
def test_a_lossless_image_of_the_right_size_is_not_touched(image_format: str) -> None:
    image = scene(32, 32)
    content = encode(image, image_format, **LOSSLESS.get(image_format, {}))
    np.testing.assert_array_equal(decode(content, square(32), LIMITS), np.asarray(image))


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("image_format", WITH_EXIF)
def test_an_oriented_image_is_seen_upright(image_format: str, orientation: int) -> None:
    content = oriented(Image.fromarray(quadrants(32)), image_format, orientation)
    pixels = decode(content, square(32), LIMITS).astype(int)
    for row, column in ((8, 8), (8, 24), (24, 8), (24, 24)):
        np.testing.assert_allclose(pixels[row, column], quadrants(32)[row, column], atol=4)


@pytest.mark.parametrize(("image_format", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I")])
def test_sixteen_bits_are_scaled_not_clipped(image_format: str, mode: str) -> None:
    image = scene(32, 32)
    grey = np.asarray(image.convert("L"))
    pixels = decode(encode(in_mode(image, mode), image_format), square(32), LIMITS)
    np.testing.assert_array_equal(pixels, np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_transparency_shows_white(image_format: str) -> None:
    rgba = np.dstack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 255, np.uint8)])
    rgba[:4, :, 3] = 0
    rgba[4, :, 3] = 128
    content = encode(Image.fromarray(rgba), image_format, **LOSSLESS.get(image_format, {}))
    pixels = decode(content, square(8), LIMITS)
    assert (pixels[:4] == 255).all()
    assert (pixels[4] == 127).all()
    assert (pixels[5:] == 0).all()


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_transparent_palette_colour_shows_white(image_format: str) -> None:
    image = Image.fromarray(np.repeat([[0, 1]], 8, 0).repeat(4, 1).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    pixels = decode(encode(image, image_format, transparency=0), square(8), LIMITS)
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == (0, 0, 255)).all()


def test_grey_with_alpha_shows_white() -> None:
    image = Image.merge("LA", (Image.new("L", (8, 8), 10), Image.new("L", (8, 8), 0)))
    assert (decode(encode(image, "PNG"), square(8), LIMITS) == 255).all()


def test_cmyk_comes_out_as_its_colour() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    np.testing.assert_allclose(decode(encode(image, "JPEG"), square(8), LIMITS)[4, 4], (255, 0, 0), atol=4)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(image_format: str) -> None:
    pixels = decode(frames(image_format, 5), square(8), LIMITS)
    np.testing.assert_allclose(pixels[4, 4], (255, 0, 0), atol=4)


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_the_centre_of_the_long_side_is_kept(size: tuple[int, int]) -> None:
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[size[1] // 2 - 10 : size[1] // 2 + 10, size[0] // 2 - 10 : size[0] // 2 + 10] = 255
    assert (decode(encode(Image.fromarray(pixels), "PNG"), square(20), LIMITS) == 255).all()


def test_a_crop_smaller_than_the_short_side_and_not_square() -> None:
    image = scene(60, 50)
    pixels = decode(encode(image, "PNG"), Preprocessing(height=30, width=20, resize_short_side=50), LIMITS)
    np.testing.assert_array_equal(pixels, np.asarray(image)[10:40, 20:40])


def test_resizing_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encode(Image.fromarray(stripes), "PNG"), square(8), LIMITS)
    assert pixels[:, 1:-1].min() > 100
    assert pixels[:, 1:-1].max() < 155


def test_resize_filters_differ() -> None:
    content = encode(scene(50, 50), "PNG")
    bilinear, bicubic, lanczos = (
        decode(content, Preprocessing(16, 16, 16, name), LIMITS) for name in ("bilinear", "bicubic", "lanczos")
    )
    assert (bilinear != bicubic).any()
    assert (bicubic != lanczos).any()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_refused_with_its_reason(name: str) -> None:
    content, reason, too_large = HOSTILE[name]
    with pytest.raises(TooLargeError if too_large else InvalidInputError, match=reason):
        decode(content, square(8), LIMITS)


def test_a_bomb_is_refused_without_its_pixels() -> None:
    content = png_header(30_000, 30_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="at most 1000000"):
            decode(content, square(8), LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_limits_allow_what_they_say() -> None:
    content = encode(Image.new("RGB", (50, 40), "red"), "PNG")
    exact = ImageLimits(max_bytes=len(content), max_pixels=2000, max_frames=1)
    assert decode(content, square(8), exact).shape == (8, 8, 3)
    for limits in (
        ImageLimits(len(content) - 1, 2000, 1),
        ImageLimits(len(content), 1999, 1),
    ):
        with pytest.raises(TooLargeError):
            decode(content, square(8), limits)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_as_many_frames_as_allowed(image_format: str) -> None:
    content = frames(image_format, 4)
    assert decode(content, square(8), ImageLimits(2**20, 10**6, 4)).shape == (8, 8, 3)
    with pytest.raises(TooLargeError, match="more than 3 frames"):
        decode(content, square(8), ImageLimits(2**20, 10**6, 3))


def test_one_hundred_to_one_is_the_longest() -> None:
    assert decode(encode(Image.new("L", (200, 2)), "PNG"), square(8), LIMITS).shape == (8, 8, 3)
    for size in ((201, 2), (2, 201)):
        with pytest.raises(InvalidInputError, match="longer than 100 times"):
            decode(encode(Image.new("L", size), "PNG"), square(8), LIMITS)


@pytest.mark.parametrize("image_format", FORMATS)
def test_truncated_at_any_point_is_refused_or_whole(image_format: str) -> None:
    content = encode(scene(40, 30), image_format, **LOSSLESS.get(image_format, {}))
    whole = decode(content, square(8), LIMITS)
    refused = 0
    for length in range(1, len(content), max(1, len(content) // 60)):
        try:
            pixels = decode(content[:length], square(8), LIMITS)
        except InvalidInputError as error:
            assert re.match("broken image|not an image", str(error))  # noqa: PT017
            refused += 1
        else:
            # Only what comes after the pixels was missing.
            np.testing.assert_array_equal(pixels, whole)
    assert refused > 40


MUTABLE = [
    content
    for name, content in valid_images().items()
    if re.search("31x17|orientation [36]|animated|pages|TIFF [a-z]|progressive", name)
]


@given(
    content=st.sampled_from(MUTABLE),
    changes=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True), st.one_of(st.integers(0, 255), st.sampled_from([0, 1, 127, 128, 255]))
        ),
        max_size=12,
    ),
    in_head=st.booleans(),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_the_error_is_one_of_ours(
    content: bytes, changes: list[tuple[float, int]], in_head: bool, keep: float
) -> None:
    mutated = bytearray(content)
    extent = min(len(mutated), 200) if in_head else len(mutated)
    for where, byte in changes:
        mutated[int(where * extent)] = byte
    del mutated[int(keep * len(mutated)) :]
    try:
        pixels = decode(bytes(mutated), square(8), LIMITS)
    except (InvalidInputError, TooLargeError) as error:
        assert str(error)  # noqa: PT017
    else:
        assert pixels.shape == (8, 8, 3)
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("name", valid_images())
def test_a_small_image_is_decoded_at_once_and_to_the_same(name: str) -> None:
    content = valid_images()[name]
    small = decode_if_small(content, square(8), LIMITS)
    assert small is not None
    np.testing.assert_array_equal(small, decode(content, square(8), LIMITS))


def test_a_large_image_is_left_to_a_thread() -> None:
    many_pixels = encode(Image.new("RGB", (129, 128)), "PNG")
    assert len(many_pixels) < SMALL_BYTES
    assert decode_if_small(many_pixels, square(8), LIMITS) is None
    many_bytes = encode(scene(16, 16), "PNG") + bytes(SMALL_BYTES)
    assert decode_if_small(many_bytes, square(8), LIMITS) is None


def test_a_small_image_is_held_to_the_limits_too() -> None:
    with pytest.raises(TooLargeError):
        decode_if_small(png_header(30_000, 30_000), square(8), LIMITS)
    with pytest.raises(InvalidInputError, match="zero bytes"):
        decode_if_small(b"", square(8), LIMITS)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 12}, {"quality": 100}, {"restart_marker_rows": 1}]
)
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (32, 32), (53, 40)])
def test_a_plain_jpeg_has_the_pixels_that_pillow_gives(
    mode: str, options: dict[str, object], subsampling: str, size: tuple[int, int]
) -> None:
    """Two decoders, which must agree: training knows Pillow's only."""
    content = encode(in_mode(scene(*size), mode), "JPEG", subsampling=subsampling, **options)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    assert _size_of_plain_jpeg(content) == size
    whole = Preprocessing(size[1], size[0], min(size))
    np.testing.assert_array_equal(decode(content, whole, LIMITS), expected)


def test_a_broken_jpeg_fares_as_it_does_with_pillow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    whole = encode(scene(32, 32), "JPEG")
    broken = [whole[:cut] for cut in range(2, len(whole), 7)]
    places = rng.integers(2, len(whole), 300)
    broken += [whole[:place] + bytes([rng.integers(256)]) + whole[place + 1 :] for place in places]

    def outcome(content: bytes) -> object:
        try:
            return decode(content, square(32), LIMITS).tobytes()
        except (InvalidInputError, TooLargeError) as error:
            return type(error)

    found = [outcome(content) for content in broken]
    monkeypatch.setattr("service.images._size_of_plain_jpeg", lambda content: None)
    assert found == [outcome(content) for content in broken]
    assert len(set(found)) > 100
