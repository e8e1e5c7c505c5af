"""A variant of an exported model: held against it, and published as a model of its own.

It takes the same pixels and gives float32 logits.

What a variant is to be like is settled here: one whose logits are too far from float32's on training images, or whose
top-1 is too often another, is not published. What the server then proves with the golden sample is that the file gives
there what it gave here. So the sample holds the photo and the pixels of the model it was made from, and the variant's
own logits, with a tolerance for other processors and execution providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from zipfile import BadZipFile

import numpy as np
import onnx

from model.card import quoted, section, table
from model.data import Dataset
from model.evaluate import Logits, Report, predict_onnx, report
from model.golden import golden_arrays
from model.images import Pixels
from model.repository import next_version, publish, read_signature
from model.speed import cpu_name, images_per_s, one_thread
from model.variants.kind import Kind, VariantError

SPEED_BATCH_SIZES = (1, 16)
SPEED_ROUNDS = 9


@dataclass(frozen=True)
class Comparison:
    """A variant against float32: `error` and `agreement` as in `Kind`, over this many images."""

    images: int
    error: float
    agreement: float


@dataclass(frozen=True)
class Speed:
    """Images a second of one thread, median over rounds; and the ratio variant to float32 of every round."""

    float32: float
    variant: float
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Variant:
    """What `make_variant` wrote and measured.

    Attributes:
        folder: the version's folder.
        model_bytes, float32_bytes: sizes of the two `model.onnx`.
        tested, float32_tested: on the test images; None without them.
        speeds: by batch size.
    """

    folder: Path
    model_bytes: int
    float32_bytes: int
    comparison: Comparison
    tested: Report | None
    float32_tested: Report | None
    speeds: dict[int, Speed]


def make_variant(
    source: Path,
    name: str,
    kind: Kind,
    *,
    command: str,
    train: Dataset | None = None,
    test: Dataset | None = None,
    data: str | None = None,
    calibration_images: int = 1000,
    seed: int = 0,
) -> Variant:
    """Publish a variant of a model version as the next version of another model in the same repository.

    Args:
        source: the version's folder, `<repository>/<name>/<version>`.
        command: the command that asked for it, for the model card.
        train: calibrated on some of these, and compared with float32 on as many others. Without them it is compared
            on the golden photo alone.
        test: images to measure the accuracy of both on.
        data: where the images came from, for the model card.
        calibration_images: how many (at most half of `train`), drawn by `seed`.

    Raises:
        RepositoryError: the source is no model version, or the name is not safe or stands for another model.
        VariantError: it is not a float32 model, or its variant is not like it. Nothing is written then.
    """
    float32, repository = source / "model.onnx", source.parent.parent
    if name == source.parent.name:
        raise VariantError(f"{name}: a variant is a model of its own, not a version: give it another name")
    signature = read_signature(float32)
    if signature.features:
        raise VariantError(f"{source.parent.name}: gives features; what has variants is a classifier")
    version = next_version(repository, name, signature)
    try:
        photo = (source / "golden.jpg").read_bytes()
        with (source / "golden.npz").open("rb") as file, np.load(file, allow_pickle=False) as golden:
            pixels: Pixels = golden["pixels"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise VariantError(f"{source}: its golden sample cannot be read: {error}") from error
    none = pixels[None][:0]
    calibrated, compared = _draw(train, calibration_images, seed) if train else (none, none)
    if kind.calibrated and not len(calibrated):
        raise VariantError(f"{name}: needs training images to calibrate on: at least 2")

    original = onnx.load(float32)
    types = {tensor.data_type for tensor in original.graph.initializer}
    if types & {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16}:
        raise VariantError(f"{float32}: is a variant itself: make it from the float32 model")
    proto = kind.convert(original, calibrated)
    onnx.checker.check_model(proto, full_check=True)
    model = bytes(proto.SerializeToString())

    images = np.concatenate([pixels[None], compared])
    logits, expected = predict_onnx(model, images), predict_onnx(float32, images)
    comparison = compare(logits, expected)
    _check(comparison, kind)
    if logits[0].argmax() != expected[0].argmax():
        raise VariantError(
            f"the golden photo is of class {logits[0].argmax()}, and of {expected[0].argmax()} in float32"
        )

    tested, float32_tested = (
        (report(predict_onnx(file, test.images), test.labels, test.classes) for file in (model, float32))
        if test
        else (None, None)
    )
    speeds = {size: measure_speed(float32, model, np.repeat(pixels[None], size, 0)) for size in SPEED_BATCH_SIZES}
    files = {
        "model.onnx": model,
        "golden.jpg": photo,
        "golden.npz": golden_arrays(pixels, logits[0], kind.logit_tolerance),
    }
    made = Variant(
        folder=repository / name / str(version),
        model_bytes=len(model),
        float32_bytes=float32.stat().st_size,
        comparison=comparison,
        tested=tested,
        float32_tested=float32_tested,
        speeds=speeds,
    )
    facts = {
        "Variant of": f"`{source.parent.name}` version {source.name}",
        "Precision": kind.description,
        "Calibration": f"{len(calibrated)} training images of `{data}`, seed {seed}" if kind.calibrated else "none",
    }
    # The variant may be served where its model is not: how that was trained goes with it.
    card = _card(made, facts, data, command) + "\n" + quoted(source.parent, "The model it is a variant of") + "\n"
    publish(repository, name, version, signature, files, card)
    return made


def compare(found: Logits, expected: Logits) -> Comparison:
    """Compare logits (N, K) with float32's."""
    errors = np.abs(found - expected).max(1) / np.abs(expected).max(1)
    return Comparison(len(expected), float(errors.mean()), float((found.argmax(1) == expected.argmax(1)).mean()))


def measure_speed(float32: Path, variant: bytes, batch: Pixels) -> Speed:
    """Run both on one thread, in turn. By that thread's CPU time: what else runs here then counts for little."""
    sessions = [one_thread(model) for model in (float32, variant)]
    rounds = [[images_per_s(session, batch) for session in sessions] for _ in range(SPEED_ROUNDS)]
    return Speed(
        float32=median(reference for reference, _ in rounds),
        variant=median(measured for _, measured in rounds),
        ratios=tuple(measured / reference for reference, measured in rounds),
    )


def _draw(train: Dataset, count: int, seed: int) -> tuple[Pixels, Pixels]:
    """Images to calibrate on, and as many others to compare on."""
    count = min(count, len(train) // 2)
    order = np.random.default_rng(seed).permutation(len(train))
    return train.images[order[:count]], train.images[order[count : 2 * count]]


def _check(comparison: Comparison, bounds: Kind) -> None:
    # Written so that NaN is refused too.
    if not (comparison.error <= bounds.error and comparison.agreement >= bounds.agreement):
        raise VariantError(
            f"the variant's logits differ from float32's by {comparison.error:.4f} of the largest on average "
            f"(allowed: {bounds.error}), its top-1 is the same on {comparison.agreement:.4f} "
            f"(at least: {bounds.agreement}) of {comparison.images} images"
        )


def _card(variant: Variant, facts: Mapping[str, str], data: str | None, command: str) -> str:
    comparison = variant.comparison
    accuracy = "not measured"
    if variant.tested and variant.float32_tested:
        accuracy = (
            f"{variant.tested.accuracy:.4f} on {variant.tested.images} images (test split of `{data}`); float32: "
            f"{variant.float32_tested.accuracy:.4f}"
        )
    measured = {
        "Accuracy": accuracy,
        "Against float32": f"relative error of the logits {comparison.error:.4f} on average, the same top-1 on "
        f"{comparison.agreement:.4f} of {comparison.images} images (the golden photo, and training images that nothing "
        "was calibrated on)",
        "Size": f"{variant.model_bytes / 1e6:.1f} MB; float32: {variant.float32_bytes / 1e6:.1f} MB",
        "Speed": f"below, on one thread of {cpu_name()}, in turn, by CPU time",
    }
    header = ["batch size", "images/s", "float32 images/s", "ratio, median", "range"]
    rows = [
        [
            str(size),
            f"{speed.variant:.0f}",
            f"{speed.float32:.0f}",
            f"{median(speed.ratios):.2f}",
            f"{min(speed.ratios):.2f} – {max(speed.ratios):.2f}",
        ]
        for size, speed in variant.speeds.items()
    ]
    return section({**facts, **measured}, [command], table(header, rows))
