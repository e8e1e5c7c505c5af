"""A smaller variant of an exported model: held against it, and published as a model of its own.

int8 is for CPUs, float16 for GPUs (a CPU computes it in float32). Both take the same pixels and give float32 logits.

What a variant is to be like is settled here: one whose logits are too far from float32's on training images, or whose
top-1 is too often another, is not published. What the server then proves with the golden sample is that the file gives
there what it gave here. So the sample holds the photo and the pixels of the model it was made from, and the variant's
own logits, with a tolerance for other processors and execution providers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.fusion_gelu import FusionGelu
from onnxruntime.transformers.onnx_model import OnnxModel

from model.card import quoted, section, table
from model.data import Dataset
from model.evaluate import Logits, Report, predict_onnx, report
from model.golden import LOGIT_TOLERANCE, golden_arrays
from model.images import Pixels
from model.repository import next_version, publish, read_signature

OPSET = 20
"""The first with GELU as one operator; read by every ONNX Runtime since 1.17."""

INT8_OPERATORS = ("Conv", "Gemm", "MaxPool", "Relu")
"""What ONNX Runtime computes in 8 bits on a CPU, and what may stand between two of those."""

LAYERS = ("Conv", "Gemm")

CALIBRATION_BATCH_SIZE = 10

SPEED_BATCH_SIZES = (1, 16)
SPEED_ROUNDS = 9
SPEED_ROUND_S = 0.3


@dataclass(frozen=True)
class Precision:
    """What a variant is, and how far it may be from float32, and from itself where it is served.

    Attributes:
        error: largest mean over images of the largest difference of a logit, relative to the largest absolute one.
        agreement: least share of images with the same top-1.
        logit_tolerance: the golden sample's.
    """

    description: str
    error: float
    agreement: float
    logit_tolerance: float


PRECISIONS = {
    "int8": Precision(
        "int8: weights of 7 bits by channel, activations of 8 bits, static, QDQ; first and last layer in float32",
        error=0.05,
        agreement=0.98,
        # An activation that rounds to the next level elsewhere moves those after it: by more than float's last bits.
        logit_tolerance=0.05,
    ),
    "float16": Precision(
        "float16: weights and arithmetic", error=0.01, agreement=0.995, logit_tolerance=LOGIT_TOLERANCE
    ),
}


class QuantizeError(Exception):
    """A variant cannot be made, or is too far from the model it was made from."""


@dataclass(frozen=True)
class Comparison:
    """A variant against float32: `error` and `agreement` as in `Precision`, over this many images."""

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
    """What `quantize` wrote and measured.

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


def quantize(
    source: Path,
    name: str,
    precision: str,
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
        precision: `int8` or `float16`.
        command: the command that asked for it, for the model card.
        train: int8 is calibrated on some of these, and the variant compared with float32 on as many others. int8
            needs them; float16 is compared on the golden photo alone without them.
        test: images to measure the accuracy of both on.
        data: where the images came from, for the model card.
        calibration_images: how many (at most half of `train`), drawn by `seed`.

    Raises:
        RepositoryError: the source is no model version, or the name is not safe or stands for another model.
        QuantizeError: it is not a float32 model, or its variant is not like it. Nothing is written then.
    """
    float32, repository = source / "model.onnx", source.parent.parent
    if name == source.parent.name:
        raise QuantizeError(f"{name}: a variant is a model of its own, not a version: give it another name")
    signature = read_signature(float32)
    if signature.features:
        raise QuantizeError(f"{source.parent.name}: gives features; what can be quantized is a classifier")
    version = next_version(repository, name, signature)
    try:
        photo = (source / "golden.jpg").read_bytes()
        with (source / "golden.npz").open("rb") as file, np.load(file, allow_pickle=False) as golden:
            pixels: Pixels = golden["pixels"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise QuantizeError(f"{source}: its golden sample cannot be read: {error}") from error
    none = pixels[None][:0]
    calibrated, compared = _draw(train, calibration_images, seed) if train else (none, none)
    if precision == "int8" and not len(calibrated):
        raise QuantizeError("int8 needs training images to calibrate on: at least 2")

    proto = _prepared(float32)
    proto = _to_int8(proto, calibrated) if precision == "int8" else convert_float_to_float16(proto, keep_io_types=True)
    onnx.checker.check_model(proto, full_check=True)
    model = bytes(proto.SerializeToString())

    images = np.concatenate([pixels[None], compared])
    logits, expected = predict_onnx(model, images), predict_onnx(float32, images)
    comparison = compare(logits, expected)
    _check(comparison, PRECISIONS[precision])
    if logits[0].argmax() != expected[0].argmax():
        raise QuantizeError(
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
        "golden.npz": golden_arrays(pixels, logits[0], PRECISIONS[precision].logit_tolerance),
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
        "Precision": PRECISIONS[precision].description,
        "Calibration": f"{len(calibrated)} training images of `{data}`, seed {seed}" if precision == "int8" else "none",
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
    sessions = [_one_thread(model) for model in (str(float32), variant)]
    for session in sessions:
        session.run(None, {session.get_inputs()[0].name: batch})
    rounds = [[_images_per_s(session, batch) for session in sessions] for _ in range(SPEED_ROUNDS)]
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


def _check(comparison: Comparison, bounds: Precision) -> None:
    # Written so that NaN is refused too.
    if not (comparison.error <= bounds.error and comparison.agreement >= bounds.agreement):
        raise QuantizeError(
            f"the variant's logits differ from float32's by {comparison.error:.4f} of the largest on average "
            f"(allowed: {bounds.error}), its top-1 is the same on {comparison.agreement:.4f} "
            f"(at least: {bounds.agreement}) of {comparison.images} images"
        )


def _prepared(float32: Path) -> onnx.ModelProto:
    """The float32 graph with GELU as one operator.

    Of the five that the exporter writes, two read the same input. Quantized, each gets a DequantizeLinear of its own,
    and ONNX Runtime no longer finds GELU in them.
    """
    model = onnx.load(float32)
    if any(tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16) for tensor in model.graph.initializer):
        raise QuantizeError(f"{float32}: is a variant itself: make it from the float32 model")
    fused = OnnxModel(onnx.version_converter.convert_version(model, OPSET))
    FusionGelu(fused).apply()
    fused.topological_sort()
    prepared: onnx.ModelProto = fused.model
    for node in prepared.graph.node:
        if node.op_type == "Gelu":
            node.domain = ""  # ONNX Runtime's own has become the standard's.
    return prepared


def _to_int8(model: onnx.ModelProto, images: Pixels) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        # The exporter has optimised the graph; ONNX Runtime's file of it would claim opsets that it does not use.
        quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Batches(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(INT8_OPERATORS),
            nodes_to_exclude=_outermost(model.graph),
            # U8S8; 7 bits, so that the 16-bit sums of processors without VNNI cannot saturate.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
            per_channel=True,
            # An activation's range is the mean over batches, not the widest: one image in 1,000 would set the scale.
            extra_options={"CalibMovingAverage": True},
        )
        return onnx.load(quantized)


def _outermost(graph: onnx.GraphProto) -> list[str]:
    """The names of the layers that no other layer comes before, and of those that none comes after."""
    of_output = {output: node for node in graph.node for output in node.output}
    behind: dict[str, set[str]] = {}
    """By the name of each node, the layers that lead to it."""
    for node in graph.node:  # In topological order.
        before = [of_output[name] for name in node.input if name in of_output]
        behind[node.name] = set().union(
            *(behind[each.name] | ({each.name} if each.op_type in LAYERS else set()) for each in before)
        )
    layers = [node.name for node in graph.node if node.op_type in LAYERS]
    inner = set().union(*(behind[layer] for layer in layers))
    return [layer for layer in layers if not behind[layer] or layer not in inner]


class _Batches:
    """What `quantize_static` reads calibration images from."""

    def __init__(self, name: str, images: Pixels) -> None:
        self._feeds: Iterator[dict[str, npt.NDArray[np.uint8]]] = (
            {name: images[i : i + CALIBRATION_BATCH_SIZE]} for i in range(0, len(images), CALIBRATION_BATCH_SIZE)
        )

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        return next(self._feeds, None)


def _one_thread(model: str | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _images_per_s(session: ort.InferenceSession, batch: Pixels) -> float:
    feed = {session.get_inputs()[0].name: batch}
    runs, start = 0, time.thread_time()
    while (elapsed := time.thread_time() - start) < SPEED_ROUND_S:
        session.run(None, feed)
        runs += 1
    return runs * len(batch) / elapsed


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
        "Speed": f"below, on one thread of {_cpu()}, in turn, by CPU time",
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


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "this CPU")
