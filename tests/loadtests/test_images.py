from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from loadtests.images import draw, encoded_images
from tests.repositories import picture


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOVEA_LOADTEST_IMAGES", raising=False)


def test_drawn_images_are_the_same_every_time() -> None:
    assert encoded_images() == encoded_images()


def test_drawn_images_are_32_different_jpegs_of_two_sizes() -> None:
    images = encoded_images()
    sizes = []
    for content in images:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            image.load()
            sizes.append(image.size)
    assert sizes == [(32, 32), (500, 375)] * 16
    assert len(set(images)) == 32


def test_a_drawn_photo_has_as_many_bytes_as_a_real_one() -> None:
    assert 120_000 < len(draw(0, (500, 375))) < 170_000
    assert 800 < len(draw(0, (32, 32))) < 1_300


def test_a_folder_takes_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.JPEG").write_bytes(picture("blue"))
    (tmp_path / "a.jpg").write_bytes(picture("red"))
    (tmp_path / "c.png").write_bytes(picture("green", image_format="PNG"))
    monkeypatch.setenv("FOVEA_LOADTEST_IMAGES", str(tmp_path))
    assert encoded_images() == [picture("red"), picture("blue")]


def test_a_folder_without_jpegs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOVEA_LOADTEST_IMAGES", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="FOVEA_LOADTEST_IMAGES"):
        encoded_images()
