"""The HTTP side of Triton's extensions "system shared memory" and "CUDA shared memory"."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.errors import InvalidInputError
from service.rest.body import read_body
from service.shared_memory import SharedMemory

SYSTEM = "/v2/systemsharedmemory"
CUDA = "/v2/cudasharedmemory"
MAX_BODY_BYTES = 2**16

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class SystemRegisterBody(BaseModel):
    model_config = ConfigDict(strict=True)

    key: str
    offset: Count = 0
    byte_size: Count


class RawHandle(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64")

    b64: bytes


class CudaRegisterBody(BaseModel):
    model_config = ConfigDict(strict=True)

    raw_handle: RawHandle
    device_id: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    byte_size: Count


Body = TypeVar("Body", bound=BaseModel)


def shared_memory_routes(memory: SharedMemory, *, request_timeout_s: float) -> list[Route]:
    async def read(request: Request, kind: type[Body]) -> Body:
        content = await read_body(request, max_bytes=MAX_BODY_BYTES, timeout_s=request_timeout_s)
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InvalidInputError(f"register request: '{where}': {first['msg']}") from None

    async def system_status(request: Request) -> Response:
        regions = memory.system_regions(request.path_params.get("name", ""))
        return JSONResponse(
            [
                {"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}
                for region in regions
            ]
        )

    async def register_system(request: Request) -> Response:
        body = await read(request, SystemRegisterBody)
        memory.register_system(request.path_params["name"], body.key, body.offset, body.byte_size)
        return Response(media_type="application/json")

    async def unregister_system(request: Request) -> Response:
        memory.unregister_system(request.path_params.get("name", ""))
        return Response(media_type="application/json")

    async def cuda_status(request: Request) -> Response:
        regions = memory.cuda_regions(request.path_params.get("name", ""))
        return JSONResponse(
            [{"name": region.name, "device_id": region.device_id, "byte_size": region.byte_size} for region in regions]
        )

    async def register_cuda(request: Request) -> Response:
        body = await read(request, CudaRegisterBody)
        memory.register_cuda(request.path_params["name"], body.raw_handle.b64, body.device_id, body.byte_size)
        return Response(media_type="application/json")

    async def unregister_cuda(request: Request) -> Response:
        memory.unregister_cuda(request.path_params.get("name", ""))
        return Response(media_type="application/json")

    return [
        Route(f"{SYSTEM}/status", system_status),
        Route(f"{SYSTEM}/region/{{name}}/status", system_status),
        Route(f"{SYSTEM}/region/{{name}}/register", register_system, methods=["POST"]),
        Route(f"{SYSTEM}/unregister", unregister_system, methods=["POST"]),
        Route(f"{SYSTEM}/region/{{name}}/unregister", unregister_system, methods=["POST"]),
        Route(f"{CUDA}/status", cuda_status),
        Route(f"{CUDA}/region/{{name}}/status", cuda_status),
        Route(f"{CUDA}/region/{{name}}/register", register_cuda, methods=["POST"]),
        Route(f"{CUDA}/unregister", unregister_cuda, methods=["POST"]),
        Route(f"{CUDA}/region/{{name}}/unregister", unregister_cuda, methods=["POST"]),
    ]
