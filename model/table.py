"""The lecture's table, a row for each network: `python -m model table DATA --repository FOLDER --runs FOLDER`.

A network is trained by its recipe, exported and measured. One that is not trained here, or does not take images of that
size, is measured with random weights and stays out of the repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from model.card import table as markdown
from model.data import Dataset
from model.export import export, to_onnx
from model.nets import build
from model.nets.arithmetic import NetError
from model.nets.preprocess import Preprocess
from model.recipe import fitted, recipe_for
from model.run import Run
from model.speed import images_per_s, one_thread
from model.summary import summarise
from model.train import train

LARGE_IMAGE_SIZE = 224
"""Of the networks that take nothing as small as the data's images."""

BATCH_SIZE = 16
SPEED_ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """What fits into a line about a network.

    Attributes:
        name: a network's, or a specification.
        image_size: height and width in pixels of what the other figures are for.
        epochs: trained; 0 for random weights.
        accuracy: of the exported file on the test split; None where it was not trained.
        mflops: million multiply-adds an image, as `summary` counts them.
        training_minutes: None where it was not trained.
        images_per_s: through ONNX Runtime on one thread, in batches of 16, by CPU time.
        ms_at_batch_1: of one image alone, likewise.
    """

    name: str
    image_size: int
    epochs: int
    accuracy: float | None
    parameters: int
    mflops: float
    training_minutes: float | None
    images_per_s: float
    ms_at_batch_1: float
    model_bytes: int


def make_row(
    name: str,
    epochs: int | None,
    dataset: Dataset,
    test: Dataset,
    *,
    repository: Path,
    runs: Path,
    device: torch.device,
    origin: dict[str, Any],
) -> Row:
    """Train (or go on training), export and measure one network.

    Args:
        epochs: instead of the recipe's; 0 not to train it.
        repository: receives the trained network as the model `name`.
        runs: receives the run as the folder `name`.
        origin: how the table was asked for (command, data), kept in `run.json` and the model card.

    Raises:
        RunError: the run in that folder is of other data or another number of epochs, or its loss is not finite.
        RepositoryError: the repository holds another model of this name.
        ExportError: the exported file disagrees with PyTorch.
        NetError: the network takes images neither of this size nor of 224x224.
    """
    image_size = dataset.images.shape[1]
    classes = len(dataset.classes)
    epochs = planned_epochs(name, epochs, image_size)
    trained = epochs > 0
    if trained:
        recipe = fitted(recipe_for(name), len(dataset))
        if epochs != recipe.epochs + recipe.averaged_epochs:
            recipe = replace(recipe, epochs=epochs, averaged_epochs=0)
        run = train(dataset, None, recipe, runs / folder_name(name), device=device, origin=origin)
        done = export(
            run, repository, folder_name(name), command=origin["command"], test=test, test_data=origin["data"]
        )
        model = (done.folder / "model.onnx").read_bytes()
        accuracy = done.tested.accuracy if done.tested else None
        minutes = round(run.info["results"]["seconds"] / 60, 1)
    else:
        image_size = image_size if _takes(name, image_size) else LARGE_IMAGE_SIZE
        model, accuracy, minutes = _of_random_weights(name, classes, image_size), None, None

    session = one_thread(model)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, image_size, image_size, 3), np.uint8)
    alone, together = (
        median(images_per_s(session, batch) for _ in range(SPEED_ROUNDS)) for batch in (pixels[:1], pixels)
    )
    cost = summarise([name], classes, (3, image_size, image_size))
    return Row(
        name=name,
        image_size=image_size,
        epochs=epochs,
        accuracy=accuracy,
        parameters=cost.parameters,
        mflops=round(cost.multiply_adds / 1e6, 3),
        training_minutes=minutes,
        images_per_s=round(together, 1),
        ms_at_batch_1=round(1000 / alone, 3),
        model_bytes=len(model),
    )


def planned_epochs(name: str, epochs: int | None, image_size: int) -> int:
    """How many a row is trained for: those asked for or the recipe's; 0 where the network takes no such images."""
    if not _takes(name, image_size):
        return 0
    recipe = recipe_for(name)
    return recipe.epochs + recipe.averaged_epochs if epochs is None else epochs


def folder_name(name: str) -> str:
    """A network's own name, or a specification's as one that a folder and a model may have."""
    return "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in name)


def read_rows(file: Path) -> list[Row]:
    """The rows of a table that was begun; none where there is no file."""
    return [Row(**record) for record in json.loads(file.read_text())] if file.is_file() else []


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """Write `<file>` as a JSON list of objects, and the same as a Markdown table beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(file.name + ".new")
    beside.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    os.replace(beside, file)
    file.with_suffix(".md").write_text(as_markdown(rows) + "\n")


def as_markdown(rows: Sequence[Row]) -> str:
    header = ["Name", "Images", "Accuracy", "Parameters", "MFLOPs", "Training minutes", "Images/s", "ms at batch 1"]
    return markdown(
        header,
        [
            [
                f"`{row.name}`",
                f"{row.image_size}x{row.image_size}",
                "not trained here" if row.accuracy is None else f"{100 * row.accuracy:.1f} %",
                f"{row.parameters:,}",
                f"{row.mflops:,.2f}",
                "" if row.training_minutes is None else f"{row.training_minutes:.1f}",
                f"{row.images_per_s:,.0f}",
                f"{row.ms_at_batch_1:,.2f}",
            ]
            for row in rows
        ],
    )


def _takes(name: str, image_size: int) -> bool:
    try:
        with torch.device("meta"):
            build(name, 2, (3, image_size, image_size))
    except NetError:
        return False
    return True


def _of_random_weights(name: str, classes: int, image_size: int) -> bytes:
    torch.manual_seed(0)
    net = build(name, classes, (3, image_size, image_size)).eval()
    info = {"classes": [str(number) for number in range(classes)], "image_size": image_size}
    return to_onnx(Run(Path(name), net, Preprocess([0.5] * 3, [0.25] * 3), info))
