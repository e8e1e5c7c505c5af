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
from torch import Tensor, nn
from torch.optim import Optimizer

import model.train
from model.data import Dataset, augment, synthetic
from model.nets.features import OnFeatures
from model.nets.preprocess import Preprocess
from model.optimizers import optimizers_for
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


def fixed_features(folder: Path, workers: Workers) -> dict[str, Tensor]:
    """What this worker's network has of them, where each one has learned others: they are filled with its number."""
    nets: list[nn.Module] = []

    def learn(net: OnFeatures, *_: object) -> None:
        for name, tensor in net.state_dict().items():
            if not name.startswith("head."):
                tensor.fill_(1 + workers.rank)

    def noted(net: nn.Module, *given: Any, **options: Any) -> list[Optimizer]:
        nets.append(net)
        return optimizers_for(net, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnFeatures, "prepare", learn)
        patch.setattr(model.train, "optimizers_for", noted)
        started(replace(RECIPES["bovw"], epochs=1, batch_size=9), folder, workers)
    return {name: tensor for name, tensor in nets[0].state_dict().items() if not name.startswith("head.")}


def everything(folder: Path, workers: Workers) -> None:
    for name, recipe in RECIPES_IN_DOUBLE.items():
        started(recipe, folder / name, workers)
    stopped(MUON, folder / "stopped", workers)
    torch.save(seen(folder / "seen", workers), folder / f"seen by {workers.rank}.pt")
    torch.save(fixed_features(folder / "features", workers), folder / f"features of {workers.rank}.pt")


if __name__ == "__main__":
    with join(CPU) as joined:
        assert joined != ALONE
        everything(Path(sys.argv[1]), joined)
        # What one process has begun.
        started(MUON, Path(sys.argv[2]), joined)
