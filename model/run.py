"""A run: one training on disk, `checkpoint.pt` and `run.json`. Written by `train`, read by `evaluate` and `export`."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from model.nets import build
from model.nets.preprocess import Preprocess
from model.recipe import Recipe, read_recipe


class RunError(Exception):
    """A run folder cannot be used, or a run cannot go on; the message says why."""


@dataclass(frozen=True)
class Run:
    """A trained (or half-trained) network.

    Attributes:
        net: the network, in evaluation mode, on the CPU: normalised (N, 3, H, W) to logits.
        preprocess: uint8 (N, H, W, 3) pixels to what `net` takes.
        info: `run.json`: recipe, classes, image size, normalisation, command, results.
    """

    folder: Path
    net: nn.Module
    preprocess: Preprocess
    info: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.info["classes"])

    @property
    def image_size(self) -> int:
        return int(self.info["image_size"])

    @property
    def recipe(self) -> Recipe:
        return Recipe(**self.info["recipe"])

    def metrics(self) -> list[dict[str, float]]:
        """The lines of `metrics.jsonl`, one an epoch; none where the file is missing."""
        path = self.folder / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def training_time(self) -> str:
        """What its complete epochs took, evaluations left out: `23 min 10 s`."""
        metrics = self.metrics()
        seconds = metrics[-1]["seconds"] if metrics else 0.0
        return "{} min {} s".format(*divmod(round(seconds), 60)) if seconds >= 60 else f"{seconds:.1f} s"


def load_run(folder: Path) -> Run:
    """Load a run's network for evaluation.

    Raises:
        RunError: the folder holds no readable run.
    """
    info = read_info(folder)
    try:
        state = torch.load(folder / "checkpoint.pt", map_location="cpu", weights_only=True)
        size = info["image_size"]
        net = build(info["recipe"]["net"], len(info["classes"]), (3, size, size))
        net.load_state_dict(state["net"])
        return Run(folder, net.eval(), Preprocess(info["mean"], info["std"]), info)
    except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise RunError(f"{folder / 'checkpoint.pt'}: cannot be loaded: {_one_line(error)}") from error


def read_info(folder: Path) -> dict[str, Any]:
    """Read `run.json`, its recipe completed where it is an old one.

    Raises:
        RunError: there is none, or it is no run's.
    """
    try:
        info = json.loads((folder / "run.json").read_text())
        info["recipe"] = asdict(read_recipe(info["recipe"]))
    except OSError as error:
        raise RunError(f"{folder}: not a run folder (one that `train` wrote: run.json and checkpoint.pt)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / 'run.json'}: not the record of a run: {error!r}") from error
    return dict(info)


def save(
    folder: Path,
    info: dict[str, Any],
    step: int,
    seconds: float,
    net: nn.Module,
    average: nn.Module,
    optimizers: list[Optimizer],
) -> None:
    """Write `checkpoint.pt` and `run.json`."""
    state = {
        "step": step,
        "seconds": seconds,
        "net": net.state_dict(),
        "average": average.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    with _replacing(folder / "checkpoint.pt") as path:
        torch.save(state, path)
    with _replacing(folder / "run.json") as path:
        path.write_text(json.dumps(info, indent=2) + "\n")


def restore(
    folder: Path,
    info: dict[str, Any],
    net: nn.Module,
    average: nn.Module,
    optimizers: list[Optimizer],
    device: torch.device,
) -> tuple[dict[str, Any], int, float]:
    """Load a checkpoint into `net`, `average` and `optimizers`: (the run's own info, steps done, seconds spent).

    Raises:
        RunError: the checkpoint belongs to other data or another recipe than `info` tells of.
    """
    written = read_info(folder)
    for key in ("recipe", "classes", "image_size", "mean", "std", "training_images"):
        if written[key] != info[key]:
            raise RunError(
                f"{folder}: its {key} is {written[key]}, but would now be {info[key]}: has the data changed?"
            )
    try:
        state = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        for optimizer, optimizer_state in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise RunError(f"{folder / 'checkpoint.pt'}: cannot be loaded: {_one_line(error)}") from error
    return info | written, state["step"], state["seconds"]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Write beside, then rename: a crash leaves the old file or the new one, never half of one."""
    beside = path.with_name(path.name + ".new")
    yield beside
    os.replace(beside, path)
