"""The commands `quantize` and `optimise`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import median

from model.commands.arguments import DATA, Commands, at_least
from model.data import SPLITS, load_classes
from model.repository import newest_folder, read_signature
from model.variants import KINDS, PRECISIONS
from model.variants.make import make_variant


def add(commands: Commands) -> None:
    command = commands.add_parser("quantize", help="publish a smaller variant of an exported model, beside it")
    command.add_argument(
        "--precision", dest="kind", choices=sorted(PRECISIONS), required=True, help="int8 for CPUs, float16 for GPUs"
    )
    command.add_argument(
        "--calibration-images", type=at_least(1), default=1000, help="of the training split, default: %(default)s"
    )
    _add_arguments(command, f"{DATA}: to calibrate int8 and compare on the training split, and measure on test")

    command = commands.add_parser("optimise", help="publish a variant of an exported model, its graph optimised")
    command.set_defaults(kind="optimised", calibration_images=1000)
    _add_arguments(command, f"{DATA}: to compare on the training split, and measure on the test split")


def _add_arguments(command: argparse.ArgumentParser, data: str) -> None:
    command.add_argument("model", type=Path, help="the model's folder, <repository>/<name>")
    command.add_argument("--version", type=at_least(1), help="of the model; default: the newest")
    command.add_argument("--name", help="the variant's; default: <name>_int8, <name>_float16 or <name>_optimised")
    command.add_argument("--data", help=data)
    command.add_argument("--seed", type=at_least(0), default=0, help="that draws images, default: %(default)s")
    command.set_defaults(run_command=_make_variant)


def _make_variant(options: argparse.Namespace) -> None:
    entry = options.model
    # `.` has no name, and no folder above it.
    source = Path(os.path.abspath(entry / str(options.version) if options.version else newest_folder(entry)))
    train = test = None
    if options.data:
        signature = read_signature(source / "model.onnx")
        train = load_classes(options.data, "train", signature.classes, image_size=signature.image_size)
        if _has_test_split(options.data):
            test = load_classes(options.data, "test", signature.classes, image_size=signature.image_size)
    kind = KINDS[options.kind]
    made = make_variant(
        source,
        options.name or f"{source.parent.name}_{options.kind}",
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


def _has_test_split(data: str) -> bool:
    """Only an image folder may lack one."""
    root = Path(data)
    is_image_folder = any((root / name).is_dir() for name in SPLITS["train"])
    return not is_image_folder or any((root / name).is_dir() for name in SPLITS["test"])
