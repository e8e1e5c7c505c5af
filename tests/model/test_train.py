from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.swa_utils import AveragedModel

import model.run
import model.train
from model.data import Dataset, augment, hold_out
from model.losses import LOSSES
from model.muon import Muon
from model.nets import build
from model.nets.arithmetic import NetError
from model.optimizers import OPTIMIZERS, optimizers_for
from model.recipe import RECIPES, Recipe, RecipeError, with_optimizer
from model.run import Run, RunError
from model.schedules import SCHEDULES
from model.train import train

CPU = torch.device("cpu")
ORIGIN = {"command": "python -m model train synthetic", "data": "synthetic"}
# 96 images make 10 steps of 9 an epoch.
LENET = replace(RECIPES["lenet"], epochs=3, batch_size=9)
FASTCNN = replace(RECIPES["fastcnn"], epochs=1, averaged_epochs=1, batch_size=9)
FEATURES = replace(RECIPES["features"], epochs=1, batch_size=9)
# Its dropout draws numbers in every step.
DROPOUT = replace(RECIPES["alexnet_cifar"], epochs=1, batch_size=9)


def start(dataset: Dataset, recipe: Recipe, folder: Path, **options: Any) -> Run:
    return train(dataset, options.pop("held_out", None), recipe, folder, device=CPU, origin=ORIGIN, **options)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.net.state_dict()


def same(first: Run, second: Run) -> bool:
    return all(torch.equal(weights(first)[name], weights(second)[name]) for name in weights(first))


def epochs(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_seed_decides_the_weights(shapes: Dataset, tmp_path: Path) -> None:
    recipe = replace(LENET, epochs=1)
    first = start(shapes, recipe, tmp_path / "1")
    assert same(first, start(shapes, recipe, tmp_path / "2"))
    assert not same(first, start(shapes, replace(recipe, seed=1), tmp_path / "3"))


def test_training_learns(fastcnn_run: Run) -> None:
    lines = fastcnn_run.metrics()
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert fastcnn_run.info["results"] == lines[-1]


def test_the_result_is_the_mean_of_the_last_epochs_weights(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    update = AveragedModel.update_parameters

    def note(average: AveragedModel, net: torch.nn.Module) -> None:
        seen.append(net.get_parameter("head.weight").detach().clone())
        update(average, net)

    monkeypatch.setattr(AveragedModel, "update_parameters", note)
    run = start(shapes, FASTCNN, tmp_path)
    assert len(seen) == 10
    torch.testing.assert_close(weights(run)["head.weight"], torch.stack(seen).mean(0))
    # Statistics of the averaged weights, by one pass over the images; the last 6 are no whole batch.
    assert weights(run)["groups.1.2.num_batches_tracked"] == 10


def test_the_statistics_of_averaged_weights_are_part_of_the_training_time(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def later() -> float:
        nonlocal now
        now += 1e-6
        return now

    def long(*_: object) -> None:
        nonlocal now
        now += 5

    monkeypatch.setattr(time, "perf_counter", later)
    monkeypatch.setattr(model.train, "update_bn", long)
    assert start(shapes, FASTCNN, tmp_path).metrics()[-1]["seconds"] == 5


def test_one_image_that_is_left_over_gives_no_statistics(shapes: Dataset, tmp_path: Path) -> None:
    """GoogLeNet's last map is 1x1 here: of one image, there is no variance."""
    recipe = replace(RECIPES["googlenet"], epochs=1, averaged_epochs=1, batch_size=3)
    run = start(shapes.subset(np.arange(7)), recipe, tmp_path)
    tracked = {int(value) for name, value in weights(run).items() if name.endswith("num_batches_tracked")}
    assert tracked == {2}


def test_muon_decays_by_the_batches_that_there_are(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def noted(*arguments: Any, **options: Any) -> list[Optimizer]:
        sizes.append(options["batch_size"])
        return optimizers_for(*arguments, **options)

    monkeypatch.setattr(model.train, "optimizers_for", noted)
    start(shapes.subset(np.arange(12)), replace(FASTCNN, averaged_epochs=0, batch_size=1000), tmp_path)
    assert sizes == [12]


def interrupted(function: Callable[..., Any], call: int, number: int = signal.SIGINT) -> Callable[..., Any]:
    """The function, with a signal arriving in its n-th call."""
    calls = itertools.count(1)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return function(*arguments, **options)

    return wrapped


INTERRUPTIONS = {
    "augmentation": (model.train, "augment", 14, LENET, 14),
    "first step": (model.train, "augment", 1, LENET, 1),
    "last step of an epoch": (model.train, "augment", 10, LENET, 10),
    "evaluation": (model.train, "predict", 1, LENET, 10),
    "saving": (torch, "save", 1, LENET, 10),
    "SGD": (SGD, "step", 7, LENET, 7),
    "Muon": (Muon, "step", 5, FASTCNN, 5),
    "features": (model.train, "augment", 4, FEATURES, 4),
    "dropout": (model.train, "augment", 4, DROPOUT, 4),
    **{
        f"{optimizer}, {schedule}": (
            model.train,
            "augment",
            14,
            replace(with_optimizer(LENET, optimizer), schedule=schedule, epochs=1, averaged_epochs=1),
            14,
        )
        for optimizer, schedule in zip(OPTIMIZERS, itertools.cycle(SCHEDULES), strict=False)
    },
}


@pytest.mark.parametrize("where", INTERRUPTIONS)
def test_interrupted_and_resumed_is_as_straight(
    where: str, shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, call, recipe, steps_done = INTERRUPTIONS[where]
    before = signal.getsignal(signal.SIGINT)
    dataset, held_out = hold_out(shapes, 6, seed=0)
    straight = start(dataset, recipe, tmp_path / "straight", held_out=held_out)

    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted(getattr(owner, name), call))
        with pytest.raises(KeyboardInterrupt, match=f"after step {steps_done} of .* train --resume --run .*stopped"):
            start(dataset, recipe, stopped, held_out=held_out)
    assert torch.load(stopped / "checkpoint.pt", weights_only=True)["step"] == steps_done
    assert signal.getsignal(signal.SIGINT) is before
    assert len(epochs(stopped)) == steps_done // 10

    assert same(start(dataset, recipe, stopped, held_out=held_out), straight)
    assert [line["epoch"] for line in epochs(stopped)] == list(range(1, recipe.epochs + recipe.averaged_epochs + 1))
    last, expected = epochs(stopped)[-1], epochs(tmp_path / "straight")[-1]
    assert last["held_out_accuracy"] == expected["held_out_accuracy"]


def test_a_terminated_run_stops_in_the_same_way(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(model.train, "augment", interrupted(augment, 4, signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt, match="after step 4 of 30"):
        start(shapes, LENET, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_from_before_there_was_a_choice_of_optimizers_goes_on(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for recipe in (replace(LENET, epochs=2), FASTCNN):
        straight = start(shapes, recipe, tmp_path / recipe.net / "straight")
        stopped = tmp_path / recipe.net / "stopped"
        with monkeypatch.context() as patch:
            patch.setattr(model.train, "augment", interrupted(augment, 4))
            with pytest.raises(KeyboardInterrupt):
                start(shapes, recipe, stopped)
        info = json.loads((stopped / "run.json").read_text())
        for field in ("optimizer", "schedule", "loss", "l1", "l2"):
            del info["recipe"][field]
        (stopped / "run.json").write_text(json.dumps(info))
        assert same(start(shapes, recipe, stopped), straight)
        assert json.loads((stopped / "run.json").read_text())["recipe"]["optimizer"] == recipe.optimizer


def test_a_compiled_network_trains_the_same(shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, but without the compiler that generates code."""
    recipe = replace(LENET, epochs=1, averaged_epochs=1)
    plain = start(shapes, recipe, tmp_path / "plain")
    monkeypatch.setattr(model.train, "COMPILED_ON", {"cpu"})
    compile_ = torch.compile
    compiled: list[torch.nn.Module] = []

    def without_code(net: torch.nn.Module) -> Any:
        compiled.append(net)
        return compile_(net, backend="aot_eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", without_code)
    fast = start(shapes, recipe, tmp_path / "compiled")
    assert len(compiled) == 1
    for name, tensor in weights(plain).items():
        torch.testing.assert_close(weights(fast)[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_layer_trained_on_features_is_a_classifier_of_pixels(loss: str, shapes: Dataset, tmp_path: Path) -> None:
    """Features are computed once for training, and for every image that is asked about."""
    run = start(shapes, replace(FEATURES, epochs=10, loss=loss), tmp_path, held_out=shapes)
    last = run.metrics()[-1]
    assert last["loss"] < run.metrics()[0]["loss"]
    assert last["held_out_accuracy"] == pytest.approx(last["train_accuracy"], abs=0.05)
    assert last["train_accuracy"] > 0.9
    # Features are of pixels from 0 to 255.
    pixels = torch.from_numpy(shapes.images[:2])
    assert torch.equal(run.preprocess(pixels), pixels.permute(0, 3, 1, 2).float())


def test_another_seed_learns_other_words(shapes: Dataset, tmp_path: Path) -> None:
    recipe = replace(RECIPES["bovw"], epochs=1, batch_size=9)
    first, again, other = (
        weights(start(shapes, replace(recipe, seed=seed), tmp_path / str(number)))["features.0.words.weight"]
        for number, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("change", [{"cutout": 4}, {"cutmix": 0.5}])
def test_images_whose_features_are_fixed_are_not_changed(
    change: dict[str, Any], shapes: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"features: .* leave cutout and cutmix at 0"):
        start(shapes, replace(FEATURES, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_linear_classifier_learns_with_either_loss(loss: str, shapes: Dataset, tmp_path: Path) -> None:
    run = start(shapes, replace(RECIPES["linear"], epochs=5, batch_size=9, lr=0.001, loss=loss), tmp_path)
    first, last = run.metrics()[0], run.metrics()[-1]
    assert last["loss"] < first["loss"]
    assert last["train_accuracy"] > 0.6


@pytest.mark.parametrize(("penalty", "weight"), [("l1", 0.1), ("l2", 10.0)])
def test_a_penalty_makes_the_weights_smaller(penalty: str, weight: float, shapes: Dataset, tmp_path: Path) -> None:
    recipe = replace(RECIPES["linear"], epochs=3, batch_size=9, lr=0.001, l2=0.0)
    free = start(shapes, recipe, tmp_path / "free")
    held = start(shapes, replace(recipe, **{penalty: weight}), tmp_path / "held")  # type: ignore[arg-type]
    norms = [weights(run)["1.weight"].abs().sum() for run in (free, held)]
    assert norms[1] < 0.99 * norms[0]


def test_the_reported_loss_has_the_l1_penalty_in_it(shapes: Dataset, tmp_path: Path) -> None:
    recipe = replace(RECIPES["two_layer"], epochs=1, batch_size=96, flip=False)
    free = start(shapes, recipe, tmp_path / "free").metrics()[0]["loss"]
    held = start(shapes, replace(recipe, l1=0.01), tmp_path / "held").metrics()[0]["loss"]
    torch.manual_seed(recipe.seed)
    net = build("two_layer", 3, (3, 16, 16))
    penalty = sum(p.abs().sum().item() for name, p in net.named_parameters() if name.endswith("weight"))
    assert held - free == pytest.approx(0.01 * penalty, abs=2e-4)


def test_a_network_that_does_not_fit_leaves_no_folder(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(NetError, match="vgg16: an input of 3x16x16 is too small"):
        start(shapes, RECIPES["vgg16"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_interruption_at_the_very_end_changes_nothing(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.train, "augment", interrupted(augment, 10))
    run = start(shapes, replace(LENET, epochs=1), tmp_path)
    assert len(run.metrics()) == 1


def test_a_run_killed_after_its_log_line_does_not_repeat_the_line(
    shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def dies_on_second_call(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit
        model.run.save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(model.train, "save", dies_on_second_call)
        with pytest.raises(SystemExit):
            start(shapes, LENET, tmp_path)
    assert len(epochs(tmp_path)) == 2
    start(shapes, LENET, tmp_path)
    assert [line["epoch"] for line in epochs(tmp_path)] == [1, 2, 3]


def test_the_record_of_a_run(shapes: Dataset, tmp_path: Path) -> None:
    dataset, held_out = hold_out(shapes, 16, seed=0)
    run = start(dataset, replace(LENET, epochs=1), tmp_path, held_out=held_out)
    assert run.recipe == replace(LENET, epochs=1)
    assert run.classes == ("disc", "square", "cross")
    assert run.image_size == 16
    assert (run.info["training_images"], run.info["held_out_images"]) == (80, 16)
    assert run.info["command"] == ORIGIN["command"]
    assert run.info["mean"] == pytest.approx((dataset.images / 255).mean((0, 1, 2)), abs=1e-4)
    assert run.info["std"] == pytest.approx((dataset.images / 255).std((0, 1, 2)), abs=1e-4)
    assert set(epochs(tmp_path)[0]) == {
        "epoch",
        "step",
        "loss",
        "train_accuracy",
        "images_per_s",
        "seconds",
        "held_out_accuracy",
    }


def test_tensorboard_files_can_be_read(shapes: Dataset, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    start(shapes, LENET, tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(scalar.step, round(scalar.value, 4)) for scalar in events.Scalars("loss")]
    assert losses == [(line["step"], line["loss"]) for line in epochs(tmp_path)]


def test_tensorboard_sees_an_epoch_as_soon_as_it_is_over(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with model.train.MetricsLog(tmp_path, 0, tensorboard=True) as log:
        for step in (10, 20):
            log.write({"step": step, "loss": 0.5, "held_out_accuracy": 0.25})
            events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
            assert [scalar.step for scalar in events.Scalars("held_out_accuracy")][-1] == step


def test_a_loss_that_is_not_finite_stops_the_run(shapes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d: the learning rate is too high"):
        start(shapes, replace(LENET, lr=1e20), tmp_path)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_other_data_cannot_continue_a_run(shapes: Dataset, tmp_path: Path) -> None:
    start(shapes, replace(LENET, epochs=1), tmp_path)
    fewer, _ = hold_out(shapes, 1, seed=0)
    with pytest.raises(RunError, match="has the data changed"):
        start(fewer, replace(LENET, epochs=1), tmp_path)
    with pytest.raises(RunError, match="its recipe is"):
        start(shapes, replace(LENET, epochs=2), tmp_path)
