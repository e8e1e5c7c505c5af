"""An ONNX model behind FastAPI, as most people write it. Run by uvicorn in an environment of its own."""

# mypy: disable-error-code="import-not-found, untyped-decorator"

import os
from typing import Annotated

import numpy as np
import onnxruntime
from fastapi import Body, FastAPI, Response

app = FastAPI()
session = onnxruntime.InferenceSession(os.environ["PEER_MODEL"])
pixels = session.get_inputs()[0]


@app.post("/predict")
def predict(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Response:
    image = np.frombuffer(body, np.uint8).reshape(1, *pixels.shape[1:])
    logits = session.run(None, {pixels.name: image})[0]
    return Response(logits.tobytes(), media_type="application/octet-stream")
