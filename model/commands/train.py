"""The command `train`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from model.commands.arguments import DATA, Commands, at_least, net, not_negative, positive, share
from model.data import DataError, hold_out, load
from model.device import device_for
from model.losses import LOSSES
from model.nets import NETS
from model.optimizers import OPTIMIZERS
from model.recipe import Recipe, fitted, read_recipe, recipe_for, with_loss, with_optimizer
from model.run import RunError, read_info
from model.schedules import SCHEDULES
from model.train import train
from model.workers import join

CHOSEN = (
    *("epochs", "averaged_epochs", "batch_size", "seed"),
    *("optimizer", "lr", "schedule", "loss", "l1", "l2"),
    *("cutout", "cutmix"),
)
"""Those parts of a recipe that have a flag."""


def add(commands: Commands) -> None:
    command = commands.add_parser("train", help="train a network on labelled images")
    command.add_argument("data", nargs="?", help=f"{DATA}; not needed with --resume")
    command.add_argument("--run", type=Path, required=True, help="folder for the checkpoint and the metrics")
    command.add_argument("--resume", action="store_true", help="continue the run in that folder, as it was started")
    command.add_argument(
        "--net",
        type=net,
        help=f"{', '.join(NETS)}, or a specification conv:N=…,M=…,filters=…,F=… (docs/lecture.md); default: fastcnn",
    )
    command.add_argument("--epochs", type=at_least(1), help="default: the network's recipe's")
    command.add_argument(
        "--averaged-epochs",
        type=at_least(0),
        help="epochs after those, whose weights are averaged; default: the recipe's (fastcnn 6), 0 with --epochs",
    )
    command.add_argument("--batch-size", type=at_least(2), help="default: the recipe's")
    command.add_argument(
        "--optimizer", choices=list(OPTIMIZERS), help="default: the recipe's; another brings its own --lr and --l2"
    )
    command.add_argument(
        "--lr",
        type=positive,
        help="learning rate at its highest, with muon that of the last layer, and the others' in proportion; "
        "default: the recipe's",
    )
    command.add_argument("--schedule", choices=list(SCHEDULES), help="of the learning rate; default: the recipe's")
    command.add_argument("--loss", choices=list(LOSSES), help="default: softmax")
    command.add_argument("--l1", type=not_negative, help="weight of the sum of absolute weights, default: 0")
    command.add_argument("--l2", type=not_negative, help="weight decay; default: the recipe's")
    command.add_argument("--seed", type=at_least(0), help="default: 0")
    command.add_argument(
        "--cutout", type=at_least(0), help="side in pixels of the square cut out; default: the recipe's"
    )
    command.add_argument(
        "--cutmix", type=share, help="share of images that get a part of another one; default: the recipe's"
    )
    command.add_argument("--image-size", type=at_least(1), help="height and width in pixels, default: 32")
    command.add_argument("--hold-out", type=at_least(0), help="training images kept apart to report accuracy on")
    command.add_argument(
        "--skip-broken", action="store_true", default=None, help="leave out files that are no image, and count them"
    )
    command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    command.add_argument("--tensorboard", action="store_true", help="write TensorBoard event files too")
    command.set_defaults(run_command=_train)


def _train(options: argparse.Namespace) -> None:
    folder = options.run
    if options.resume != (folder / "checkpoint.pt").is_file():
        raise RunError(
            f"{folder}: no checkpoint to resume"
            if options.resume
            else f"{folder}: holds a run already; --resume continues it"
        )
    recipe = _continue_as_started(options) if options.resume else _recipe(options)
    if options.data is None:
        raise DataError("no data given: an image folder, a folder of CIFAR-10's own files, or 'synthetic'")
    dataset = load(options.data, "train", image_size=options.image_size or 32, skip_broken=bool(options.skip_broken))
    skipped, held_out = dataset.skipped, None
    if options.hold_out:
        dataset, held_out = hold_out(dataset, options.hold_out, recipe.seed)
    if options.batch_size is None:
        recipe = fitted(recipe, len(dataset))
    device = device_for(options.device)
    epochs = recipe.epochs + recipe.averaged_epochs
    with join(device) as workers:
        if workers.first:
            if skipped:
                print(f"skipped {skipped} broken files")
            print(
                f"{len(dataset)} images of {len(dataset.classes)} classes, {recipe.net} for {epochs} epochs "
                f"in batches of {recipe.batch_size} on {device.type}"
                + (f", shared by {workers.count} workers" if workers.count > 1 else "")
            )
        run = train(
            dataset,
            held_out,
            recipe,
            folder,
            device=device,
            origin={"command": options.command, "data": options.data, "skip_broken": bool(options.skip_broken)},
            tensorboard=options.tensorboard or (folder / "tensorboard").is_dir(),
            workers=workers,
        )
    if workers.first:
        print(f"trained in {run.training_time()}")


def _recipe(options: argparse.Namespace) -> Recipe:
    recipe = recipe_for(options.net or "fastcnn")
    if options.optimizer not in (None, recipe.optimizer):
        recipe = with_optimizer(recipe, options.optimizer)
    given = {key: getattr(options, key) for key in CHOSEN if getattr(options, key) is not None}
    if options.epochs is not None:
        given.setdefault("averaged_epochs", 0)
    if options.lr is not None and recipe.muon_lr is not None:
        given["muon_lr"] = recipe.muon_lr * options.lr / recipe.lr
    if options.loss is not None:
        recipe = with_loss(recipe, options.loss)
    return replace(recipe, **given)


def _continue_as_started(options: argparse.Namespace) -> Recipe:
    """Fill in the options that the run was started with, and refuse others."""
    info = read_info(options.run)
    recipe = read_recipe(info["recipe"])
    started = {key: getattr(recipe, key) for key in ("net", *CHOSEN)} | {
        "data": info["data"],
        "image_size": info["image_size"],
        "hold_out": info["held_out_images"],
        "skip_broken": info.get("skip_broken", False),
    }
    for key, value in started.items():
        given = getattr(options, key)
        if given is not None and given != value:
            flag = "data" if key == "data" else "--" + key.replace("_", "-")
            raise RunError(
                f"{options.run}: was started with {flag} {value}, not {given}: leave it out to resume, "
                "or start a run in another folder"
            )
        setattr(options, key, value)
    return recipe
