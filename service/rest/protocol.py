"""The HTTP side of the Open Inference Protocol, with Triton's extensions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from google.protobuf.message import Message
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.control import Control
from service.errors import InvalidInputError, UnavailableError, UnsupportedError
from service.inference import Inference
from service.protocol import ServiceInformation
from service.rest.body import read_body
from service.rest.compression import chosen_encoding, compress
from service.rest.disconnect import CancelledOnDisconnect, answered
from service.rest.headers import WholeResponse, header
from service.rest.infer_body import parse_request, write_answer
from service.rest.known_infer import HEADER_LENGTH, INFER_ROUTE, KnownInfer
from service.rest.load_body import parse_load
from service.rest.protobuf_json import to_json
from service.shared_memory import SharedMemory
from service.telemetry import RequestRecord, Telemetry

P = ParamSpec("P")
Done = TypeVar("Done")


class _Digits(StringConvertor):
    """A version in a path; anything else is no such path."""

    regex = "[0-9]+"


SMALL_BYTES = 2**17


def protocol_routes(
    inference: Inference,
    information: ServiceInformation,
    control: Control,
    memory: SharedMemory,
    telemetry: Telemetry,
    known: KnownInfer,
    *,
    request_timeout_s: float,
    max_request_bytes: int,
) -> list[Route]:
    async def infer(request: Request) -> Response:
        return await answered(telemetry, INFER_ROUTE, lambda record: answer(request, record))

    async def answer(request: Request, record: RequestRecord) -> Response:
        deadline = time.monotonic() + request_timeout_s
        name = _name(request)
        record.model = inference.known_model(name)
        content = await body_of(request)
        if record.trace:
            record.trace.read()
        served, part = inference.choose(name, _version(request))
        with served:
            json_length = header(request, HEADER_LENGTH)
            asked = await _soon(len(content), parse_request, content, json_length, served.config, memory)
            async with CancelledOnDisconnect(request):
                found = await inference.infer(
                    served,
                    asked.inputs,
                    outputs=list(asked.outputs),
                    priority=asked.priority,
                    timeout_us=asked.timeout_us,
                    deadline=deadline,
                    request_id=asked.id,
                    part=part,
                )
        telemetry.inferred(record, found.model, found.version, found.timeline, asked.id)
        known.remember(request, content, json_length, asked, served, found, memory)
        body, header_length = write_answer(asked, found, memory)
        headers = [(b"content-type", b"application/json")]
        if header_length is not None:
            headers = [(b"content-type", b"application/octet-stream"), (HEADER_LENGTH, b"%d" % header_length)]
        if encoding := chosen_encoding(header(request, b"accept-encoding")):
            body = await _soon(len(body), compress, body, encoding)
            headers.append((b"content-encoding", encoding.encode()))
        return WholeResponse(body, headers)

    async def body_of(request: Request) -> bytes:
        return await read_body(request, max_bytes=max_request_bytes, timeout_s=request_timeout_s)

    async def server(request: Request) -> Response:
        return _json(information.server())

    async def model(request: Request) -> Response:
        return _json(information.model(_name(request), _version(request)))

    async def ready(request: Request) -> Response:
        if information.ready(_name(request), _version(request)):
            return JSONResponse({"name": _name(request), "ready": True})
        raise UnavailableError(f"model '{_name(request)}' is not ready")

    async def config(request: Request) -> Response:
        return JSONResponse(to_json(information.config(_name(request), _version(request)).config))

    async def statistics(request: Request) -> Response:
        return _json(await information.statistics(_name(request), _version(request)))

    async def index(request: Request) -> Response:
        content = await body_of(request)
        try:
            asked = json.loads(content or b"{}")
            wanted = asked.get("ready", False)
        except (ValueError, RecursionError, AttributeError) as error:
            raise InvalidInputError(f"failed to parse the request JSON buffer: {error}") from None
        if not isinstance(wanted, bool):
            raise InvalidInputError(f"'ready' is {wanted!r}: must be true or false")
        return JSONResponse([_entry(to_json(entry)) for entry in information.index(ready=wanted).models])

    async def load(request: Request) -> Response:
        asked = parse_load(await body_of(request))
        await control.load(_name(request), asked.config, asked.files)
        return Response(media_type="application/json")

    async def unload(request: Request) -> Response:
        # Its one parameter, unload_dependents, is for ensembles, which there are none of.
        await body_of(request)
        await control.unload(_name(request))
        return Response(media_type="application/json")

    async def named_repository(request: Request) -> Response:
        raise UnsupportedError("'repository_name' specification is not supported")

    register_url_convertor("digits", _Digits())

    def each(path: str, endpoint: Any, method: str = "GET") -> list[Route]:
        """A model's path, with and without a version."""
        return [
            Route(f"/v2/models/{{name}}{version}{path}", endpoint, methods=[method])
            for version in ("", "/versions/{version:digits}")
        ]

    return [
        *each("/infer", infer, "POST"),
        Route("/v2", server),
        Route("/v2/models/stats", statistics),
        *each("", model),
        *each("/ready", ready),
        *each("/config", config),
        *each("/stats", statistics),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", unload, methods=["POST"]),
        Route("/v2/repository/{repository}/index", named_repository, methods=["POST"]),
        Route("/v2/repository/{repository}/models/{name}/{action}", named_repository, methods=["POST"]),
    ]


async def _soon(size: int, work: Callable[P, Done], *arguments: P.args, **options: P.kwargs) -> Done:
    """Do the work at once where there is little of it; else in a thread, so that nobody waits for it."""
    if size <= SMALL_BYTES:
        return work(*arguments, **options)
    return await asyncio.to_thread(work, *arguments, **options)


def _name(request: Request) -> str:
    return str(request.path_params.get("name", ""))


def _version(request: Request) -> str:
    return str(request.path_params.get("version", ""))


def _json(message: Message) -> Response:
    return JSONResponse(to_json(message))


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    """An index entry has a reason only where there is one."""
    return {key: value for key, value in entry.items() if value or key != "reason"}
