"""Liveness and readiness, as the Open Inference Protocol asks for them: on the HTTP port and on that of the metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from service.lifecycle import Lifecycle


def health_routes(lifecycle: Lifecycle, *, with_reason: bool) -> list[Route]:
    """Args:
    with_reason: whether to say why the service is not ready, which names models and files.
    """

    async def live(request: Request) -> JSONResponse:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> JSONResponse:
        reason = lifecycle.not_ready
        if reason is None:
            return JSONResponse({"ready": True})
        return JSONResponse({"ready": False, "error": reason if with_reason else "not ready"}, status_code=503)

    return [Route("/v2/health/live", live), Route("/v2/health/ready", ready)]
