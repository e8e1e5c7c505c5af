from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.pictures.curves import draw_curves
from model.pictures.figure import PictureError
from model.run import Run


@pytest.fixture
def run(run_of: Callable[[str], Run], tmp_path: Path) -> Run:
    shutil.copytree(run_of("lenet").folder, tmp_path / "run")
    return replace(run_of("lenet"), folder=tmp_path / "run")


def write(run: Run, *lines: dict[str, float]) -> None:
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def drawn(axes: Axes) -> dict[object, list[list[float]]]:
    return {line.get_label(): [*map(list, line.get_xydata())] for line in axes.lines}  # type: ignore[arg-type]


def test_the_curves_are_the_metrics(run: Run, figure: Figure) -> None:
    write(
        run,
        {"epoch": 1, "loss": 2.5, "train_accuracy": 0.25},
        {"epoch": 2, "loss": 1.5, "train_accuracy": 0.5, "held_out_accuracy": 0.625},
    )
    two_epochs = run.info["recipe"] | {"epochs": 2}
    draw_curves(figure, replace(run, info=run.info | {"recipe": two_epochs}))
    loss, accuracy = figure.axes
    assert drawn(loss) == {"training": [[1, 2.5], [2, 1.5]]}
    assert drawn(accuracy) == {"training": [[1, 0.25], [2, 0.5]], "held out": [[2, 0.625]]}
    assert loss.get_ylim()[0] == 0
    assert [text.get_text() for text in accuracy.texts] == ["0.5", "0.625"]
    assert not accuracy.patches


def test_epochs_with_averaged_weights_are_shaded(run: Run, figure: Figure) -> None:
    write(run, *({"epoch": epoch, "loss": 1.0, "train_accuracy": 0.5} for epoch in (1, 2, 3)))
    draw_curves(figure, run)
    (shade,) = figure.axes[1].patches
    assert shade.get_extents().width > 0
    assert shade.get_label() == "weights averaged"


def test_refusals(run: Run, figure: Figure) -> None:
    write(run)
    with pytest.raises(PictureError, match=r"metrics\.jsonl: no epoch was finished"):
        draw_curves(figure, run)
    (run.folder / "metrics.jsonl").write_text('{"epoch": 1,')
    with pytest.raises(PictureError, match=r"metrics\.jsonl: cannot be read as JSON lines"):
        draw_curves(figure, run)
    (run.folder / "metrics.jsonl").unlink()
    with pytest.raises(PictureError, match="or the file is missing"):
        draw_curves(figure, run)
