"""What the tests of known requests share: models, tensors for them, and how a request comes to be known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from tests.conformance.models import Value, write_model
from tests.conformance.wire import Answer
from tests.service.inside import Client, Inside, Values

PAIR: Values = {"INPUT0": np.arange(16, dtype="<i4").reshape(1, 16), "INPUT1": np.ones((1, 16), "<i4")}
ONE: Values = {"INPUT0": np.array([[1, 2]], "<f4")}
ALONE = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
OVERRIDABLE = "default_timeout_microseconds: 60000000 allow_timeout_override: true"
REUSED = "reused"
WIDTH = 50_000


async def know(service: Inside, client: Client, request: bytes) -> Answer:
    """Have a request answered until it is known."""
    for _ in range(2):
        service.known.clear()
        answer = await client.ask(request)
        assert answer.status == 200, answer
    assert len(service.known) == 1
    service.known.clear()
    return answer


def write_wide(repository: Path) -> None:
    """A little goes in, and much comes out."""
    nodes = [helper.make_node("Expand", ["INPUT0", "shape"], ["OUTPUT0"])]
    shape = helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [1, WIDTH])
    inputs, outputs = [Value("INPUT0", "FP32", (1,))], [Value("OUTPUT0", "FP32", (WIDTH,))]
    write_model(repository, "wide", inputs, outputs, {1: (nodes, [shape])})
