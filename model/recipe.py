"""What a run depends on, besides the data, and the recipe that each network has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from model.losses import LOSSES
from model.nets.pattern import PREFIX
from model.optimizers import OPTIMIZERS
from model.schedules import SCHEDULES


class RecipeError(ValueError):
    """A recipe asks for something that there is not; the message says what there is."""


@dataclass(frozen=True)
class Recipe:
    """What a run depends on, besides the data. Stored with the checkpoint, so a resumed run cannot drift.

    Attributes:
        net: a name or a specification that `model.nets.build` knows.
        averaged_epochs: epochs after those, whose weights are averaged.
        lr: learning rate at the schedule's highest point; Muon's is for filters alone.
        momentum: of the optimizers that have one, 0 for the others.
        loss: `softmax` (cross-entropy) or `svm`.
        l1: the loss gets this times the sum of absolute weights, biases left out.
        l2: every step gets this times the weights added to their gradients; decoupled from them in AdamW
            (Loshchilov & Hutter 2017); Muon has a decay of its own.
        label_smoothing: share of the label that is spread over all classes; for `softmax` alone.
        flip: mirror images in every other epoch.
        shift: the largest, in pixels.
        cutout: side in pixels of the square cut out; 0 for none.
        cutmix: share of images that get a part of another one, 0 to 1.

    Raises:
        RecipeError: no such optimizer, schedule or loss, or two parts of it contradict each other.
    """

    net: str
    epochs: int
    averaged_epochs: int
    seed: int
    batch_size: int
    optimizer: str
    lr: float
    muon_lr: float | None
    momentum: float
    schedule: str
    loss: str
    l1: float
    l2: float
    label_smoothing: float
    flip: bool
    shift: int
    cutout: int
    cutmix: float

    def __post_init__(self) -> None:
        for part, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("loss", LOSSES)):
            if getattr(self, part) not in known:
                raise RecipeError(f"{part} {getattr(self, part)!r}: must be one of {', '.join(known)}")
        if self.optimizer == "muon" and self.l2:
            raise RecipeError(f"l2 {self.l2:g}: optimizer muon has a decay of its own: leave l2 at 0")
        if self.loss == "svm" and self.label_smoothing:
            raise RecipeError(f"label_smoothing {self.label_smoothing:g}: is for loss softmax, leave it at 0 with svm")


def read_recipe(record: Mapping[str, Any]) -> Recipe:
    """A recipe from `run.json`; one that was written before there were optimizers to choose from is completed.

    Raises:
        TypeError: a field is missing, or there is one too many.
        RecipeError: see `Recipe`.
    """
    with_muon = record.get("muon_lr") is not None
    of_old = {
        "optimizer": "muon" if with_muon else "nesterov",
        "schedule": "linear",
        "loss": "softmax",
        "l1": 0.0,
        "l2": 0.0 if with_muon else 5e-4,
    }
    return Recipe(**(record if "optimizer" in record else {**of_old, **record}))


def recipe_for(net: str) -> Recipe:
    """The recipe that a network, or a specification, has of its own."""
    return replace(RECIPES[PREFIX if net.startswith(PREFIX) else net], net=net)


def fitted(recipe: Recipe, images: int) -> Recipe:
    """The recipe with smaller batches where there are few images: they would otherwise be a single step an epoch."""
    return replace(recipe, batch_size=min(recipe.batch_size, max(8, images // 10)))


def with_optimizer(recipe: Recipe, optimizer: str) -> Recipe:
    """The recipe with another optimizer, and with learning rate, momentum and decay that are usual for that one."""
    return replace(recipe, optimizer=optimizer, **USUAL[optimizer])


def with_loss(recipe: Recipe, loss: str) -> Recipe:
    """The recipe with another loss; smoothed labels are for `softmax` alone."""
    return replace(recipe, loss=loss, label_smoothing=recipe.label_smoothing if loss == "softmax" else 0.0)


USUAL: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05, "muon_lr": None, "momentum": 0.0, "l2": 5e-4},
    "momentum": {"lr": 0.01, "muon_lr": None, "momentum": 0.9, "l2": 5e-4},
    "nesterov": {"lr": 0.01, "muon_lr": None, "momentum": 0.9, "l2": 5e-4},
    "rmsprop": {"lr": 5e-4, "muon_lr": None, "momentum": 0.0, "l2": 0.0},
    "adam": {"lr": 1e-3, "muon_lr": None, "momentum": 0.0, "l2": 0.0},
    "adamw": {"lr": 1e-3, "muon_lr": None, "momentum": 0.0, "l2": 0.01},
    "adadelta": {"lr": 1.0, "muon_lr": None, "momentum": 0.0, "l2": 1e-4},
    "muon": {"lr": 0.5, "muon_lr": 0.17, "momentum": 0.7, "l2": 0.0},
}
"""What goes with each optimizer where a recipe is given another one than its own."""

_PAPERS = Recipe(
    net="",
    epochs=90,
    averaged_epochs=0,
    seed=0,
    batch_size=128,
    optimizer="momentum",
    lr=0.01,
    muon_lr=None,
    momentum=0.9,
    schedule="step",
    loss="softmax",
    l1=0.0,
    l2=5e-4,
    label_smoothing=0.0,
    flip=True,
    shift=4,
    cutout=0,
    cutmix=0.0,
)
"""AlexNet's: momentum 0.9, decay 0.0005, batches of 128, the rate divided by 10. The others differ from it as shown."""

_PIXELS = replace(_PAPERS, epochs=20, batch_size=200, schedule="linear", l2=1e-3, flip=False, shift=0)
"""For scores of the pixels themselves, where a template per class has no use for shifted images."""

RECIPES = {
    recipe.net: recipe
    for recipe in (
        replace(_PIXELS, net="linear", optimizer="sgd", lr=0.01, momentum=0.0),
        replace(_PIXELS, net="two_layer", epochs=30),
        replace(_PIXELS, net="colour_histogram"),
        replace(_PIXELS, net="hog", lr=0.003, l2=1e-4),
        replace(_PIXELS, net="bovw", lr=0.003),
        replace(_PIXELS, net="features", lr=0.003, l2=1e-2),
        # He et al.'s first weights and Adam: any N, M and K learns, without a rate of its own.
        replace(
            _PAPERS, net=PREFIX, epochs=20, optimizer="adam", lr=1e-3, momentum=0.0, schedule="cosine", l2=0.0, shift=2
        ),
        replace(_PAPERS, net="neocognitron", epochs=20, schedule="cosine", shift=2),
        replace(_PAPERS, net="lenet", epochs=20, optimizer="nesterov", lr=0.03, schedule="linear", shift=2),
        # The demo's own: batches of 4, Adadelta without a schedule, flips and shifts by 2 pixels. ConvNetJS divides its
        # decay of 0.0001 by the batch size, and has an epsilon of 1e-8 in Adadelta, which makes steps a tenth as long
        # as the paper's 1e-6, which is here: at a rate of 1, batches of 4 got stuck at 43 % of the training images.
        replace(
            _PAPERS,
            net="convnetjs",
            epochs=20,
            batch_size=4,
            optimizer="adadelta",
            lr=0.1,
            momentum=0.0,
            schedule="constant",
            l2=2.5e-5,
            shift=2,
        ),
        replace(_PAPERS, net="alexnet"),
        replace(_PAPERS, net="alexnet_cifar"),
        replace(_PAPERS, net="vgg16", epochs=74, batch_size=256),
        # The paper averages weights, too; with batch normalisation, a higher rate than its own is stable.
        replace(_PAPERS, net="googlenet", epochs=55, averaged_epochs=5, lr=0.05, schedule="linear", l2=1e-4),
        replace(_PAPERS, net="resnet18", batch_size=128, lr=0.1, l2=1e-4),
        replace(_PAPERS, net="resnet50", batch_size=128, lr=0.1, l2=1e-4),
        replace(
            _PAPERS,
            net="fastcnn",
            epochs=22,
            averaged_epochs=6,
            batch_size=1000,
            optimizer="muon",
            lr=0.5,
            muon_lr=0.17,
            momentum=0.7,
            schedule="linear",
            l2=0.0,
            label_smoothing=0.1,
            shift=2,
            cutout=8,
        ),
    )
}
"""By network; all specifications share the one of their prefix."""
