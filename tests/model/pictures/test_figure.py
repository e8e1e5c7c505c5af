from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from model.pictures.figure import SUFFIXES, picture


def draw(file: Path, title: str = "costs $5, or $6") -> None:
    with picture(file) as figure:
        figure.add_subplot().set_title(title)


@pytest.mark.parametrize("name", ["a.png", "new/folder/a.PNG"])
def test_png(name: str, tmp_path: Path) -> None:
    draw(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.format == "PNG"
        assert min(image.size) > 400


def test_svg(tmp_path: Path) -> None:
    draw(tmp_path / "a.svg")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_picture_is_the_same_file(suffix: str, tmp_path: Path) -> None:
    one, other = tmp_path / f"one{suffix}", tmp_path / f"other{suffix}"
    draw(one)
    draw(other)
    assert one.read_bytes() == other.read_bytes()


def test_what_could_not_be_drawn_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> None:
        with picture(tmp_path / "new" / "a.png"):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert not list(tmp_path.iterdir())
