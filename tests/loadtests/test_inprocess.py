from __future__ import annotations

from pathlib import Path

import numpy as np

from loadtests.decoder import Decoder
from loadtests.inprocess import Arrangement, measure_arrangements, measure_decoding_too
from tests.repositories import SIZE, picture, write_model

ARRANGEMENTS = [Arrangement(1, 2), Arrangement(2, 1)]


def test_each_arrangement_has_a_rate(tmp_path: Path) -> None:
    model = write_model(tmp_path) / "1" / "model.onnx"
    rates = measure_arrangements(model, np.zeros((SIZE, SIZE, 3), np.uint8), ARRANGEMENTS, 0.02)
    assert list(rates) == ARRANGEMENTS
    assert all(rate > 0 for rate in rates.values())


def test_each_session_decodes_the_images_of_its_batches(tmp_path: Path) -> None:
    model = write_model(tmp_path) / "1" / "model.onnx"
    decoded = []

    class Counting(Decoder):
        def decode(self, image: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
            decoded.append(image)
            return super().decode(image)

    decoder = Counting(SIZE, SIZE, SIZE, 2)
    rates = measure_decoding_too(model, picture("green"), decoder, [Arrangement(1, 2)], 0.0)
    assert list(rates) == [Arrangement(1, 2)]
    assert len(decoded) == 4, "a batch to warm up, and one that is measured"
