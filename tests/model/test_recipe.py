from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from model.nets import NETS, build
from model.optimizers import OPTIMIZERS
from model.recipe import RECIPES, USUAL, Recipe, RecipeError, read_recipe, recipe_for, with_loss, with_optimizer

NEW = ("optimizer", "schedule", "loss", "l1", "l2")


def test_every_network_has_a_recipe() -> None:
    assert set(RECIPES) == {*NETS, "conv:"}
    assert all(recipe_for(name).net == name for name in NETS)
    specification = "conv:N=1,M=1,filters=8,F=3"
    assert recipe_for(specification) == replace(RECIPES["conv:"], net=specification)
    build(recipe_for(specification).net, 10, (3, 32, 32))


def test_the_recipes_from_before_there_was_a_choice_are_as_they_were() -> None:
    lenet = Recipe(
        net="lenet",
        epochs=20,
        averaged_epochs=0,
        seed=0,
        batch_size=128,
        optimizer="nesterov",
        lr=0.03,
        muon_lr=None,
        momentum=0.9,
        schedule="linear",
        loss="softmax",
        l1=0.0,
        l2=5e-4,
        label_smoothing=0.0,
        flip=True,
        shift=2,
        cutout=0,
        cutmix=0.0,
    )
    fastcnn = Recipe(
        net="fastcnn",
        epochs=22,
        averaged_epochs=6,
        seed=0,
        batch_size=1000,
        optimizer="muon",
        lr=0.5,
        muon_lr=0.17,
        momentum=0.7,
        schedule="linear",
        loss="softmax",
        l1=0.0,
        l2=0.0,
        label_smoothing=0.1,
        flip=True,
        shift=2,
        cutout=8,
        cutmix=0.0,
    )
    for expected in (lenet, fastcnn):
        assert RECIPES[expected.net] == expected
        old = {key: value for key, value in asdict(expected).items() if key not in NEW}
        assert read_recipe(old) == expected


def test_a_record_is_read_as_it_was_written() -> None:
    recipe = replace(recipe_for("linear"), loss="svm", l1=0.5)
    assert read_recipe(asdict(recipe)) == recipe


@pytest.mark.parametrize("missing", ["epochs", "schedule", "l2"])
def test_half_a_record_is_refused(missing: str) -> None:
    record = asdict(recipe_for("linear"))
    del record[missing]
    with pytest.raises(TypeError, match=missing):
        read_recipe(record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "newton"}, "optimizer 'newton': must be one of sgd, momentum, nesterov, rmsprop"),
        ({"schedule": "up"}, "schedule 'up': must be one of constant, linear, step, cosine, one-cycle"),
        ({"loss": "hinge"}, "loss 'hinge': must be one of softmax, svm"),
        ({"l2": 0.1}, "l2 0.1: optimizer muon has a decay of its own"),
        ({"loss": "svm"}, "label_smoothing 0.1: is for loss softmax"),
    ],
)
def test_contradictions_are_refused(change: dict[str, str | float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        replace(RECIPES["fastcnn"], **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_another_optimizer_comes_with_what_is_usual_for_it(optimizer: str) -> None:
    recipe = with_optimizer(recipe_for("resnet18"), optimizer)
    assert (recipe.optimizer, recipe.lr, recipe.l2) == (optimizer, USUAL[optimizer]["lr"], USUAL[optimizer]["l2"])
    assert recipe == replace(recipe_for("resnet18"), optimizer=optimizer, **USUAL[optimizer])
    assert bool(recipe.momentum) == (optimizer in ("momentum", "nesterov", "muon"))


def test_another_loss_comes_without_smoothed_labels() -> None:
    assert with_loss(recipe_for("fastcnn"), "svm") == replace(recipe_for("fastcnn"), loss="svm", label_smoothing=0.0)
    assert with_loss(recipe_for("fastcnn"), "softmax") == recipe_for("fastcnn")
