"""The command `export`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from model.commands.arguments import Commands
from model.data import Dataset, load_classes
from model.export import Export, export
from model.neighbours import table as neighbours_table
from model.run import Run, load_run


def add(commands: Commands) -> None:
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
        help="publish a second model, of what the last linear layer takes, for retrieval, and never mirrored; "
        "default: <name>_features",
    )
    command.add_argument(
        "--mirrored",
        action="store_true",
        help="publish the mean of the logits of each image and of its mirror image: more accurate, at twice the cost",
    )
    command.add_argument(
        "--golden", type=Path, metavar="PHOTO", help="a JPEG for the golden sample; default: a drawing"
    )
    command.set_defaults(run_command=_export)


def _export(options: argparse.Namespace) -> None:
    run = load_run(options.run)
    test = load_classes(options.data, "test", run.classes, image_size=run.image_size) if options.data else None
    _print_export(_export_as(options.name, run, test, options, mirrored=options.mirrored), options)
    if options.features is not None:
        name = options.features or f"{options.name}_features"
        _print_export(_export_as(name, run, test, options, features=True), options)
    print(f"next: {shlex.join(['fovea', 'serve', '--model-repository', str(options.repository)])}")


def _export_as(
    name: str,
    run: Run,
    test: Dataset | None,
    options: argparse.Namespace,
    *,
    features: bool = False,
    mirrored: bool = False,
) -> Export:
    return export(
        run,
        options.repository,
        name,
        command=options.command,
        test=test,
        test_data=options.data,
        photo=options.golden,
        features=features,
        mirrored=mirrored,
    )


def _print_export(done: Export, options: argparse.Namespace) -> None:
    errors = ", ".join(f"{error:.1e} at batch size {size}" for size, error in done.parity.items())
    print(f"parity with PyTorch, relative: {errors}")
    if done.tested:
        print(f"accuracy: {done.tested.accuracy:.4f} on {done.tested.images} images (test split of {options.data})")
    if done.neighbours:
        print(neighbours_table(done.neighbours))
    print(f"written: {done.folder}, model.onnx of {done.model_bytes / 1e6:.1f} MB")
