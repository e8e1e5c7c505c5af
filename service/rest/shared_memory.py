"""The HTTP side of Triton's extension "system shared memory"."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.errors import InvalidInputError
from service.rest.body import limited, whole
from service.shared_memory import SharedMemory

PATH = "/v2/systemsharedmemory"
MAX_BODY_BYTES = 2**16

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class RegisterBody(BaseModel):
    model_config = ConfigDict(strict=True)

    key: str
    offset: Count = 0
    byte_size: Count


def shared_memory_routes(memory: SharedMemory) -> list[Route]:
    async def status(request: Request) -> Response:
        regions = memory.status(request.path_params.get("name", ""))
        return JSONResponse(
            [
                {"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}
                for region in regions
            ]
        )

    async def register(request: Request) -> Response:
        try:
            body = RegisterBody.model_validate_json(await whole(limited(request, MAX_BODY_BYTES)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidInputError(f"register request: '{where}': {first['msg']}") from None
        memory.register(request.path_params["name"], body.key, body.offset, body.byte_size)
        return Response(media_type="application/json")

    async def unregister(request: Request) -> Response:
        memory.unregister(request.path_params.get("name", ""))
        return Response(media_type="application/json")

    return [
        Route(f"{PATH}/status", status),
        Route(f"{PATH}/region/{{name}}/status", status),
        Route(f"{PATH}/region/{{name}}/register", register, methods=["POST"]),
        Route(f"{PATH}/unregister", unregister, methods=["POST"]),
        Route(f"{PATH}/region/{{name}}/unregister", unregister, methods=["POST"]),
    ]
