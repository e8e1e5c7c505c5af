from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from service.errors import ModelError
from service.golden import check_golden
from service.images import Pixels, Preprocessing
from tests.repositories import SIZE, write_golden
from tests.service.conftest import change_golden

PREPROCESSING = Preprocessing(SIZE, SIZE, SIZE)


def infer(pixels: Pixels) -> npt.NDArray[np.float32]:
    logits: npt.NDArray[np.float32] = (pixels.mean((0, 1)) * 10 / 255).astype(np.float32)
    return logits


def check(folder: Path, preprocessing: Preprocessing = PREPROCESSING) -> bool:
    return check_golden(folder, preprocessing, infer)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    write_golden(tmp_path)
    return tmp_path


def test_a_sample_that_comes_out_right(golden: Path) -> None:
    assert check(golden) is True


def test_a_version_without_a_sample(tmp_path: Path) -> None:
    assert check(tmp_path) is False


def shift(by: float) -> Callable[[Any], Any]:
    return lambda array: array + by


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"pixels": lambda pixels: pixels[:, ::-1]},
            r"preprocessing differs from training by up to \d+ levels \(allowed: 1",
        ),
        ({"pixels": lambda pixels: pixels[:4]}, r"pixels are \(8, 8, 3\) here, \(4, 8, 3\) in training"),
        ({"logits": shift(1)}, r"logits differ by \S+ of the largest \(allowed: 0.02\)"),
        ({"logits": lambda logits: logits[:2]}, r"logits are \(3,\) here, \(2,\) in training"),
        ({"logits": lambda logits: logits[[1, 0, 2]], "logit_tolerance": lambda _: 100}, "class 1 here, 0 in training"),
        ({"logits": lambda logits: logits * np.nan}, "logits differ by nan"),
        ({"pixel_tolerance": shift(-2)}, r"allowed: -1"),
    ],
)
def test_a_sample_that_comes_out_differently(golden: Path, changes: dict[str, Any], reason: str) -> None:
    change_golden(golden, **changes)
    with pytest.raises(ModelError, match=f"golden sample: .*{reason}"):
        check(golden)


def test_other_preprocessing_than_in_training(golden: Path) -> None:
    with pytest.raises(ModelError, match="preprocessing differs from training"):
        check(golden, Preprocessing(SIZE, SIZE, SIZE + 4))


def test_tolerances_allow_what_they_say(golden: Path) -> None:
    change_golden(golden, pixels=lambda pixels: pixels - (pixels > 100))
    assert check(golden) is True
    change_golden(golden, pixel_tolerance=lambda _: 0)
    with pytest.raises(ModelError, match="by up to 1 levels"):
        check(golden)


def test_logits_that_are_not_numbers(golden: Path) -> None:
    with pytest.raises(ModelError, match="logits differ by nan"):
        check_golden(golden, PREPROCESSING, lambda pixels: infer(pixels) * np.nan)


@pytest.mark.parametrize("name", ["golden.jpg", "golden.npz"])
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short", b"garbage"])
def test_half_a_sample_is_no_sample(golden: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (golden / name).unlink()
    else:
        (golden / name).write_bytes(content)
    with pytest.raises(ModelError, match="golden sample: cannot be read"):
        check(golden)


def test_a_sample_without_logits(golden: Path) -> None:
    np.savez(golden / "golden.npz", pixels=np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ModelError, match=r"golden sample: cannot be read.*logits"):
        check(golden)


def test_a_sample_is_never_unpickled(golden: Path) -> None:
    with np.load(golden / "golden.npz") as stored:
        arrays = dict(stored)
    np.savez(golden / "golden.npz", **{**arrays, "logits": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(ModelError, match=r"golden sample: cannot be read.*allow_pickle"):
        check(golden)


def test_features_have_no_class(tmp_path: Path) -> None:
    """The largest of them means nothing: which it is may differ, as far as the tolerance allows."""
    write_golden(tmp_path, kind="feature")
    assert check_golden(tmp_path, PREPROCESSING, infer, kind="feature") is True
    with pytest.raises(ModelError, match=r"cannot be read.*logits"):
        check(tmp_path)
    change_golden(tmp_path, features=lambda features: features[[1, 0, 2]])
    with pytest.raises(ModelError, match="golden sample: features differ by"):
        check_golden(tmp_path, PREPROCESSING, infer, kind="feature")
    change_golden(tmp_path, feature_tolerance=lambda _: 100)
    assert check_golden(tmp_path, PREPROCESSING, infer, kind="feature") is True
