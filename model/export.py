"""A run, or its features, to an ONNX file with the preprocessing inside, checked, published in a model repository."""

from __future__ import annotations

import io
import logging
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image
from torch import nn

from model.card import card_section
from model.data import Dataset
from model.evaluate import Report, predict, predict_onnx, report
from model.golden import draw_photo, golden_arrays
from model.images import Pixels, read_pixels
from model.mirrored import Mirrored
from model.neighbours import Neighbours, neighbours
from model.penultimate import Penultimate
from model.repository import Signature, next_version, publish
from model.run import Run

OPSET = 18
"""Read by every ONNX Runtime since 1.14, and by Tritons of that age."""

PARITY_BATCH_SIZES = (1, 3, 64)
PARITY_BOUND = 1e-4


class ExportError(Exception):
    """A run cannot be exported, or its export is not the network it should be."""


@dataclass(frozen=True)
class Export:
    """What `export` wrote and measured.

    Attributes:
        folder: the version's folder.
        model_bytes: size of `model.onnx`.
        parity: for each batch size, the largest difference from PyTorch, relative to the largest absolute output.
        tested: accuracy and calibration of the exported file on the test images; None without them, and of features.
        neighbours: how features do on the test images; None without them, and of a classifier.
    """

    folder: Path
    model_bytes: int
    parity: dict[int, float]
    tested: Report | None
    neighbours: Neighbours | None


def export(
    run: Run,
    repository: Path,
    name: str,
    *,
    command: str,
    test: Dataset | None = None,
    test_data: str | None = None,
    photo: Path | None = None,
    features: bool = False,
    mirrored: bool = False,
) -> Export:
    """Publish a run as the next version of `<repository>/<name>`.

    Args:
        features: publish what goes into the last linear layer instead of the logits.
        mirrored: publish the mean of the logits of each image and its mirror image; not of features.
        command: the command that asked for it, for the model card.
        test: images of the run's classes and size, to measure the exported file on.
        test_data: where they came from, for the model card.
        photo: a JPEG to be the golden sample instead of the drawn one.

    Raises:
        RepositoryError: the name is not safe, or already stands for another model.
        ExportError: the exported file disagrees with PyTorch, or the photo is not a JPEG. Nothing is written then.
    """
    signature = Signature(run.classes, run.image_size)
    if features:
        penultimate = Penultimate(run.net)
        run, signature = replace(run, net=penultimate), Signature((), run.image_size, penultimate.size)
    elif mirrored:
        run = replace(run, net=Mirrored(run.net))
    version = next_version(repository, name, signature)
    photo_bytes = draw_photo(run.image_size) if photo is None else _read_jpeg(photo, run.image_size)
    pixels = read_pixels(io.BytesIO(photo_bytes), run.image_size)

    model = to_onnx(run, signature.output)
    errors = parity(run, model, pixels)
    for batch_size, error in errors.items():
        # Written so that NaN is refused too.
        if not error <= PARITY_BOUND:
            raise ExportError(
                f"exported {signature.output} differ from PyTorch's by {error:.1e} of the largest at batch size "
                f"{batch_size}: at most {PARITY_BOUND:.0e} is allowed"
            )
    tested = near = None
    if test:
        outputs = predict_onnx(model, test.images)
        if features:
            near = neighbours(outputs, test.images, test.labels)
        else:
            tested = report(outputs, test.labels, test.classes)

    golden = golden_arrays(pixels, predict_onnx(model, pixels[None])[0], kind="feature" if features else "logit")
    files = {"model.onnx": model, "golden.jpg": photo_bytes, "golden.npz": golden}
    card = card_section(run, tested=tested, neighbours=near, test_data=test_data, command=command)
    return Export(publish(repository, name, version, signature, files, card), len(model), errors, tested, near)


def to_onnx(run: Run, output: str = "logits") -> bytes:
    """A run's network as one ONNX file: `pixels` uint8 (N, H, W, 3) to float32 (N, K), N free.

    Args:
        output: its name.
    """
    module = nn.Sequential(OrderedDict(preprocess=run.preprocess, net=run.net)).eval()
    example = torch.zeros(2, run.image_size, run.image_size, 3, dtype=torch.uint8)
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    # The exporter notes source files and stack traces in it, which say where it ran and nothing about the model.
    graph = proto.graph
    for item in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


def parity(run: Run, model: bytes, pixels: Pixels) -> dict[int, float]:
    """Compare the exported model with PyTorch at several batch sizes, on one photo's pixels, one colour, and noise.

    Returns:
        For each batch size, the largest absolute difference over the largest absolute output.
    """
    errors = {}
    rng = np.random.default_rng(0)
    for batch_size in PARITY_BATCH_SIZES:
        batch = rng.integers(0, 256, (batch_size, *pixels.shape), np.uint8)
        batch[0] = pixels
        # Of one colour, where a division by zero would show.
        batch[1:2] = 128
        expected = predict(run.net, run.preprocess, batch, torch.device("cpu"), batch_size)
        found = predict_onnx(model, batch, batch_size)
        if found.shape != expected.shape:
            raise ExportError(f"the exported model returns {found.shape}, PyTorch {expected.shape}")
        errors[batch_size] = float(np.abs(found - expected).max() / np.abs(expected).max())
    return errors


def _read_jpeg(path: Path, size: int) -> bytes:
    try:
        content = path.read_bytes()
        Image.open(io.BytesIO(content), formats=["JPEG"])
        read_pixels(io.BytesIO(content), size)
        return content
    except (OSError, ValueError, SyntaxError) as error:
        raise ExportError(f"{path}: the golden sample must be a readable JPEG: {error}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own deprecated calls and of packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
