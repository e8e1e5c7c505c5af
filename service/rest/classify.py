"""`POST /v1/classify`: images in a raw body, a form or JSON; ranked labels out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.classifier import Answer, Classification, Classifier
from service.errors import DeadlineExceededError, FoveaError
from service.rest.body import parse_top_k, read_input
from service.rest.schemas import ClassificationBody, ClassifyBody, ErrorBody, ResultsBody
from service.telemetry import Telemetry

BINARY = {"schema": {"type": "string", "format": "binary"}}
FORM = {
    "type": "object",
    "required": ["images"],
    "properties": {
        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "model": {"type": "string"},
        "version": {"type": "string"},
        "top_k": {"type": "integer", "minimum": 1},
    },
}
OPENAPI_EXTRA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": FORM},
            "image/jpeg": BINARY,
            "image/png": BINARY,
            "image/webp": BINARY,
            "application/json": {"schema": ClassifyBody.model_json_schema()},
        },
    }
}
ERRORS = {
    400: "The request or its image is malformed.",
    404: "No such model or version.",
    413: "The body, or its image, is too large.",
    415: "No such content type.",
    503: "Too busy, not ready or stopping; the same request may succeed later.",
    504: "Not answered in time.",
}


def classify_router(
    classifier: Classifier,
    telemetry: Telemetry,
    *,
    request_timeout_s: float,
    max_request_bytes: int,
    max_images: int,
) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/v1/classify",
        summary="Classify images",
        response_model=ClassificationBody | ResultsBody,
        response_description="One object for a raw image body; `results` for a form or JSON.",
        responses={status: {"model": ErrorBody, "description": text} for status, text in ERRORS.items()},
        openapi_extra=OPENAPI_EXTRA,
    )
    async def classify(
        request: Request,
        model: Annotated[str, Query(description="Unset: the default model.")] = "",
        version: Annotated[str, Query(description="Unset: the highest version that is ready.")] = "",
        top_k: Annotated[str, Query(description="Predictions for each image.")] = "5",
    ) -> Response:
        deadline = time.monotonic() + request_timeout_s
        with telemetry.request("http") as record:
            try:
                async with asyncio.timeout(request_timeout_s):
                    given = await read_input(request, max_request_bytes=max_request_bytes, max_images=max_images)
            except TimeoutError:
                raise DeadlineExceededError(f"the body did not arrive within {request_timeout_s:g} s") from None
            async with _cancelled_on_disconnect(request):
                answer = await classifier.classify(
                    given.images,
                    model=given.model or model,
                    version=given.version or version,
                    top_k=given.top_k or parse_top_k(top_k),
                    deadline=deadline,
                )
            record.model = answer.model
            telemetry.observe(answer)
            if not given.single:
                return JSONResponse({"results": [_result(answer, result) for result in answer.results]})
            (result,) = answer.results
            if isinstance(result, FoveaError):
                raise result
            return JSONResponse(_result(answer, result))

    return router


@asynccontextmanager
async def _cancelled_on_disconnect(request: Request) -> AsyncIterator[None]:
    """Cancel the work inside when the client goes away, so that it costs no inference."""
    work = asyncio.current_task()
    assert work is not None

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        work.cancel("the client disconnected")

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


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
