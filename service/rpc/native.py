"""The native transport: HTTP/2 and gRPC in Rust, outside the interpreter's lock, by pygrpc-native.

Unary calls and health watches are its own. Streams and reflection go to a grpcio server behind it, on a Unix socket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import grpc
from pygrpc_native import EVENT_CANCEL
from pygrpc_native.aio import Server

from service.errors import FoveaError, StartError
from service.known_requests import Flight
from service.rpc.authentication import Authentication
from service.rpc.known_infer import INFER_METHOD, KnownInfer
from service.telemetry import accept_request_id, request_id
from service.trace_context import TRACEPARENT, TRACESTATE, parse

Trailing = tuple[tuple[str, str], ...]
Handlers = Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]


REQUEST_ID = "x-request-id"
INFER = f"/{INFER_METHOD}"


class NativeServer(Server):
    """pygrpc-native 0.5.0's, and what it lacks beside grpcio 1.83.

    Args:
        known: calls that are answered as soon as they arrive, without a task.
        authentication: refuses calls before anything else is done with them. For those that go to the server behind it
            is also to be added as a handler.
        request_timeout_s: for those of them without a deadline, and the most that one may ask for.
    """

    def __init__(
        self,
        known: KnownInfer,
        authentication: Authentication | None = None,
        *,
        request_timeout_s: float,
        options: Sequence[tuple[str, Any]],
    ) -> None:
        super().__init__(options=options)
        self._known = known
        self._authentication = authentication
        self._request_timeout_s = request_timeout_s
        self._flights: dict[int, Flight] = {}

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

    async def stop(self, grace: float | None) -> None:
        await super().stop(grace)
        # They have no tasks that it could end.
        while self._flights:
            self._flights.popitem()[1].cancel()

    def _on_events(self, events: list[tuple[Any, ...]]) -> None:
        if self._authentication:
            events = [event for event in events if not self._is_refused(event, self._authentication)]
        others = [event for event in events if not self._is_known(event)]
        super()._on_events(others)
        for kind, call_id, *_ in others:
            # A task that is cancelled before its first step never comes to where its call is forgotten.
            if kind == EVENT_CANCEL and (call := self._calls.get(call_id)) and call.task:
                call.task.add_done_callback(partial(self._forget, call_id))

    def _is_refused(self, event: tuple[Any, ...], authentication: Authentication) -> bool:
        kind, call_id, method_id, _, _, details = event
        if kind == EVENT_CANCEL:
            return False
        metadata = details[0]
        error = authentication.refusal(self._table[method_id][0], metadata)
        if error is None:
            return False
        identity = accept_request_id(next((value for key, value in metadata if key == REQUEST_ID), None))
        named = request_id.set(identity)
        authentication.refused(error)
        request_id.reset(named)
        self._end_in(call_id, ((REQUEST_ID, identity),), error)
        return True

    def _is_known(self, event: tuple[Any, ...]) -> bool:
        """Begin a call, or end it, that is answered without a task."""
        kind, call_id, method_id, payload, _, details = event
        if kind == EVENT_CANCEL:
            if flight := self._flights.pop(call_id, None):
                flight.cancel()
            return flight is not None
        if self._stopping or self._table[method_id][0] != INFER:
            return False
        metadata, _, remaining_s = details
        sent = {key: value for key, value in metadata if key in (REQUEST_ID, TRACEPARENT, TRACESTATE)}
        identity = accept_request_id(sent.get(REQUEST_ID))
        parent = parse(sent[TRACEPARENT], sent.get(TRACESTATE, "")) if TRACEPARENT in sent else None
        trailing = ((REQUEST_ID, identity),)
        answer = partial(self._answer, call_id, trailing)
        fail = partial(self._fail_known, call_id, trailing)
        flight = self._known.flight(payload, identity, answer, fail, parent)
        if flight is None:
            return False
        self._flights[call_id] = flight
        timeout_s = self._request_timeout_s
        flight.begin(timeout_s if remaining_s is None else min(timeout_s, remaining_s))
        return True

    def _answer(self, call_id: int, trailing: Trailing, message: bytes) -> None:
        del self._flights[call_id]
        assert self._front
        self._front.respond(call_id, message, trailing_metadata=trailing)

    def _fail_known(self, call_id: int, trailing: Trailing, error: FoveaError) -> None:
        del self._flights[call_id]
        self._end_in(call_id, trailing, error)

    def _end_in(self, call_id: int, trailing: Trailing, error: FoveaError) -> None:
        assert self._front
        self._front.fail(call_id, error.grpc_code.value[0], str(error), trailing_metadata=trailing)

    def _forget(self, call_id: int, _: object) -> None:
        self._calls.pop(call_id, None)


class _Streams(grpc.GenericRpcHandler):
    """One service's, by the path of a call."""

    def __init__(self, service: str, handlers: Handlers) -> None:
        self._handlers = {f"/{service}/{name}": handler for name, handler in handlers.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handlers.get(handler_call_details.method)
