"""What test_workers.py has one process do, and two: `torchrun … in_double.py FOLDER`. Weights are float64."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import model.train
from model.data import Dataset, synthetic
from model.nets.preprocess import Preprocess
from model.recipe import RECIPES, Recipe, with_optimizer
from model.train import train
from model.workers import ALONE, Workers, join

CPU = torch.device("cpu")
# 90 images make 10 steps of 9 an epoch, of which two workers have 5 and 4.
SHAPES = synthetic("train", image_size=16, count=90)
PATTERN = replace(
    RECIPES["conv:"],
    net="conv:N=1,M=2,filters=8-16,F=3,P=1,pool=max2,K=1,hidden=16",
    epochs=2,
    batch_size=9,
    label_smoothing=0.1,
    l1=1e-4,
    cutout=4,
    cutmix=0.5,
)
MUON = replace(with_optimizer(PATTERN, "muon"), averaged_epochs=1)
RECIPES_IN_DOUBLE = {
    "adam": PATTERN,
    "muon": MUON,
    "nesterov": replace(with_optimizer(PATTERN, "nesterov"), averaged_epochs=1, loss="svm", label_smoothing=0.0),
}


def started(recipe: Recipe, folder: Path, workers: Workers, dataset: Dataset = SHAPES) -> None:
    origin = {"command": "", "data": "synthetic"}
    train(dataset, SHAPES, recipe, folder, device=CPU, origin=origin, workers=workers)


def stopped(recipe: Recipe, folder: Path, workers: Workers) -> None:
    """SIGINT comes to the last of the workers in the 14th step of 30, on its way to the batch."""
    augment, calls = model.train.augment, itertools.count(1)

    def interrupted(*arguments: Any, **options: Any) -> Tensor:
        if workers.rank == workers.count - 1 and next(calls) == 14:
            os.kill(os.getpid(), signal.SIGINT)
        return augment(*arguments, **options)

    model.train.augment = interrupted
    try:
        started(recipe, folder, workers)
    except KeyboardInterrupt as interrupt:
        assert "interrupted after step 14 of 30" in str(interrupt)
    else:
        raise AssertionError("it was not interrupted")
    finally:
        model.train.augment = augment


def seen(folder: Path, workers: Workers) -> list[list[int]]:
    """Of each step, the images that this worker's network was given."""
    numbered = SHAPES.images.copy()
    numbered[:] = torch.arange(len(SHAPES)).byte().numpy()[:, None, None, None]
    steps: list[list[int]] = []
    forward = Preprocess.forward

    def noted(preprocess: Preprocess, pixels: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            steps.append(pixels[:, 0, 0, 0].tolist())
        return forward(preprocess, pixels)

    Preprocess.forward = noted  # type: ignore[method-assign]
    try:
        dataset = Dataset(numbered, SHAPES.labels, SHAPES.classes)
        started(replace(RECIPES["linear"], epochs=2, batch_size=9), folder, workers, dataset)
    finally:
        Preprocess.forward = forward  # type: ignore[method-assign]
    return steps


def everything(folder: Path, workers: Workers) -> None:
    for name, recipe in RECIPES_IN_DOUBLE.items():
        started(recipe, folder / name, workers)
    stopped(MUON, folder / "stopped", workers)
    torch.save(seen(folder / "seen", workers), folder / f"seen by {workers.rank}.pt")


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    with join(CPU) as joined:
        assert joined != ALONE
        everything(Path(sys.argv[1]), joined)
        # What one process has begun.
        started(MUON, Path(sys.argv[2]), joined)
