"""What is right, to be made wrong."""

from __future__ import annotations

import base64

import numpy as np

from tests.conformance.wire import Json, binary_tensor, bytes_tensor, rows, simple_inputs, tensor
from tests.repositories import picture
from tests.service.pictures import valid_images

RED = picture("red")
DATATYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP32", "FP64")

REQUESTS: list[tuple[str, Json]] = [
    ("simple", {"id": "1", "inputs": simple_inputs(2), "outputs": [{"name": "OUTPUT1"}]}),
    ("identity_fp32", {"inputs": [rows("INPUT0", [[1.5, -2.0], [0.0, 3.25]])], "parameters": {"priority": 1}}),
    ("identity_uint8", {"inputs": [tensor("INPUT0", "UINT8", [1, 3], [0, 128, 255])]}),
    ("identity_bytes", {"inputs": [tensor("INPUT0", "BYTES", [2, 1], ["a", "é"])]}),
    ("unbatched", {"inputs": [tensor("INPUT0", "FP32", [2, 3], range(6))]}),
    (
        "datatypes",
        {
            "inputs": [
                *(tensor(f"IN_{datatype}", datatype, [2], [1, 0]) for datatype in DATATYPES[1:]),
                tensor("IN_BOOL", "BOOL", [2], [True, False]),
                tensor("IN_BYTES", "BYTES", [2], ["", "b"]),
            ]
        },
    ),
    (
        "classifier",
        {
            "inputs": [rows("SCORES", [[0.1, 0.7, 0.2, 0.0]])],
            "outputs": [{"name": "LOGITS", "parameters": {"classification": 2, "binary_data": True}}],
        },
    ),
]
SHARED = {"shared_memory_region": "region", "shared_memory_offset": 0, "shared_memory_byte_size": 64}
REQUESTS += [
    (
        "simple",
        {
            "inputs": [
                {"name": name, "datatype": "INT32", "shape": [1, 16], "parameters": SHARED}
                for name in ("INPUT0", "INPUT1")
            ]
        },
    ),
    ("simple", {"inputs": simple_inputs(), "outputs": [{"name": "OUTPUT0", "parameters": SHARED}]}),
]

BINARY_REQUESTS: list[tuple[str, Json, bytes]] = [
    (
        "simple",
        {"inputs": [binary_tensor("INPUT0", "INT32", [1, 16], 64), binary_tensor("INPUT1", "INT32", [1, 16], 64)]},
        np.arange(32, dtype="<i4").tobytes(),
    ),
    ("identity_fp16", {"inputs": [binary_tensor("INPUT0", "FP16", [1, 3], 6)]}, np.ones(3, "<f2").tobytes()),
    ("identity_bytes", {"inputs": [binary_tensor("INPUT0", "BYTES", [2, 1], 14)]}, bytes_tensor([b"abc", b"def"])),
    (
        "colours",
        {"inputs": [binary_tensor("pixels", "BYTES", [1], len(RED) + 4)], "parameters": {"binary_data_output": True}},
        bytes_tensor([RED]),
    ),
    ("dynamic", {"inputs": [binary_tensor("INPUT0", "FP32", [1, 2, 2], 16)]}, np.ones(4, "<f4").tobytes()),
]
IMAGES = sorted({content for name, content in valid_images().items() if "31x17" in name or "orientation" in name})
IMAGES_OF_BODY = [base64.b64encode(picture(colour)).decode() for colour in ("red", "lime")]
BODY = {
    "images": IMAGES_OF_BODY,
    "model": "colours",
    "version": "1",
    "top_k": 2,
}
PARTS = [
    ('name="images"; filename="a.jpg"\r\ncontent-type: image/jpeg', picture("red")),
    ('name="top_k"', b"2"),
    ('name="model"', b"colours"),
    ("name=\"more\"; filename*=UTF-8''%e2%82%ac", picture("blue", image_format="PNG")),
]
FORM = (
    b"".join(f"--x\r\ncontent-disposition: form-data; {head}\r\n\r\n".encode() + body + b"\r\n" for head, body in PARTS)
    + b"--x--\r\n"
)
