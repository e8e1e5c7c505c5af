"""The model card's section of one version: what it was trained on, how, and how good it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from model.evaluate import Report
from model.mirrored import Mirrored
from model.neighbours import Neighbours
from model.penultimate import Penultimate
from model.run import Run


def card_section(
    run: Run, *, tested: Report | None, neighbours: Neighbours | None, test_data: str | None, command: str
) -> str:
    """Markdown without a heading.

    Args:
        tested, neighbours: what evaluating the exported file on the test split of `test_data` found.
        command: the command that exported the run.
    """
    info, recipe = run.info, asdict(run.recipe)
    parameters = sum(parameter.numel() for parameter in run.net.parameters())
    metrics = run.metrics()
    quality = {"Accuracy": "not measured"}
    if isinstance(run.net, Penultimate):
        quality = {
            "Features": f"{run.net.size} numbers, float32: what the network's last linear layer takes",
            "Neighbours": "not measured",
        }
    if isinstance(run.net, Mirrored):
        quality["Logits"] = "the mean of those of each image and of its mirror image"
    if tested:
        quality["Accuracy"] = (
            f"{tested.accuracy:.4f} on {tested.images} images (test split of `{test_data}`), expected calibration "
            f"error {tested.calibration_error:.4f}; measured on `model.onnx` through ONNX Runtime on a CPU"
        )
    if neighbours:
        shares = ", ".join(
            f"{share:.4f} of the {rank} nearest (by pixels {neighbours.pixels[rank]:.4f})"
            for rank, share in neighbours.features.items()
        )
        quality["Neighbours"] = (
            f"with the same label, by cosine: {shares}; {neighbours.images} images (test split of `{test_data}`)"
        )
    facts = {
        **quality,
        "Classes": ", ".join(run.classes),
        "Input": f"{run.image_size}x{run.image_size} RGB pixels, uint8; normalised in the graph by mean "
        f"{info['mean']} and standard deviation {info['std']} of the training images",
        "Network": f"{recipe.pop('net')}, {parameters} parameters",
        "Training data": f"`{info['data']}`: {info['training_images']} images; {info['held_out_images']} more held out",
        "Epochs": f"{len(metrics)} of {recipe.pop('epochs') + recipe['averaged_epochs']}",
        "Training time": run.training_time(),
        "Seed": recipe.pop("seed"),
        "Recipe": ", ".join(f"{key} {value}" for key, value in recipe.items()),
    }
    curve = [table(list(metrics[-1]), [[str(value) for value in line.values()] for line in metrics])] if metrics else []
    return section(facts, [info["command"], command], *curve)


def section(facts: Mapping[str, object], commands: Sequence[str], *tables: str) -> str:
    """Facts, the commands that led to them, and tables of figures."""
    lines = "\n".join(commands)
    rows = [[key, str(value)] for key, value in facts.items()]
    return "\n\n".join([table(["", ""], rows), f"```sh\n{lines}\n```", *tables]) + "\n"


def quoted(entry: Path, heading: str) -> str:
    """The card of another model, `<repository>/<name>`, below a heading of its own."""
    card = entry / "model_card.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else "It has no card.\n"
    # Markdown knows no heading below the sixth level.
    lower = re.sub("^#+", lambda mark: "#" * min(len(mark[0]) + 3, 6), text.rstrip(), flags=re.MULTILINE)
    return f"### {heading}\n\n{lower}"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
