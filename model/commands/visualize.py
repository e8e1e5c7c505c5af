"""The command `visualize`: one picture, as PNG or SVG."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.answers import answers
from model.commands.arguments import DATA, Commands, picture_file
from model.evaluate import calibration, report
from model.pictures.activations import draw_activations
from model.pictures.confusion import draw_confusion
from model.pictures.cost import draw_cost
from model.pictures.cost_rows import read_cost_rows
from model.pictures.curves import draw_curves
from model.pictures.figure import picture
from model.pictures.filters import draw_filters
from model.pictures.mistakes import draw_mistakes
from model.pictures.reliability import draw_reliability
from model.pictures.templates import draw_templates
from model.run import load_run

OF_RUNS = {
    "templates": (draw_templates, "what each class, or each hidden unit, looks for (linear, two_layer)"),
    "filters": (draw_filters, "the filters of the first convolution"),
    "curves": (draw_curves, "loss and accuracy, epoch by epoch"),
}
"""Pictures of a run alone."""

OF_ANSWERS = {
    "confusion": "the confusion matrix",
    "reliability": "the reliability diagram, with the expected calibration error",
    "mistakes": "the surest mistakes: image, predicted label and probability, true label",
}
"""Pictures of what a run or an exported file answers on labelled images."""


def add(commands: Commands) -> None:
    """Add a command for each picture."""
    command = commands.add_parser("visualize", help="a picture of a run or of what it answers, as PNG or SVG")
    pictures = command.add_subparsers(required=True, metavar="PICTURE", dest="picture")

    for name, (_, what) in OF_RUNS.items():
        _command(pictures, name, what).add_argument("run", type=Path, help="a run's folder")

    of_image = _command(pictures, "activations", "what the layers make of an image")
    of_image.add_argument("run", type=Path, help="a run's folder")
    of_image.add_argument("image", type=Path, help="an image file")
    of_image.add_argument("--layer", help="all maps of this layer, named as by summary; default: some of every layer")

    for name, what in OF_ANSWERS.items():
        of_answers = _command(pictures, name, what)
        of_answers.add_argument("model", type=Path, help="a run's folder, or a model.onnx in a model repository")
        of_answers.add_argument("--data", required=True, help=DATA)
        of_answers.add_argument("--split", choices=["train", "test"], default="test", help="default: %(default)s")

    of_table = _command(pictures, "table", "accuracy against multiply-adds, of several classifiers")
    of_table.add_argument(
        "table",
        type=Path,
        help="JSON list of objects, or Markdown with a table: name, accuracy, mflops, and parameters if known",
    )


def _command(pictures: Commands, name: str, what: str) -> argparse.ArgumentParser:
    command = pictures.add_parser(name, help=what, description=what)
    command.add_argument("--output", type=picture_file, required=True, help="the picture's file, .png or .svg")
    command.set_defaults(run_command=_draw)
    return command


def _draw(options: argparse.Namespace) -> None:
    with picture(options.output) as figure:
        if options.picture in OF_RUNS:
            draw, _ = OF_RUNS[options.picture]
            draw(figure, load_run(options.run))
        elif options.picture == "activations":
            draw_activations(figure, load_run(options.run), options.image, options.layer)
        elif options.picture == "table":
            draw_cost(figure, read_cost_rows(options.table))
        else:
            dataset, logits = answers(options.model, options.data, options.split)
            match options.picture:
                case "confusion":
                    draw_confusion(figure, report(logits, dataset.labels, dataset.classes))
                case "reliability":
                    draw_reliability(figure, calibration(logits, dataset.labels))
                case "mistakes":
                    draw_mistakes(figure, dataset, logits)
    print(f"written: {options.output}")
