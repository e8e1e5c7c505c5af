"""`POST /v1/classify`: images in a raw body, a form or JSON; ranked labels out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.classifier import Answer, Classification, Classifier
from service.errors import DeadlineExceededError, FoveaError
from service.rest.body import parse_top_k, read_input
from service.telemetry import Telemetry


def classify_route(
    classifier: Classifier,
    telemetry: Telemetry,
    *,
    request_timeout_s: float,
    max_request_bytes: int,
    max_images: int,
) -> Route:
    async def classify(request: Request) -> Response:
        deadline = time.monotonic() + request_timeout_s
        query = request.query_params
        with telemetry.request("http") as record:
            try:
                async with asyncio.timeout(request_timeout_s):
                    given = await read_input(request, max_request_bytes=max_request_bytes, max_images=max_images)
            except TimeoutError:
                raise DeadlineExceededError(f"the body did not arrive within {request_timeout_s:g} s") from None
            async with _cancelled_on_disconnect(request):
                answer = await classifier.classify(
                    given.images,
                    model=given.model or query.get("model", ""),
                    version=given.version or query.get("version", ""),
                    top_k=parse_top_k(query["top_k"]) if given.top_k is None and "top_k" in query else given.top_k,
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

    return Route("/v1/classify", classify, methods=["POST"])


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
