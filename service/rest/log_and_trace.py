"""The HTTP side of Triton's extensions "logging" and "trace"."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.errors import InvalidInputError
from service.log_settings import LogSettings
from service.rest.body import read_body
from service.trace_settings import TraceSettings

MAX_BODY_BYTES = 2**16


def log_and_trace_routes(
    log_settings: LogSettings, trace_settings: TraceSettings, *, request_timeout_s: float
) -> list[Route]:
    async def changes(request: Request) -> dict[str, Any]:
        """What a request would change; to read is to change nothing."""
        if request.method != "POST":
            return {}
        return _parsed(await read_body(request, max_bytes=MAX_BODY_BYTES, timeout_s=request_timeout_s))

    async def log_setting(request: Request) -> Response:
        return JSONResponse(log_settings.change(await changes(request)))

    async def trace_setting(request: Request) -> Response:
        words_of = {name: _words(name, value) for name, value in (await changes(request)).items()}
        settings = trace_settings.change(request.path_params.get("name", ""), words_of)
        return JSONResponse({name: words if name == "trace_level" else words[0] for name, words in settings.items()})

    methods = ["GET", "POST"]
    return [
        Route("/v2/logging", log_setting, methods=methods),
        Route("/v2/trace/setting", trace_setting, methods=methods),
        Route("/v2/models/{name}/trace/setting", trace_setting, methods=methods),
    ]


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"failed to parse the request JSON buffer: {error}") from None
    if not isinstance(settings, dict):
        raise InvalidInputError("the body must be a JSON object of settings")
    return settings


def _words(name: str, value: object) -> list[str]:
    """A trace setting: the level is a list, every other one a string; null clears."""
    words = value if name == "trace_level" else [value]
    if value is None:
        return []
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return words
    raise InvalidInputError(
        f"{name[:100]} must be a {'list of strings' if name == 'trace_level' else 'string'}, or null"
    )
