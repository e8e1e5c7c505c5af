"""How encoded images become a model's input, and its output becomes ranked labels or an embedding.

What the graph does not hold stands in the config's `parameters`, the same for our own exports and for
anybody's: `preprocessing.resize_short_side`, `.resize_filter`, `.crop`, `.channel_order`, and for floating-point
inputs `.scale`, `.mean` and `.std`: (level * scale - mean) / std; `classification.output` and
`classification.scores` ("logits" or "probabilities"). `features.output` names an output that holds no scores but an
image's features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import model_config_pb2 as pb

from service.errors import ModelError
from service.images import Pixels, Preprocessing, ResizeFilter
from service.model_config import ModelConfig
from service.tensors import DTYPES, Array, TensorSpec

Scores = Literal["logits", "probabilities"]
Layout = Literal["NHWC", "NCHW"]

CHANNEL_ORDERS = ("RGB", "BGR")


@dataclass(frozen=True)
class Normalisation:
    """(level * scale - mean) / std, each by channel in the model's order; (3,) float32."""

    scale: float
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageContract:
    """What a model with one image input and one output of scores, or of features, needs besides its graph.

    Attributes:
        shape: of the input for one image, with the batch axis where it has one.
        normalisation: None for a uint8 input.
        output: the index of the scores, or of the features, among the model's outputs.
        scores, labels: of a classifier; a label for each class.
        features: numbers in an image's features; 0 of a classifier.
    """

    preprocessing: Preprocessing
    shape: tuple[int, ...]
    datatype: str
    layout: Layout
    channel_order: str
    normalisation: Normalisation | None
    output: int
    scores: Scores
    labels: tuple[str, ...]
    features: int

    def to_input(self, pixels: Pixels) -> Array:
        """(H, W, 3) uint8 RGB to the input for one image, `shape` and `datatype` as declared."""
        array: Array = pixels if self.channel_order == "RGB" else pixels[..., ::-1]
        if self.normalisation:
            values = array.astype(np.float32)
            values *= self.normalisation.scale
            values -= self.normalisation.mean
            values /= self.normalisation.std
            array = values.astype(DTYPES[self.datatype], copy=False)
        if self.layout == "NCHW":
            array = array.transpose(2, 0, 1)
        return array.reshape(self.shape)


class NoImagesError(Exception):
    """Images cannot be sent to this model; the message says why. Tensors can."""


def image_contract(config: ModelConfig) -> ImageContract:
    """What a config says of images.

    Raises:
        NoImagesError: the model is none that images can be sent to.
        ModelError: it is, and its parameters or labels are wrong.
    """
    parameters = {
        key: parameter.string_value
        for key, parameter in config.proto.parameters.items()
        if key.partition(".")[0] in ("preprocessing", "classification", "features")
    }
    if len(config.inputs) != 1:
        raise NoImagesError(f"it has {len(config.inputs)} inputs, an image classifier has one")
    layout, height, width = _layout(config.inputs[0], config.proto.input[0].format)
    datatype = config.inputs[0].datatype
    if datatype not in ("UINT8", "FP32", "FP16"):
        raise NoImagesError(f"its input is {datatype}: must be UINT8, FP32 or FP16")
    floating = datatype != "UINT8"
    if floating and not any(f"preprocessing.{key}" in parameters for key in ("scale", "mean", "std")):
        raise NoImagesError(
            "its input is floating-point and config.pbtxt has none of the parameters preprocessing.scale, "
            "preprocessing.mean and preprocessing.std"
        )
    named = parameters.pop("features.output", None)
    if named is None:
        output, features = _output(config, parameters.pop("classification.output", None)), 0
    else:
        output, features = _features(config, named)
    contract = ImageContract(
        preprocessing=_preprocessing(parameters, height, width),
        shape=((1,) if config.max_batch_size else ()) + config.inputs[0].dims,
        datatype=datatype,
        layout=layout,
        channel_order=_choice(parameters, "preprocessing.channel_order", CHANNEL_ORDERS),
        normalisation=_normalisation(parameters) if floating else None,
        output=output,
        scores=_choice(parameters, "classification.scores", get_args(Scores)),  # type: ignore[arg-type]
        labels=() if features else _labels(config, output),
        features=features,
    )
    _choice(parameters, "preprocessing.crop", ("center",))
    if parameters:
        raise ModelError(f"config.pbtxt: unknown parameter {min(parameters)}")
    return contract


def _layout(spec: TensorSpec, declared: int) -> tuple[Layout, int, int]:
    dims = spec.dims[1:] if len(spec.dims) == 4 and spec.dims[0] == 1 else spec.dims
    if len(dims) != 3 or min(dims) < 1:
        raise NoImagesError(
            f"its input has dims {list(spec.dims)}: must be a height, a width and 3 channels, all fixed"
        )
    first, last = dims[0] == 3, dims[2] == 3
    if declared == pb.ModelInput.FORMAT_NCHW:
        last = False
    elif declared == pb.ModelInput.FORMAT_NHWC:
        first = False
    if first == last:
        raise NoImagesError(
            f"its input has dims {list(spec.dims)} and format {pb.ModelInput.Format.Name(declared)}: "
            "which axis are the 3 channels?"
        )
    return ("NCHW", dims[1], dims[2]) if first else ("NHWC", dims[0], dims[1])


def _features(config: ModelConfig, named: str) -> tuple[int, int]:
    """The index of the output that holds the features, and how many they are."""
    index = _named_output(config, "features.output", named)
    spec = config.outputs[index]
    dims = spec.dims if config.max_batch_size else spec.dims[1:]
    if spec.datatype != "FP32" or len(dims) != 1 or dims[0] < 1:
        raise ModelError(
            f"config.pbtxt: features.output '{named}' is {spec.datatype} with dims {list(spec.dims)}: must be FP32, a "
            "fixed number for each image"
        )
    return index, dims[0]


def _named_output(config: ModelConfig, key: str, named: str) -> int:
    names = [output.name for output in config.outputs]
    if named not in names:
        raise ModelError(f"config.pbtxt: {key} is {named!r}: must be one of {', '.join(names)}")
    return names.index(named)


def _output(config: ModelConfig, named: str | None) -> int:
    names = [output.name for output in config.outputs]
    if named is not None:
        index = _named_output(config, "classification.output", named)
    elif len(names) == 1:
        index = 0
    elif len(config.labels) == 1:
        index = names.index(next(iter(config.labels)))
    else:
        raise NoImagesError(
            f"it has {len(names)} outputs, and config.pbtxt does not say which holds the scores: "
            "give that one a label_filename, or name it in the parameter classification.output"
        )
    if config.outputs[index].datatype not in ("FP32", "FP16", "FP64"):
        raise NoImagesError(f"its output '{names[index]}' is {config.outputs[index].datatype}: must be floating-point")
    return index


def _labels(config: ModelConfig, output: int) -> tuple[str, ...]:
    spec = config.outputs[output]
    labels = config.labels.get(spec.name)
    sizes = spec.dims if config.max_batch_size or len(spec.dims) < 2 or spec.dims[0] != 1 else spec.dims[1:]
    if sum(size != 1 for size in sizes) > 1:
        raise NoImagesError(f"its output '{spec.name}' has dims {list(spec.dims)}: must be one score for each class")
    classes = prod(sizes) if min(sizes, default=1) > 0 else len(labels or ())
    if not classes:
        raise NoImagesError(f"its output '{spec.name}' has no fixed number of classes, and no label_filename")
    if labels is None:
        return tuple(str(index) for index in range(classes))
    if len(labels) != classes:
        filename = config.proto.output[output].label_filename
        raise ModelError(f"{filename}: {len(labels)} labels for {classes} classes")
    return labels


def _preprocessing(parameters: dict[str, str], height: int, width: int) -> Preprocessing:
    short_side = parameters.pop("preprocessing.resize_short_side", str(max(height, width)))
    if not short_side.isdecimal() or int(short_side) < max(height, width):
        raise ModelError(
            f"config.pbtxt: preprocessing.resize_short_side is {short_side!r}: must be a whole number of pixels, "
            f"at least {max(height, width)}"
        )
    resize_filter: ResizeFilter = _choice(  # type: ignore[assignment]
        parameters, "preprocessing.resize_filter", get_args(ResizeFilter)
    )
    return Preprocessing(height, width, int(short_side), resize_filter)


def _normalisation(parameters: dict[str, str]) -> Normalisation:
    scale = _numbers(parameters, "preprocessing.scale", "1")
    mean = _numbers(parameters, "preprocessing.mean", "0")
    std = _numbers(parameters, "preprocessing.std", "1")
    if len(scale) != 1:
        raise ModelError("config.pbtxt: preprocessing.scale must be one number")
    if not all(std):
        raise ModelError("config.pbtxt: preprocessing.std must not be zero")
    as_array = [np.array(values, np.float32) for values in (mean, std)]
    return Normalisation(scale[0], *as_array)


def _numbers(parameters: dict[str, str], key: str, default: str) -> list[float]:
    """One number, or one for each channel, by commas."""
    text = parameters.pop(key, default)
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not np.isfinite(numbers).all():
        raise ModelError(f"config.pbtxt: {key} is {text!r}: must be one number, or one for each of 3 channels")
    return numbers


def _choice(parameters: dict[str, str], key: str, accepted: Sequence[str]) -> str:
    value = parameters.pop(key, accepted[0])
    if value not in accepted:
        raise ModelError(f"config.pbtxt: {key} is {value!r}: must be {' or '.join(accepted)}")
    return value
