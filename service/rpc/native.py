"""The native transport: HTTP/2 and gRPC in Rust, outside the interpreter's lock, by pygrpc-native.

Unary calls and health watches are its own. Streams and reflection go to a grpcio server behind it, on a Unix socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import grpc
from pygrpc_native import EVENT_CANCEL
from pygrpc_native.aio import Server

from service.errors import StartError

Handlers = Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]


class NativeServer(Server):
    """pygrpc-native 0.5.0's, and what it lacks beside grpcio 1.83."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Hand on streams in the form that the server behind takes: its own method of this name does nothing."""
        streams = {name: handler for name, handler in method_handlers.items() if handler.request_streaming}
        others = {name: handler for name, handler in method_handlers.items() if name not in streams}
        super().add_registered_method_handlers(service_name, others)
        super().add_generic_rpc_handlers([_Streams(service_name, streams)])

    async def start(self) -> None:
        """Serve.

        Raises:
            StartError: there can be no Unix socket.
        """
        try:
            await super().start()
        except (OSError, RuntimeError) as error:
            raise StartError(
                f"FOVEA_GRPC_TRANSPORT=native: {error}; TMPDIR must name a folder, of a short path, to write to"
            ) from error

    def _on_events(self, events: list[tuple[Any, ...]]) -> None:
        super()._on_events(events)
        for kind, call_id, *_ in events:
            # A task that is cancelled before its first step never comes to where its call is forgotten.
            if kind == EVENT_CANCEL and (call := self._calls.get(call_id)) and call.task:
                call.task.add_done_callback(partial(self._forget, call_id))

    def _forget(self, call_id: int, _: object) -> None:
        self._calls.pop(call_id, None)


class _Streams(grpc.GenericRpcHandler):
    """One service's, by the path of a call."""

    def __init__(self, service: str, handlers: Handlers) -> None:
        self._handlers = {f"/{service}/{name}": handler for name, handler in handlers.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handlers.get(handler_call_details.method)
