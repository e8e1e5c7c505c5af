"""Command line of the training package: `python -m model`, or `fovea-model`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch

from model.answers import answers
from model.arguments import at_least, net, not_negative, positive, row_epochs, shape, share
from model.committee import CombineError, combine
from model.data import SPLITS, DataError, Dataset, hold_out, load, load_classes
from model.evaluate import predict_onnx, report, table
from model.export import Export, ExportError, export
from model.losses import LOSSES
from model.neighbours import neighbours
from model.neighbours import table as neighbours_table
from model.nets import NETS
from model.nets.arithmetic import NetError
from model.optimizers import OPTIMIZERS, OptimizerError
from model.pictures.figure import PictureError
from model.recipe import Recipe, RecipeError, fitted, read_recipe, recipe_for, with_optimizer
from model.repository import RepositoryError, newest_version, read_signature
from model.run import Run, RunError, load_run, read_info
from model.schedules import SCHEDULES
from model.summary import summarise
from model.summary import table as summary_table
from model.table import as_markdown, make_row, planned_epochs, read_rows, write_rows
from model.train import train
from model.variants import KINDS, PRECISIONS
from model.variants.kind import VariantError
from model.variants.make import make_variant
from model.visualize import add_pictures
from model.workers import WorkerError, join, local_rank, program, rank

CHOSEN = (
    *("epochs", "averaged_epochs", "batch_size", "seed"),
    *("optimizer", "lr", "schedule", "loss", "l1", "l2"),
    *("cutout", "cutmix"),
)
"""Those parts of a recipe that have a flag."""

REFUSALS = (
    CombineError,
    DataError,
    ExportError,
    NetError,
    OptimizerError,
    PictureError,
    RecipeError,
    RepositoryError,
    RunError,
    VariantError,
    WorkerError,
)
"""What is told in one line."""


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    other = f"worker {rank()}: " if rank() else ""
    options.command = shlex.join([*program(), *arguments])
    try:
        options.run_command(options)
    except (*REFUSALS, OSError) as error:
        print(f"{other}error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        if not other:
            print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fovea-model", description="Train, evaluate and export image classifiers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = "image folder, folder of CIFAR-10's own files, or 'synthetic'"

    command = commands.add_parser("train", help="train a network on labelled images")
    command.add_argument("data", nargs="?", help=f"{data}; not needed with --resume")
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
        help="epochs after those, whose weights are averaged; default: the recipe's (fastcnn 8), 0 with --epochs",
    )
    command.add_argument("--batch-size", type=at_least(2), help="default: the recipe's")
    command.add_argument(
        "--optimizer", choices=list(OPTIMIZERS), help="default: the recipe's; another brings its own --lr and --l2"
    )
    command.add_argument("--lr", type=positive, help="learning rate at its highest; default: the recipe's")
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

    command = commands.add_parser(
        "evaluate",
        help="accuracy, confusion and calibration of a run or an ONNX file; the neighbours that features find",
    )
    command.add_argument("model", type=Path, help="a run's folder, or a model.onnx in a model repository")
    command.add_argument("data", help=data)
    command.add_argument("--split", choices=["train", "test"], default="test", help="default: %(default)s")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run_command=_evaluate)

    command = commands.add_parser("export", help="publish a run in a model repository, as ONNX")
    command.add_argument("run", type=Path, help="the run's folder")
    command.add_argument("--repository", type=Path, required=True, help="the model repository's folder")
    command.add_argument("--name", required=True, help="the model's name; if it exists, it gets a new version")
    command.add_argument("--data", help="measure the exported file on the test split of this")
    command.add_argument(
        "--features",
        nargs="?",
        const="",
        metavar="NAME",
        help="publish a second model, of what the last linear layer takes, for retrieval; default: <name>_features",
    )
    command.add_argument(
        "--golden", type=Path, metavar="PHOTO", help="a JPEG for the golden sample; default: a drawing"
    )
    command.set_defaults(run_command=_export)

    command = commands.add_parser("combine", help="publish the mean of several exported models' logits as one model")
    command.add_argument("models", type=Path, nargs="+", help="each model's folder, <repository>/<name>")
    command.add_argument("--repository", type=Path, required=True, help="the model repository's folder")
    command.add_argument("--name", required=True, help="the model's name; if it exists, it gets a new version")
    command.add_argument("--data", help="measure it on the test split of this")
    command.set_defaults(run_command=_combine)

    command = commands.add_parser("quantize", help="publish a smaller variant of an exported model, beside it")
    command.add_argument(
        "--precision", dest="kind", choices=sorted(PRECISIONS), required=True, help="int8 for CPUs, float16 for GPUs"
    )
    command.add_argument(
        "--calibration-images", type=at_least(1), default=1000, help="of the training split, default: %(default)s"
    )
    _add_variant_arguments(command, f"{data}: to calibrate int8 and compare on the training split, and measure on test")

    command = commands.add_parser("optimise", help="publish a variant of an exported model, its graph optimised")
    command.set_defaults(kind="optimised", calibration_images=1000)
    _add_variant_arguments(command, f"{data}: to compare on the training split, and measure on the test split")

    command = commands.add_parser("summary", help="a network's layers: shapes, parameters, cost, receptive field")
    command.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a network as of train --net; or layers, one after another: conv2d:filters=10,F=5,S=1,P=2,D=1,G=1 "
        "maxpool:F=2,S=2 avgpool:F=2 fc:units=10 relu",
    )
    command.add_argument("--input", type=shape, default=(3, 32, 32), help="channels x height x width, default: 3x32x32")
    command.add_argument("--num-classes", type=at_least(1), default=10, help="default: %(default)s")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run_command=_summary)

    command = commands.add_parser("table", help="train, export and measure network after network, a row for each")
    command.add_argument("data", help=data)
    command.add_argument("--repository", type=Path, required=True, help="the model repository's folder")
    command.add_argument(
        "--runs", type=Path, required=True, help="folder for the runs, and for table.json and table.md"
    )
    command.add_argument(
        "--rows", nargs="+", type=net, metavar="NAME", default=list(NETS), help="default: all networks"
    )
    command.add_argument(
        "--epochs",
        nargs="+",
        type=row_epochs,
        metavar="NAME=N",
        default=[],
        help="of rows; 0 not to train; default: the recipes'",
    )
    command.add_argument("--image-size", type=at_least(1), default=32, help="height and width in pixels, default: 32")
    command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    command.set_defaults(run_command=_table)

    command = commands.add_parser("visualize", help="a picture of a run or of what it answers, as PNG or SVG")
    add_pictures(command, data)
    return parser


def _add_variant_arguments(command: argparse.ArgumentParser, data: str) -> None:
    command.add_argument("model", type=Path, help="the model's folder, <repository>/<name>")
    command.add_argument("--version", type=at_least(1), help="of the model; default: the newest")
    command.add_argument("--name", help="the variant's; default: <name>_int8, <name>_float16 or <name>_optimised")
    command.add_argument("--data", help=data)
    command.add_argument("--seed", type=at_least(0), default=0, help="that draws images, default: %(default)s")
    command.set_defaults(run_command=_make_variant)


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
    device = _device(options.device)
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
    if options.loss == "svm":
        given["label_smoothing"] = 0.0
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


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: PyTorch finds no CUDA device here")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank() >= torch.cuda.device_count():
        raise WorkerError(f"there are {torch.cuda.device_count()} CUDA devices here, and more workers than that")
    return torch.device("cuda", local_rank())


def _evaluate(options: argparse.Namespace) -> None:
    signature = read_signature(options.model) if options.model.is_file() else None
    if signature and signature.features:
        images = load(options.data, options.split, image_size=signature.image_size)
        near = neighbours(predict_onnx(options.model, images.images), images.images, images.labels)
        print(json.dumps(asdict(near)) if options.json else neighbours_table(near))
        return
    dataset, logits = answers(options.model, options.data, options.split)
    found = report(logits, dataset.labels, dataset.classes)
    print(json.dumps(asdict(found), allow_nan=False) if options.json else table(found))


def _export(options: argparse.Namespace) -> None:
    run = load_run(options.run)
    test = load_classes(options.data, "test", run.classes, image_size=run.image_size) if options.data else None
    _print_export(_export_as(options.name, run, test, options, features=False), options)
    if options.features is not None:
        name = options.features or f"{options.name}_features"
        _print_export(_export_as(name, run, test, options, features=True), options)
    print(f"next: {shlex.join(['fovea', 'serve', '--model-repository', str(options.repository)])}")


def _export_as(name: str, run: Run, test: Dataset | None, options: argparse.Namespace, *, features: bool) -> Export:
    return export(
        run,
        options.repository,
        name,
        command=options.command,
        test=test,
        test_data=options.data,
        photo=options.golden,
        features=features,
    )


def _print_export(done: Export, options: argparse.Namespace) -> None:
    errors = ", ".join(f"{error:.1e} at batch size {size}" for size, error in done.parity.items())
    print(f"parity with PyTorch, relative: {errors}")
    if done.tested:
        print(f"accuracy: {done.tested.accuracy:.4f} on {done.tested.images} images (test split of {options.data})")
    if done.neighbours:
        print(neighbours_table(done.neighbours))
    print(f"written: {done.folder}, model.onnx of {done.model_bytes / 1e6:.1f} MB")


def _combine(options: argparse.Namespace) -> None:
    members = [_version_folder(entry) for entry in options.models]
    test = None
    if options.data:
        signature = read_signature(members[0] / "model.onnx")
        test = load_classes(options.data, "test", signature.classes, image_size=signature.image_size)
    made = combine(
        members, options.repository, options.name, command=options.command, test=test, test_data=options.data
    )
    if made.tested:
        print(f"accuracy: {made.tested.accuracy:.4f} on {made.tested.images} images (test split of {options.data})")
    print(f"written: {made.folder}, model.onnx of {made.model_bytes / 1e6:.1f} MB")


def _version_folder(entry: Path, version: int | None = None) -> Path:
    """A version's folder, the newest one's unless told otherwise."""
    version = version or newest_version(entry)
    if version is None:
        raise RepositoryError(f"{entry}: holds no version of a model")
    return entry / str(version)


def _make_variant(options: argparse.Namespace) -> None:
    entry = options.model
    source = _version_folder(entry, options.version)
    train = test = None
    if options.data:
        signature = read_signature(source / "model.onnx")
        train = load_classes(options.data, "train", signature.classes, image_size=signature.image_size)
        if _has_test_split(options.data):
            test = load_classes(options.data, "test", signature.classes, image_size=signature.image_size)
    kind = KINDS[options.kind]
    made = make_variant(
        source,
        options.name or f"{entry.name}_{options.kind}",
        kind,
        command=options.command,
        train=train,
        test=test,
        data=options.data,
        calibration_images=options.calibration_images,
        seed=options.seed,
    )
    comparison = made.comparison
    print(
        f"against float32: relative error {comparison.error:.4f} (allowed: {kind.error}), same top-1 on "
        f"{comparison.agreement:.4f} (at least: {kind.agreement}) of {comparison.images} images"
    )
    if made.tested and made.float32_tested:
        print(
            f"accuracy: {made.tested.accuracy:.4f}, float32 {made.float32_tested.accuracy:.4f}, "
            f"on {made.tested.images} images (test split of {options.data})"
        )
    for size, speed in made.speeds.items():
        print(
            f"speed at batch size {size}: {speed.variant:.0f} images/s on one thread, "
            f"{median(speed.ratios):.2f} ({min(speed.ratios):.2f} to {max(speed.ratios):.2f}) times float32's"
        )
    sizes = f"{made.model_bytes / 1e6:.1f} MB, float32's is {made.float32_bytes / 1e6:.1f} MB"
    print(f"written: {made.folder}, model.onnx of {sizes}")


def _summary(options: argparse.Namespace) -> None:
    found = summarise(options.names, options.num_classes, options.input)
    print(json.dumps(asdict(found)) if options.json else summary_table(found))


def _table(options: argparse.Namespace) -> None:
    device, epochs = _device(options.device), dict(options.epochs)
    dataset = load(options.data, "train", image_size=options.image_size)
    test = load_classes(options.data, "test", dataset.classes, image_size=options.image_size)
    file = options.runs / "table.json"
    rows = {row.name: row for row in read_rows(file)}
    for name in options.rows:
        planned = planned_epochs(name, epochs.get(name), options.image_size)
        if name in rows and rows[name].epochs == planned:
            print(f"{name}: is in {file} already")
            continue
        print(f"{name}: {planned} epochs" if planned else f"{name}: not trained")
        rows[name] = make_row(
            name,
            epochs.get(name),
            dataset,
            test,
            repository=options.repository,
            runs=options.runs,
            device=device,
            origin={"command": options.command, "data": options.data, "skip_broken": False},
        )
        write_rows(file, list(rows.values()))
    print(as_markdown(list(rows.values())))


def _has_test_split(data: str) -> bool:
    """Only an image folder may lack one."""
    root = Path(data)
    is_image_folder = any((root / name).is_dir() for name in SPLITS["train"])
    return not is_image_folder or any((root / name).is_dir() for name in SPLITS["test"])


if __name__ == "__main__":
    sys.exit(main())
