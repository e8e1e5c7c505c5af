"""The parsers by themselves: bytes in, and nothing but the service's own errors out."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from starlette.requests import Request
from tritonclient.grpc import model_config_pb2

from service.errors import FoveaError, ModelError
from service.image_contract import NoImagesError, image_contract
from service.images import ImageLimits, Preprocessing, decode
from service.model_config import ModelConfig, complete, read_proto, served_versions
from service.rest.body import read_input
from service.rest.compression import WINDOW_BITS, compress, decompressed
from service.rest.connection import CONNECTION
from service.rest.infer_body import parse_request
from service.rest.load_body import parse_load
from service.rest.schemas import ClassifyBody
from service.shared_memory import SharedMemory
from service.tensors import DTYPES, MAX_ELEMENTS, Graph, TensorSpec, from_raw, to_raw
from tests.conformance.wire import bytes_tensor
from tests.fuzz.mutations import to_json
from tests.fuzz.seeds import BINARY_REQUESTS, BODY, FORM, IMAGES, REQUESTS

LIMITS = ImageLimits(max_bytes=2**20, max_pixels=10**6, max_frames=20)
TO = Preprocessing(8, 8, 8)
MAX_BYTES = 2**16


@dataclass(frozen=True)
class Parser:
    """One to be tried.

    Attributes:
        parse: may raise a FoveaError or a ModelError, and nothing else.
        seeds: what it takes.
    """

    parse: Callable[[bytes], object]
    seeds: Sequence[bytes]


MEMORY = SharedMemory(system=True, cuda=None)
CONFIGS = [
    ModelConfig(model_config_pb2.ModelConfig(name="m", max_batch_size=batch), inputs, (), {})
    for batch in (0, 8)
    for inputs in (
        (TensorSpec("INPUT0", "FP32", (-1,)),),
        (TensorSpec("INPUT0", "BYTES", (1,)),),
        (TensorSpec("INPUT0", "INT8", (2, -1, 0)),),
        (TensorSpec("INPUT0", "INT32", (16,)), TensorSpec("INPUT1", "INT32", (16,))),
    )
]


def infer_body(content: bytes) -> None:
    """The first byte is the model; then what the header says of the JSON's length, in a line of its own."""
    which, (length, _, body) = content[:1], content[1:].partition(b"\n")
    parse_request(body, length.decode("latin-1"), CONFIGS[(which or b"\0")[0] % len(CONFIGS)], MEMORY)


INFER_SEEDS = [b"0\n" + to_json(document) for _, document in REQUESTS]
for _, document, tensors in BINARY_REQUESTS:
    head = to_json(document)
    INFER_SEEDS += [b"0%d\n" % len(head) + head + tensors, b"00\n" + tensors]


def raw_tensor(content: bytes) -> None:
    """Datatype, axes and their sizes come first. What can be read can be written, and is the same."""
    datatype = list(DTYPES)[content[0] % len(DTYPES)] if content else "BYTES"
    axes = content[1] % 40 if len(content) > 1 else 0
    shape = [int.from_bytes(content[2 + 8 * axis : 10 + 8 * axis], "little", signed=True) for axis in range(axes)]
    data = content[2 + 8 * axes :]
    array = from_raw("x", datatype, shape, data)
    assert list(array.shape) == shape
    assert array.size <= MAX_ELEMENTS
    assert to_raw(array) == data


def _raw_seed(datatype: str, shape: Sequence[int], data: bytes) -> bytes:
    sizes = b"".join(size.to_bytes(8, "little", signed=True) for size in shape)
    return bytes([list(DTYPES).index(datatype), len(shape)]) + sizes + data


def request(content: bytes, content_type: bytes) -> Request:
    pieces = [content[:100], content[100:]]

    async def receive() -> dict[str, Any]:
        body = pieces.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(pieces)}

    headers = [(b"content-type", content_type)]
    state = {CONNECTION: SimpleNamespace(body_is_there=False)}
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers, "state": state}, receive)


def classify_body(content: bytes) -> None:
    """The content type stands in the first line."""
    content_type, _, body = content.partition(b"\n")
    given = request(body, content_type)
    asyncio.run(read_input(given, ClassifyBody, max_request_bytes=MAX_BYTES, max_images=4, timeout_s=60))


def compressed_body(content: bytes) -> None:
    """The first byte is the coding."""

    async def chunks() -> AsyncIterator[bytes]:
        yield content[1:50]
        yield content[50:]

    async def read() -> None:
        coding = list(WINDOW_BITS)[content[0] % len(WINDOW_BITS)] if content else ""
        size = 0
        async for chunk in decompressed(chunks(), coding, MAX_BYTES):  # type: ignore[arg-type]
            size += len(chunk)
        assert size <= MAX_BYTES

    asyncio.run(read())


GRAPH = Graph((TensorSpec("pixels", "FP32", (-1, 3, 8, 8)),), (TensorSpec("logits", "FP32", (-1, 2)),))
CONFIG = """\
name: "m" backend: "onnxruntime" max_batch_size: 8
input { name: "pixels" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 8, 8 ] }
output { name: "logits" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" }
instance_group [ { count: 1 kind: KIND_CPU } ]
version_policy { specific { versions: [ 1, 2 ] } }
dynamic_batching {
  preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 100 priority_levels: 2 default_priority_level: 1
  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 1000 allow_timeout_override: true }
  priority_queue_policy { key: 1 value { max_queue_size: 5 } }
}
optimization { execution_accelerators { cpu_execution_accelerator [ { name: "openvino" } ] } }
parameters { key: "preprocessing.scale" value { string_value: "0.5" } }
parameters { key: "preprocessing.mean" value { string_value: "1,2,3" } }
parameters { key: "preprocessing.resize_short_side" value { string_value: "10" } }
parameters { key: "preprocessing.channel_order" value { string_value: "BGR" } }
parameters { key: "classification.output" value { string_value: "logits" } }
parameters { key: "classification.scores" value { string_value: "probabilities" } }
"""
CONFIG_JSON = b'{"max_batch_size": 4, "input": [{"name": "pixels", "data_type": "TYPE_FP32", "dims": ["3", 8, 8]}]}'
"""As a load request has it."""


class ConfigFolder:
    """A model's folder whose config is another each time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz")
        self.path = Path(self._folder.name) / "m"
        self.path.mkdir()
        (self.path / "labels.txt").write_text("a\nb\n")

    def parse(self, content: bytes) -> None:
        (self.path / "config.pbtxt").write_bytes(content)
        self._use(read_proto(self.path))

    def parse_override(self, content: bytes) -> None:
        self._use(read_proto(self.path, content.decode("utf-8", "surrogateescape")))

    def _use(self, proto: Any) -> None:
        served_versions(proto, [1, 2, 3])
        config = complete(proto, GRAPH, self.path)
        config.without_effect()
        for priority in range(1, config.priority_levels + 1):
            config.queue_timeout_s(priority, 1000)
        with contextlib.suppress(NoImagesError):
            image_contract(config)


CONFIGS_FOLDER = ConfigFolder()

PARSERS: dict[str, Parser] = {
    "infer_body": Parser(infer_body, INFER_SEEDS),
    "raw_tensor": Parser(
        raw_tensor,
        [
            _raw_seed("FP32", [1, 2], bytes(8)),
            _raw_seed("BYTES", [2], bytes_tensor([b"abc", b""])),
            _raw_seed("INT8", [0, 2**40, -1], b""),
        ],
    ),
    "classify_body": Parser(
        classify_body,
        [
            b"application/json\n" + to_json(BODY),
            b"multipart/form-data; boundary=x\n" + FORM,
            b"image/jpeg\n" + IMAGES[0],
        ],
    ),
    "compressed_body": Parser(
        compressed_body, [bytes([which]) + compress(b"abc" * 50, coding) for which, coding in enumerate(WINDOW_BITS)]
    ),
    "load_body": Parser(parse_load, [b"", b'{"parameters": {"config": "{}", "file:1/model.onnx": "YWJj"}}']),
    "image": Parser(lambda content: decode(content, TO, LIMITS), IMAGES),
    "config": Parser(CONFIGS_FOLDER.parse, [CONFIG.encode(), b""]),
    "config_override": Parser(CONFIGS_FOLDER.parse_override, [CONFIG_JSON, b"{}"]),
}


def attempt(parser: Parser, content: bytes) -> None:
    """Raises:
    Exception: anything but the service's own errors.
    """
    try:
        parser.parse(content)
    except (FoveaError, ModelError) as error:
        # Whatever a decoder raises is the image's fault, but for this.
        if isinstance(error.__cause__, MemoryError):
            raise
        str(error).encode()
