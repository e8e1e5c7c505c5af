from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from loadtests.decoder import Decoder
from loadtests.images import draw
from service.images import ImageLimits, Preprocessing, decode

CONFIG = 'input { name: "pixels" dims: [ 24, 32, 3 ] } '
SHORT_SIDE = 'parameters { key: "preprocessing.resize_short_side" value { string_value: "40" } } '
FILTER = 'parameters { key: "preprocessing.resize_filter" value { string_value: "bicubic" } } '


def configured(text: str) -> Decoder:
    return Decoder.of(text_format.Parse(text, model_config_pb2.ModelConfig()))


@pytest.mark.parametrize("size", [(32, 32), (45, 31), (30, 64), (40, 44), (500, 375)])
@pytest.mark.parametrize(
    ("config", "preprocessing"),
    [
        (CONFIG, Preprocessing(24, 32, 32)),
        (CONFIG + SHORT_SIDE, Preprocessing(24, 32, 40)),
        (CONFIG + SHORT_SIDE + FILTER, Preprocessing(24, 32, 40, "bicubic")),
    ],
)
def test_the_pixels_are_those_that_the_service_gives_its_model(
    size: tuple[int, int], config: str, preprocessing: Preprocessing
) -> None:
    image = draw(0, size)
    pixels = configured(config).decode(image)
    assert pixels.shape == (24, 32, 3)
    assert np.array_equal(pixels, decode(image, preprocessing, ImageLimits(2**20, 2**20, 1)))


def test_an_image_that_fits_is_only_decoded() -> None:
    decoder = configured('input { name: "pixels" dims: [ 32, 32, 3 ] }')
    assert decoder.decode(draw(0, (32, 32))).shape == (32, 32, 3)


def test_its_time_is_that_of_one_image() -> None:
    decoder = configured(CONFIG)
    assert 0 < decoder.mean_us(draw(0, (32, 32)), 0.0) < 1e6
