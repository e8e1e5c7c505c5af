"""API keys over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc

from service.api_keys import ApiKeys, Right
from service.errors import FoveaError
from service.rpc.call import Context, abort, identify
from service.telemetry import Telemetry

OPEN = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
"""What probes ask, without a key."""
INFER = frozenset(
    {
        *(f"/fovea.v1.Classifier/{name}" for name in ("Classify", "ClassifyStream", "Embed", "GetModel", "ListModels")),
        *(f"/inference.GRPCInferenceService/Model{name}" for name in ("Config", "Infer", "Metadata", "Ready")),
        *(f"/inference.GRPCInferenceService/Model{name}" for name in ("Statistics", "StreamInfer")),
        "/inference.GRPCInferenceService/CudaSharedMemoryStatus",
        "/inference.GRPCInferenceService/RepositoryIndex",
        "/inference.GRPCInferenceService/ServerMetadata",
        "/inference.GRPCInferenceService/SystemSharedMemoryStatus",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }
)
"""Every other method takes the right `control`: also `LogSettings` and `TraceSetting`, which read and change in one."""


class Authentication(grpc.GenericRpcHandler):
    """Stands before a server's handlers: refuses a call from its metadata, before its message is read."""

    def __init__(self, keys: ApiKeys, telemetry: Telemetry) -> None:
        self._keys = keys
        self._telemetry = telemetry

    def refusal(self, method: str, metadata: Iterable[tuple[str, Any]]) -> FoveaError | None:
        """Why a call may not be made, if so."""
        if method in OPEN:
            return None
        given = next((value for key, value in metadata if key == "authorization"), "")
        try:
            self._keys.require(Right.INFER if method in INFER else Right.CONTROL, given)
        except FoveaError as error:
            return error.with_traceback(None)
        return None

    def watch(self, method: str, metadata: Iterable[tuple[str, Any]]) -> Callable[[], FoveaError | None]:
        """What tells, before each message of a stream, why that may not be, if so; found anew for other keys only."""
        held: object = None

        def refusal() -> FoveaError | None:
            nonlocal held
            if held is self._keys.known:
                return None
            held = self._keys.known
            return self.refusal(method, metadata)

        return refusal

    def refused(self, error: FoveaError) -> None:
        """Count a call that was refused; and log it, with the request id that holds then."""
        self._telemetry.refused("grpc", error)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        error = self.refusal(handler_call_details.method, handler_call_details.invocation_metadata)
        if error is None:
            return None

        async def refuse(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
            identify(context)
            self.refused(error)
            await abort(context, error)
            yield b""

        # Of whatever form the method is: a stream's requests are read when they are asked for.
        return grpc.stream_stream_rpc_method_handler(refuse)
