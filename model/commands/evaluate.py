"""The command `evaluate`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from model.answers import answers
from model.commands.arguments import DATA, Commands
from model.data import load
from model.evaluate import predict_onnx, report, table
from model.neighbours import neighbours
from model.neighbours import table as neighbours_table
from model.repository import read_signature


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "evaluate",
        help="accuracy, confusion and calibration of a run or an ONNX file; the neighbours that features find",
    )
    command.add_argument("model", type=Path, help="a run's folder, or a model.onnx in a model repository")
    command.add_argument("data", help=DATA)
    command.add_argument("--split", choices=["train", "test"], default="test", help="default: %(default)s")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run_command=_evaluate)


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
