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
from model.recipe import fitted, recipe_for, with_loss
from model.run import Run, RunError
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
        name: a network's, or a specification; behind a `+` the loss, if it is not the recipe's.
        data, classes: what the table is about; the data as it was given.
        asked_image_size: height and width in pixels that the data was loaded at.
        image_size: the same of what the other figures are for.
        epochs: trained; 0 for random weights.
        accuracy: of the exported file on the test split; None where it was not trained.
        mflops: million multiply-adds an image, as `summary` counts them.
        training_minutes: None where it was not trained.
        images_per_s: through ONNX Runtime on one thread, in batches of 16, by CPU time.
        ms_at_batch_1: of one image alone, likewise.
    """

    name: str
    data: str
    classes: list[str]
    asked_image_size: int
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
        name: see `Row`.
        epochs: instead of the recipe's; 0 not to train it.
        repository: receives the trained network as a model, by its `folder_name`.
        runs: receives the run as a folder, likewise.
        origin: how the table was asked for (command, data), kept in `run.json` and the model card.

    Raises:
        RunError: the run in that folder is of other data or another number of epochs, or its loss is not finite.
        RepositoryError: the repository holds another model of this name.
        ExportError: the exported file disagrees with PyTorch.
        NetError: the network takes images neither of this size nor of 224x224.
    """
    asked_image_size = image_size = dataset.images.shape[1]
    classes = len(dataset.classes)
    net, loss = _parts(name)
    epochs = planned_epochs(name, epochs, image_size)
    trained = epochs > 0
    if trained:
        recipe = fitted(recipe_for(net), len(dataset))
        if loss:
            recipe = with_loss(recipe, loss)
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
        image_size = image_size if _takes(net, image_size) else LARGE_IMAGE_SIZE
        model, accuracy, minutes = _of_random_weights(net, classes, image_size), None, None

    session = one_thread(model)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, image_size, image_size, 3), np.uint8)
    alone, together = (
        median(images_per_s(session, batch) for _ in range(SPEED_ROUNDS)) for batch in (pixels[:1], pixels)
    )
    cost = summarise([net], classes, (3, image_size, image_size))
    return Row(
        name=name,
        data=origin["data"],
        classes=list(dataset.classes),
        asked_image_size=asked_image_size,
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
    net, _ = _parts(name)
    if not _takes(net, image_size):
        return 0
    recipe = recipe_for(net)
    return recipe.epochs + recipe.averaged_epochs if epochs is None else epochs


def folder_name(name: str) -> str:
    """A row's name as one that a folder and a model may have: `linear`, `linear_svm`, `conv_N_1_…`."""
    return "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in name)


def read_rows(file: Path) -> list[Row]:
    """The rows of a table that was begun, those from before rows told their data left out; none without a file."""
    records = json.loads(file.read_text()) if file.is_file() else []
    return [Row(**record) for record in records if "data" in record]


def check_data(rows: Sequence[Row], data: str, dataset: Dataset) -> None:
    """Whether a table that was begun is of this data, which it was loaded from as `data` says.

    Raises:
        RunError: it is of other data, or of the same at another size.
    """
    side = dataset.images.shape[1]
    for row in rows:
        if (row.data, row.classes, row.asked_image_size) != (data, list(dataset.classes), side):
            raise RunError(
                f"the table there is of {len(row.classes)} classes of {row.data} at {row.asked_image_size} pixels, not "
                f"of {len(dataset.classes)} of {data} at {side}: give another --runs, and another --repository"
            )


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


def _parts(name: str) -> tuple[str, str]:
    """Network and loss of a row; the loss is empty where it is the recipe's."""
    net, _, loss = name.partition("+")
    return net, loss


def _takes(net: str, image_size: int) -> bool:
    try:
        with torch.device("meta"):
            build(net, 2, (3, image_size, image_size))
    except NetError:
        return False
    return True


def _of_random_weights(name: str, classes: int, image_size: int) -> bytes:
    torch.manual_seed(0)
    net = build(name, classes, (3, image_size, image_size)).eval()
    info = {"classes": [str(number) for number in range(classes)], "image_size": image_size}
    return to_onnx(Run(Path(name), net, Preprocess([0.5] * 3, [0.25] * 3), info))
