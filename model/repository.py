"""The model repository on disk, in NVIDIA Triton's layout: the only thing that training hands to serving.

`<repository>/<name>/{config.pbtxt, labels.txt, model_card.md, <version>/{model.onnx, golden.jpg, golden.npz}}`; a model
of features has no labels.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 64
input {{
  name: "pixels"
  data_type: TYPE_UINT8
  format: FORMAT_NHWC
  dims: [{size}, {size}, 3]
}}
output {{
  name: "{output}"
  data_type: TYPE_FP32
  dims: [{size_of_output}]{labels}
}}
dynamic_batching {{ }}
"""

PARAMETER = """\
parameters {{
  key: "{key}"
  value {{ string_value: "{value}" }}
}}
"""


class RepositoryError(Exception):
    """A model repository cannot be read or written to; the message says what would be right."""


@dataclass(frozen=True)
class Signature:
    """What clients of a model rely on: the same for all its versions.

    Attributes:
        classes: the label of each logit; none of a model of features.
        image_size: height and width of the input, in pixels.
        features: how many it returns of an image; 0 of a classifier.
    """

    classes: tuple[str, ...]
    image_size: int
    features: int = 0

    @property
    def output(self) -> str:
        return "features" if self.features else "logits"


def config(name: str, signature: Signature) -> str:
    """The text of `config.pbtxt`: Triton's ModelConfig."""
    # What the graph cannot hold: from a decoded, upright image to the input's pixels.
    parameters: dict[str, object] = {
        "preprocessing.resize_short_side": signature.image_size,
        "preprocessing.resize_filter": "bilinear",
        "preprocessing.crop": "center",
        "preprocessing.channel_order": "RGB",
    }
    if signature.features:
        parameters["features.output"] = signature.output
    text = CONFIG.format(
        name=name,
        size=signature.image_size,
        output=signature.output,
        size_of_output=signature.features or len(signature.classes),
        labels="" if signature.features else '\n  label_filename: "labels.txt"',
    )
    return text + "".join(PARAMETER.format(key=key, value=value) for key, value in parameters.items())


def read_signature(model_file: Path) -> Signature:
    """Read what `<repository>/<name>/<version>/model.onnx` takes and returns, with a classifier's labels above it.

    Raises:
        RepositoryError: the file is not an export of ours, or `labels.txt` is missing or does not fit it.
    """
    labels_file = model_file.resolve().parent.parent / "labels.txt"
    try:
        graph = onnx.load(model_file, load_external_data=False).graph
        gives_features = [value.name for value in graph.output] == ["features"]
        classes = () if gives_features else tuple(labels_file.read_text(encoding="utf-8").splitlines())
    except DecodeError as error:
        raise RepositoryError(f"{model_file}: not an ONNX file") from error
    except (OSError, ValueError) as error:
        raise RepositoryError(
            f"{model_file}: cannot be read with its labels (the labels.txt above it): {error}"
        ) from error
    tensors = [
        (value.type.tensor_type.elem_type, [dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in (*graph.input, *graph.output)
    ]
    match tensors:
        case [
            (onnx.TensorProto.UINT8, [0, height, width, 3]),
            (onnx.TensorProto.FLOAT, [0, logits]),
        ] if height == width > 0:
            if gives_features:
                return Signature((), height, features=logits)
            if logits != len(classes):
                raise RepositoryError(f"{labels_file}: {len(classes)} labels, but the model returns {logits} logits")
            return Signature(classes, height)
    raise RepositoryError(f"{model_file}: must take uint8 pixels [N, H, H, 3] and return float32 logits [N, K]")


def next_version(repository: Path, name: str, signature: Signature) -> int:
    """The version that an export under this name would get: 1, or one more than the newest.

    Raises:
        RepositoryError: the name is not safe, or the model there is another one (labels, image size).
    """
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name):
        raise RepositoryError(f"model name {name!r}: must be letters, digits, '_', '.', '-', and not begin with '.'")
    for label in signature.classes:
        if label.splitlines() != [label]:
            raise RepositoryError(f"class {label!r}: a label must be one line of text")
    entry = repository / name
    if not entry.exists():
        return 1
    newest = newest_version(entry)
    if newest is None:
        raise RepositoryError(f"{entry}: exists, but holds no version of a model; use another name")
    published = read_signature(entry / str(newest) / "model.onnx")
    if published != signature:
        raise RepositoryError(
            f"{entry}: holds a model of {_describe(published)}, this one is of {_describe(signature)}: "
            "publish it under another name"
        )
    return newest + 1


def newest_version(entry: Path) -> int | None:
    """The highest version of the model in a repository's folder; None where that holds none.

    Raises:
        OSError: there is no such folder.
    """
    versions = [int(path.name) for path in entry.iterdir() if re.fullmatch(r"[1-9][0-9]*", path.name)]
    return max(versions, default=None)


def newest_folder(entry: Path) -> Path:
    """The highest version's folder of the model in a repository's folder.

    Raises:
        RepositoryError: it holds no version.
        OSError: there is no such folder.
    """
    version = newest_version(entry)
    if version is None:
        raise RepositoryError(f"{entry}: holds no version of a model")
    return entry / str(version)


def publish(
    repository: Path, name: str, version: int, signature: Signature, files: Mapping[str, bytes], card: str
) -> Path:
    """Write a version, and with the first one its model's entry; returns the version's folder.

    It is written beside and appears by one rename, so a reader finds all of it or nothing. Folders whose name
    begins with '.' are never models or versions.

    Args:
        files: what the version's folder holds, by file name.
        card: this version's section of the model card; it is put above those of older versions.

    Raises:
        RepositoryError: the version has appeared meanwhile.
    """
    entry = repository / name
    first = not entry.exists()
    repository.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=repository if first else entry) as folder:
        staged = Path(folder) / name
        staged_version = staged / str(version)
        staged_version.mkdir(parents=True)
        for file_name, content in files.items():
            (staged_version / file_name).write_bytes(content)
        title = f"# {name}\n"
        published_card = entry / "model_card.md"
        older = published_card.read_text(encoding="utf-8") if published_card.is_file() else ""
        section = f"\n## Version {version}\n\n{card}"
        (staged / "model_card.md").write_text(title + section + older.removeprefix(title), encoding="utf-8")
        if first:
            if not signature.features:
                labels = "".join(f"{label}\n" for label in signature.classes)
                (staged / "labels.txt").write_text(labels, encoding="utf-8")
            (staged / "config.pbtxt").write_text(config(name, signature), encoding="utf-8")
        try:
            if first:
                staged.rename(entry)
            else:
                staged_version.rename(entry / str(version))
                os.replace(staged / "model_card.md", published_card)
        except OSError as error:
            raise RepositoryError(f"{entry / str(version)}: cannot be put in place: {error.strerror}") from error
    return entry / str(version)


def _describe(signature: Signature) -> str:
    if signature.features:
        return f"{signature.features} features at {signature.image_size}x{signature.image_size} pixels"
    classes = signature.classes
    shown = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
    return f"{len(classes)} classes ({shown}) at {signature.image_size}x{signature.image_size} pixels"
