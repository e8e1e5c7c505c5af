"""`POST /v1/classify` and `POST /v1/embed`: images in a raw body, a form or JSON; ranked labels or features out."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.classifier import Answer, Classifier, Predictions, Result, Value
from service.errors import FoveaError
from service.rest.body import ImagesInput, parse_top_k, read_input
from service.rest.disconnect import CancelledOnDisconnect, answered
from service.rest.schemas import ClassifyBody, EmbedBody
from service.telemetry import RequestRecord, Telemetry
from service.tensors import Array


def image_routes(
    classifier: Classifier,
    telemetry: Telemetry,
    *,
    request_timeout_s: float,
    max_request_bytes: int,
    max_images: int,
) -> list[Route]:
    async def classify(request: Request, record: RequestRecord) -> Response:
        deadline = time.monotonic() + request_timeout_s
        query = request.query_params
        top_k = parse_top_k(query["top_k"]) if "top_k" in query else None
        given = await read(request, record, ClassifyBody)
        record.model = classifier.known_model(given.model)
        async with CancelledOnDisconnect(request):
            found = await classifier.classify(
                given.images,
                model=given.model,
                version=given.version,
                top_k=top_k if given.top_k is None else given.top_k,
                deadline=deadline,
            )
        telemetry.observe(found, record)
        return _response(found, _predictions, single=given.single)

    async def embed(request: Request, record: RequestRecord) -> Response:
        deadline = time.monotonic() + request_timeout_s
        given = await read(request, record, EmbedBody)
        record.model = classifier.known_model(given.model, features=True)
        async with CancelledOnDisconnect(request):
            found = await classifier.embed(given.images, model=given.model, version=given.version, deadline=deadline)
        telemetry.observe(found, record)
        return _response(found, _embedding, single=given.single)

    async def read(request: Request, record: RequestRecord, form: type[EmbedBody]) -> ImagesInput:
        given = await read_input(
            request, form, max_request_bytes=max_request_bytes, max_images=max_images, timeout_s=request_timeout_s
        )
        if record.trace:
            record.trace.read()
        query = request.query_params
        return replace(
            given, model=given.model or query.get("model", ""), version=given.version or query.get("version", "")
        )

    def route(path: str, answer: Callable[[Request, RequestRecord], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await answered(telemetry, path, lambda record: answer(request, record))

        return Route(path, endpoint, methods=["POST"])

    return [route("/v1/classify", classify), route("/v1/embed", embed)]


def _response(answer: Answer[Value], show: Callable[[Value], dict[str, Any]], *, single: bool) -> JSONResponse:
    """Args:
    show: what is to be shown of an image beside its model and its times.
    """
    if not single:
        return JSONResponse({"results": [_result(answer, result, show) for result in answer.results]})
    (result,) = answer.results
    if isinstance(result, FoveaError):
        raise result
    return JSONResponse(_result(answer, result, show))


def _result(
    answer: Answer[Value], result: Result[Value] | FoveaError, show: Callable[[Value], dict[str, Any]]
) -> dict[str, Any]:
    if isinstance(result, FoveaError):
        return {"error": str(result)}
    stages = result.stages
    return {
        "model": answer.model,
        "version": answer.version,
        **show(result.value),
        "timings": {
            "decode_us": round(1e6 * stages.decode_s),
            "queue_us": round(1e6 * stages.queue_s),
            "inference_us": round(1e6 * stages.inference_s),
            "total_us": round(1e6 * stages.total_s),
            "batch_size": result.batch_size,
        },
    }


def _predictions(predictions: Predictions) -> dict[str, Any]:
    return {
        "predictions": [
            {"label": p.label, "index": p.index, "probability": round(p.probability, 6)} for p in predictions
        ]
    }


def _embedding(features: Array) -> dict[str, Any]:
    return {"embedding": features.tolist()}
