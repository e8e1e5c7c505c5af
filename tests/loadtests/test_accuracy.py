from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.accuracy import main
from tests.repositories import picture, write_model


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty pictures of each colour, in a folder of its name."""
    write_model(tmp_path / "models")
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    for colour in ("red", "green", "blue"):
        (tmp_path / "test" / colour).mkdir(parents=True)
        for number in range(30):
            (tmp_path / "test" / colour / f"{number}.jpg").write_bytes(picture(colour))
    return tmp_path / "test"


def test_what_is_served_is_as_accurate_as_the_model(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Nine of ninety are in the wrong folder.
    for number in range(9):
        (pictures / "red" / f"{number}.jpg").write_bytes(picture("blue"))
    assert main([str(pictures)]) == 0
    expected = "accuracy 0.9000 on 90 images"
    assert capsys.readouterr().out == f"HTTP: {expected}\ngRPC: {expected}\n"


def test_an_image_without_an_answer_is_named(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pictures / "red" / "0.jpg").write_bytes(b"no image")
    assert main([str(pictures)]) == 1
    assert "not an image" in capsys.readouterr().out


def test_an_empty_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "holds no images" in capsys.readouterr().err
