from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import model.data
from model.command_line import main
from model.data import Dataset, synthetic
from model.run import Run


@pytest.fixture(autouse=True)
def _few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named wrong, each of them: whatever a network has learned, it makes mistakes."""

    def misnamed(split: str, **options: int) -> Dataset:
        dataset = synthetic(split, count=12, **options)
        return replace(dataset, labels=(dataset.labels + 1) % 3)

    monkeypatch.setattr(model.data, "synthetic", misnamed)


def visualize(*arguments: object) -> int:
    return main(["visualize", *map(str, arguments)])


@pytest.fixture
def image(shapes: Dataset, tmp_path: Path) -> Path:
    Image.fromarray(shapes.images[0]).save(tmp_path / "disc.jpg")
    return tmp_path / "disc.jpg"


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("picture", ["filters", "activations", "curves", "confusion", "reliability", "mistakes"])
def test_a_picture_of_a_run(
    picture: str, suffix: str, fastcnn_run: Run, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / f"picture{suffix}"
    more = {"activations": [image], "filters": [], "curves": []}.get(picture, ["--data", "synthetic"])
    assert visualize(picture, fastcnn_run.folder, *more, "--output", output) == 0
    assert capsys.readouterr() == (f"written: {output}\n", "")
    assert output.read_bytes().startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_templates_and_a_table(tmp_path: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "picture.png"
    assert main(["train", "synthetic", "--run", str(run), "--net", "linear", "--epochs", "1"]) == 0
    assert visualize("templates", run, "--output", output) == 0
    output.unlink()
    (tmp_path / "costs.json").write_text('[{"name": "a", "accuracy": 0.5, "mflops": 2}]')
    assert visualize("table", tmp_path / "costs.json", "--output", output) == 0
    assert output.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["templates", "RUN"], "RUN: fastcnn begins with a convolution: it has filters, and no templates"),
        (["filters", "nowhere"], "nowhere: not a run folder"),
        (["activations", "RUN", "nowhere.png"], "nowhere.png: no such image file"),
        (["activations", "RUN", "IMAGE", "--layer", "x"], "fastcnn has no layer 'x' with maps"),
        (["confusion", "RUN", "--data", "nowhere"], "nowhere: no such folder"),
        (["table", "nowhere.md"], "nowhere.md: cannot be read: No such file or directory"),
    ],
)
def test_refusals_are_one_line(
    arguments: list[str],
    message: str,
    fastcnn_run: Run,
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "picture.png"
    paths = {"RUN": str(fastcnn_run.folder), "IMAGE": str(image)}
    assert visualize(*(paths.get(argument, argument) for argument in arguments), "--output", output) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: " + message.replace("RUN", paths["RUN"]))
    assert error.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["filters", "run", "--output", "a.gif"], "argument --output: a.gif: its name must end in .png or .svg"),
        (["filters", "run", "--output", "png"], "argument --output: png: its name must end in .png or .svg"),
        (["filters", "run"], "the following arguments are required: --output"),
        (["mistakes", "run", "--output", "a.png"], "the following arguments are required: --data"),
        (["portrait"], "invalid choice: 'portrait'"),
    ],
)
def test_arguments_are_validated(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        visualize(*arguments)
    assert message in capsys.readouterr().err
