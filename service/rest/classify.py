"""`POST /v1/classify`: images in a raw body, a form or JSON; ranked labels out."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.classifier import Answer, Classification, Classifier
from service.errors import FoveaError
from service.rest.body import parse_top_k, read_input
from service.rest.disconnect import CancelledOnDisconnect, answered
from service.telemetry import RequestRecord, Telemetry


def classify_route(
    classifier: Classifier,
    telemetry: Telemetry,
    *,
    request_timeout_s: float,
    max_request_bytes: int,
    max_images: int,
) -> Route:
    async def answer(request: Request, record: RequestRecord) -> Response:
        deadline = time.monotonic() + request_timeout_s
        query = request.query_params
        top_k = parse_top_k(query["top_k"]) if "top_k" in query else None
        given = await read_input(
            request, max_request_bytes=max_request_bytes, max_images=max_images, timeout_s=request_timeout_s
        )
        if record.trace:
            record.trace.read()
        model = given.model or query.get("model", "")
        record.model = classifier.known_model(model)
        async with CancelledOnDisconnect(request):
            found = await classifier.classify(
                given.images,
                model=model,
                version=given.version or query.get("version", ""),
                top_k=top_k if given.top_k is None else given.top_k,
                deadline=deadline,
            )
        telemetry.observe(found, record.trace)
        if not given.single:
            return JSONResponse({"results": [_result(found, result) for result in found.results]})
        (result,) = found.results
        if isinstance(result, FoveaError):
            raise result
        return JSONResponse(_result(found, result))

    async def classify(request: Request) -> Response:
        return await answered(telemetry, lambda record: answer(request, record))

    return Route("/v1/classify", classify, methods=["POST"])


def _result(answer: Answer, result: Classification | FoveaError) -> dict[str, Any]:
    if isinstance(result, FoveaError):
        return {"error": str(result)}
    stages = result.stages
    return {
        "model": answer.model,
        "version": answer.version,
        "predictions": [
            {"label": p.label, "index": p.index, "probability": round(p.probability, 6)} for p in result.predictions
        ],
        "timings": {
            "decode_us": round(1e6 * stages.decode_s),
            "queue_us": round(1e6 * stages.queue_s),
            "inference_us": round(1e6 * stages.inference_s),
            "total_us": round(1e6 * stages.total_s),
            "batch_size": result.batch_size,
        },
    }
