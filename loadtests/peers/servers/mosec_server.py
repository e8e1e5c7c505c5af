"""An ONNX model behind mosec: raw pixels in, raw logits out. Run by the interpreter of its own environment."""

# mypy: disable-error-code="import-not-found, misc"

import os
from typing import Any

import numpy as np
import onnxruntime
from mosec import Server, Worker


class Classifier(Worker):
    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["PEER_MODEL"], options)
        self.input = self.session.get_inputs()[0]

    def deserialize(self, data: bytes) -> np.ndarray[Any, Any]:
        return np.frombuffer(data, np.uint8).reshape(self.input.shape[1:])

    def forward(self, data: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        return list(self.session.run(None, {self.input.name: np.stack(data)})[0])

    def serialize(self, data: np.ndarray[Any, Any]) -> bytes:
        return data.tobytes()


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Classifier,
        num=int(os.environ["PEER_INSTANCES"]),
        max_batch_size=int(os.environ["PEER_MAX_BATCH_SIZE"]),
        max_wait_time=1,
        route="/predict",
    )
    server.run()
