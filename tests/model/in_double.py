"""What test_workers.py has one process do, and two: `torchrun … in_double.py FOLDER`. Weights are float64."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import model.train
from model.data import Dataset, augment, synthetic
from model.nets import build
from model.nets.preprocess import Preprocess
from model.recipe import RECIPES, Recipe, with_optimizer
from model.train import train
from model.workers import ALONE, Workers, join

CPU = torch.device("cpu")
# 95 images make 10 steps of 9 an epoch, of which two workers have 5 and 4, and 5 images are left over.
SHAPES = synthetic("train", image_size=16, count=95)
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
    torch.set_default_dtype(torch.float64)
    try:
        origin = {"command": "", "data": "synthetic"}
        train(dataset, SHAPES, recipe, folder, device=CPU, origin=origin, workers=workers)
    finally:
        torch.set_default_dtype(torch.float32)


def stopped(recipe: Recipe, folder: Path, workers: Workers) -> None:
    """SIGINT comes to the last of the workers in the 14th step of 30, on its way to the batch."""
    calls = itertools.count(1)

    def interrupted(*arguments: Any, **options: Any) -> Tensor:
        if workers.rank == workers.count - 1 and next(calls) == 14:
            os.kill(os.getpid(), signal.SIGINT)
        return augment(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.train, "augment", interrupted)
        with pytest.raises(KeyboardInterrupt, match="interrupted after step 14 of 30"):
            started(recipe, folder, workers)


def seen(folder: Path, workers: Workers) -> list[list[int]]:
    """Of each step, the images that this worker's network was given."""
    numbered = SHAPES.images.copy()
    numbered[:] = np.arange(len(SHAPES))[:, None, None, None]
    steps: list[list[int]] = []
    forward = Preprocess.forward

    def noted(preprocess: Preprocess, pixels: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            steps.append(pixels[:, 0, 0, 0].tolist())
        return forward(preprocess, pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Preprocess, "forward", noted)
        dataset = Dataset(numbered, SHAPES.labels, SHAPES.classes)
        started(replace(RECIPES["linear"], epochs=2, batch_size=9), folder, workers, dataset)
    return steps


def of_the_first(workers: Workers) -> list[Tensor]:
    """What a network of fixed features has after each worker learned others."""
    net = build("bovw", 3, (3, 16, 16))
    for tensor in net.state_dict().values():
        tensor.fill_(1 + workers.rank)
    workers.take_the_firsts(net)
    return [*net.state_dict().values()]


def everything(folder: Path, workers: Workers) -> None:
    for name, recipe in RECIPES_IN_DOUBLE.items():
        started(recipe, folder / name, workers)
    stopped(MUON, folder / "stopped", workers)
    torch.save(seen(folder / "seen", workers), folder / f"seen by {workers.rank}.pt")
    torch.save(of_the_first(workers), folder / f"of the first at {workers.rank}.pt")


if __name__ == "__main__":
    with join(CPU) as joined:
        assert joined != ALONE
        everything(Path(sys.argv[1]), joined)
        # What one process has begun.
        started(MUON, Path(sys.argv[2]), joined)
