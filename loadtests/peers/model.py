"""The model that every server serves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from loadtests.peers.resnet import PRECISIONS, write_resnet
from loadtests.peers.tiny import TINY, write_tiny
from loadtests.target import model_repository

WRITTEN = {TINY: write_tiny, **dict.fromkeys(PRECISIONS, write_resnet)}
"""Models that are made on the spot, by name."""


@dataclass(frozen=True)
class Model:
    """One that takes uint8 pixels, (N, *shape), and gives float32 logits.

    Attributes:
        repository: a folder in Triton's layout with this model and no other.
        file: the latest version's.
        shape: of one image's pixels.
    """

    name: str
    repository: Path
    file: Path
    shape: tuple[int, ...]
    input: str
    output: str
    max_batch_size: int

    def logits(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """What ONNX Runtime itself makes of a batch."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(str(self.file), options, ["CPUExecutionProvider"])
        result: np.ndarray[Any, Any] = session.run(None, {self.input: pixels})[0]
        return result


@contextmanager
def opened_model(name: str) -> Iterator[Model]:
    """A model of the repository that FOVEA_MODEL_REPOSITORY names, or else of the bundled one; or one of WRITTEN.

    Raises:
        FileNotFoundError: there is none of that name, or it has no config.pbtxt.
        ValueError: it is not one that takes batches of one uint8 tensor.
    """
    with TemporaryDirectory() as scratch:
        repository = Path(scratch)
        if name in WRITTEN:
            WRITTEN[name](repository / name)
        else:
            shutil.copytree(model_repository() / name, repository / name)
        config = text_format.Parse((repository / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        if [tensor.data_type for tensor in config.input] != [model_config_pb2.TYPE_UINT8] or not config.max_batch_size:
            raise ValueError(f"{name} does not take batches of one uint8 tensor")
        yield Model(
            name=name,
            repository=repository,
            file=max((repository / name).glob("*/model.onnx"), key=lambda file: int(file.parent.name)),
            shape=tuple(config.input[0].dims),
            input=config.input[0].name,
            output=config.output[0].name,
            max_batch_size=config.max_batch_size,
        )
