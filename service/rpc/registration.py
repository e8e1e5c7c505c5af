"""Adding services to a server so that bytes that are no message are the client's mistake.

A deserializer that raises is taken by grpcio for the service's own failure: UNKNOWN, and a traceback in the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Never, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from service.errors import FoveaError, InvalidInputError
from service.lifecycle import Lifecycle
from service.rpc.authentication import Authentication
from service.rpc.call import Context, abort, identify, internal, outcome
from service.telemetry import RequestRecord, Telemetry

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Registration:
    """What the stubs' `add_…Servicer_to_server` take for a server.

    Bytes that are no message of their method's end a call in INVALID_ARGUMENT; on a stream, once all that came before
    them is answered. So does a stream end in UNAUTHENTICATED whose key holds no more. An error that nobody foresaw ends
    a call in INTERNAL, and its words go to the log alone.

    Args:
        authentication: is asked before each message of a stream; None: nobody is.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        telemetry: Telemetry,
        lifecycle: Lifecycle,
        authentication: Authentication | None,
    ) -> None:
        self._server = server
        self._telemetry = telemetry
        self._lifecycle = lifecycle
        self._authentication = authentication

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The stubs' old way: the same methods follow by the other one."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add a service's methods, by their names."""
        guarded = {name: self._guarded(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        # grpcio's asyncio server looks at these alone.
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))
        self._server.add_registered_method_handlers(service, guarded)

    def _guarded(self, method: str, handler: Handler) -> Handler:
        forms: dict[tuple[bool, bool], tuple[Callable[..., Any], Callable[..., Handler]]] = {
            (False, False): (self._call(handler.unary_unary), grpc.unary_unary_rpc_method_handler),
            (False, True): (self._call(handler.unary_stream), grpc.unary_stream_rpc_method_handler),
            (True, True): (self._stream(method, handler.stream_stream), grpc.stream_stream_rpc_method_handler),
        }
        behaviour, form = forms[bool(handler.request_streaming), bool(handler.response_streaming)]
        return form(
            behaviour,
            request_deserializer=_message_or_not(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _call(self, behaviour: Any) -> Callable[..., Any]:
        """Of one request: answered, or a health watch, which writes its answers by itself."""

        async def call(request: Any, context: Context) -> Any:
            if isinstance(request, _NoMessage):
                await self._refuse(request, context)
            answering = behaviour(request, context)
            # gRPC keeps the exception that `abort` raises, and with it this frame: leave no request in it.
            del request
            try:
                answer = await answering
            except grpc.aio.BaseError:
                raise
            except Exception as error:
                bug = internal(error)
            else:
                return answer
            return await abort(context, bug)

        return call

    def _stream(self, method: str, behaviour: Any) -> Callable[..., Any]:
        async def call(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            metadata = context.invocation_metadata() or ()
            refusal = self._authentication.watch(method, metadata) if self._authentication else _nothing
            refused: list[_NoMessage | FoveaError] = []

            async def messages() -> AsyncIterator[Any]:
                async for request in requests:
                    if error := refusal():
                        refused.append(error)
                        return
                    if isinstance(request, _NoMessage):
                        refused.append(request)
                        return
                    yield request

            try:
                async with aclosing(behaviour(messages(), context)) as answers:
                    async for answer in answers:
                        yield answer
                bug = None
            except grpc.aio.BaseError:
                raise
            except Exception as error:
                bug = internal(error)
            if bug:
                await abort(context, bug)
            if refused:
                await self._refuse(refused[0], context)

        return call

    async def _refuse(self, refused: _NoMessage | FoveaError, context: Context) -> None:
        identify(context)
        if isinstance(refused, FoveaError):
            self._telemetry.refused("grpc", refused)
            await abort(context, refused)
        reason = refused.reason

        async def answer(record: RequestRecord) -> Never:
            raise InvalidInputError(f"the bytes sent are no message of this method: {reason}")

        error: FoveaError = await outcome(self._lifecycle, self._telemetry, "unreadable", answer, context)
        await abort(context, error)


@dataclass(frozen=True)
class _NoMessage:
    reason: str


def _nothing() -> None:
    """No refusal, of anyone."""


def _message_or_not(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    assert parse

    def read(content: bytes) -> Any:
        try:
            return parse(content)
        except DecodeError as error:
            return _NoMessage(str(error))

    return read
