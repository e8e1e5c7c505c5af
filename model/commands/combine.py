"""The command `combine`."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.commands.arguments import Commands
from model.committee import combine
from model.data import load_classes
from model.repository import newest_folder, read_signature


def add(commands: Commands) -> None:
    command = commands.add_parser("combine", help="publish the mean of several exported models' logits as one model")
    command.add_argument("models", type=Path, nargs="+", help="each model's folder, <repository>/<name>")
    command.add_argument("--repository", type=Path, required=True, help="the model repository's folder")
    command.add_argument("--name", required=True, help="the model's name; if it exists, it gets a new version")
    command.add_argument("--data", help="measure it on the test split of this")
    command.set_defaults(run_command=_combine)


def _combine(options: argparse.Namespace) -> None:
    members = [newest_folder(entry) for entry in options.models]
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
