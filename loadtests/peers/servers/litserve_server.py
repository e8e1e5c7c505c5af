"""An ONNX model behind LitServe: raw pixels in, raw logits out. Run by the interpreter of its own environment."""

# mypy: disable-error-code="import-not-found, misc"

import os
from typing import Annotated, Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Body, Response

INSTANCES = int(os.environ["PEER_INSTANCES"])
RawBody = Annotated[bytes, Body(media_type="application/octet-stream")]


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["PEER_MODEL"], options)
        self.input = self.session.get_inputs()[0]

    def decode_request(self, request: RawBody) -> np.ndarray[Any, Any]:
        return np.frombuffer(request, np.uint8).reshape(self.input.shape[1:])

    def predict(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        logits: np.ndarray[Any, Any] = self.session.run(None, {self.input.name: batch})[0]
        return logits

    def encode_response(self, output: np.ndarray[Any, Any]) -> Response:
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    # Without a wait its workers spin, on the cores that the requests need.
    classifier = Classifier(max_batch_size=int(os.environ["PEER_MAX_BATCH_SIZE"]), batch_timeout=0.001)
    server = litserve.LitServer(classifier, accelerator="cpu", workers_per_device=INSTANCES)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        num_api_servers=INSTANCES,
        log_level="warning",
        generate_client_file=False,
    )
