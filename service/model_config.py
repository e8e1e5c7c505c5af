"""A model's `config.pbtxt` and labels, read as Triton reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from service.errors import ModelError
from service.images import Preprocessing, ResizeFilter


@dataclass(frozen=True)
class ImageModelConfig:
    """What the service needs to know of an image classifier.

    Attributes:
        preprocessing: what the graph cannot hold; its input is uint8 (N, H, W, 3) RGB.
        labels: one for each class; (N, len(labels)) float32 logits come out.
        instance_count: instances asked for; None: the service decides.
        max_queue_size: images that may wait; None: the service's setting.
        versions: the version policy.
    """

    name: str
    input_name: str
    output_name: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    max_batch_size: int
    max_queue_delay_s: float
    max_queue_size: int | None
    instance_count: int | None
    version_policy: model_config_pb2.ModelVersionPolicy

    def serves(self, versions: list[int]) -> list[int]:
        """Which of a model's versions its policy serves: the latest one, where it says nothing."""
        policy = self.version_policy
        if policy.HasField("all"):
            return sorted(versions)
        if policy.HasField("specific"):
            missing = set(policy.specific.versions) - set(versions)
            if missing:
                raise ModelError(f"version_policy names version {min(missing)}, which has no folder")
            return sorted(policy.specific.versions)
        return sorted(versions)[-(policy.latest.num_versions or 1) :]


def read_config(folder: Path) -> ImageModelConfig:
    """Read `<folder>/config.pbtxt` and its labels.

    Raises:
        ModelError: a file is missing or wrong, or the model is none that images can be sent to.
    """
    path = folder / "config.pbtxt"
    try:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except FileNotFoundError:
        raise ModelError("no config.pbtxt") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ModelError(f"config.pbtxt: {error}") from error

    if config.name and config.name != folder.name:
        raise ModelError(f"config.pbtxt: name {config.name!r} must equal the folder's, {folder.name!r}")
    if "onnxruntime" not in (config.backend or config.platform.removesuffix("_onnx")):
        raise ModelError(f'config.pbtxt: backend {config.backend or config.platform!r}: must be "onnxruntime"')
    if config.max_batch_size < 1:
        raise ModelError("config.pbtxt: max_batch_size must be at least 1: the graph's first axis is the batch")
    if len(config.input) != 1 or len(config.output) != 1:
        raise ModelError(
            f"config.pbtxt: {len(config.input)} inputs and {len(config.output)} outputs: "
            "an image classifier has one of each"
        )
    (model_input,), (model_output,) = config.input, config.output
    height, width = _image_shape(model_input)
    classes = model_output.dims[0] if len(model_output.dims) == 1 else 0
    if model_output.data_type != model_config_pb2.TYPE_FP32 or classes < 1:
        raise ModelError("config.pbtxt: the output must be TYPE_FP32 with dims [ number of classes ]")

    queue_policy = config.dynamic_batching.default_queue_policy
    return ImageModelConfig(
        name=folder.name,
        input_name=model_input.name,
        output_name=model_output.name,
        preprocessing=_preprocessing(config, height, width),
        labels=_labels(folder, model_output, classes),
        max_batch_size=config.max_batch_size,
        max_queue_delay_s=config.dynamic_batching.max_queue_delay_microseconds / 1e6,
        max_queue_size=queue_policy.max_queue_size or None,
        instance_count=sum(max(1, group.count) for group in config.instance_group) or None,
        version_policy=config.version_policy,
    )


def _image_shape(model_input: model_config_pb2.ModelInput) -> tuple[int, int]:
    dims = list(model_input.dims)
    if (
        model_input.data_type != model_config_pb2.TYPE_UINT8
        or model_input.format != model_config_pb2.ModelInput.FORMAT_NHWC
        or len(dims) != 3
        or dims[2] != 3
        or min(dims) < 1
    ):
        raise ModelError("config.pbtxt: the input must be TYPE_UINT8, FORMAT_NHWC, dims [ height, width, 3 ]")
    return dims[0], dims[1]


def _preprocessing(config: model_config_pb2.ModelConfig, height: int, width: int) -> Preprocessing:
    given = {
        key.removeprefix("preprocessing."): parameter.string_value
        for key, parameter in config.parameters.items()
        if key.startswith("preprocessing.")
    }
    short_side = given.pop("resize_short_side", str(max(height, width)))
    if not short_side.isdecimal() or int(short_side) < max(height, width):
        raise ModelError(
            f"config.pbtxt: preprocessing.resize_short_side is {short_side!r}: must be a whole number of pixels, "
            f"at least {max(height, width)}"
        )
    resize_filter = given.pop("resize_filter", "bilinear")
    accepted = {"resize_filter": get_args(ResizeFilter), "crop": ("center",), "channel_order": ("RGB",)}
    for key, value in {"resize_filter": resize_filter, **given}.items():
        if key not in accepted:
            raise ModelError(f"config.pbtxt: unknown parameter preprocessing.{key}")
        if value not in accepted[key]:
            raise ModelError(f"config.pbtxt: preprocessing.{key} is {value!r}: must be {' or '.join(accepted[key])}")
    return Preprocessing(height, width, int(short_side), resize_filter)


def _labels(folder: Path, output: model_config_pb2.ModelOutput, classes: int) -> tuple[str, ...]:
    if not output.label_filename:
        return tuple(str(index) for index in range(classes))
    path = folder / output.label_filename
    if path.resolve().parent != folder.resolve():
        raise ModelError(f"config.pbtxt: label_filename {output.label_filename!r} must lie in the model's folder")
    try:
        labels = tuple(path.read_text().rstrip("\n").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{output.label_filename}: {error}") from error
    if len(labels) != classes:
        raise ModelError(f"{output.label_filename}: {len(labels)} labels for {classes} classes")
    return labels
