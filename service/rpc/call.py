"""What every gRPC call has: an identity, a way to end in an error, and streams that are answered in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc.aio

from service.errors import FoveaError, UnavailableError
from service.lifecycle import STOPPING, Lifecycle
from service.telemetry import RequestRecord, Telemetry, accept_request_id, request_id
from service.trace_context import TRACEPARENT, TRACESTATE, parse, trace_context

log = logging.getLogger("fovea.grpc")

STREAM_WINDOW = 16
"""Requests of one stream read before their answers were taken; the next one waits for one of those."""

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")


def identify(context: Context) -> str:
    """Give the call the request id that its client sent, or a new one, and send it back; and its trace context."""
    given = parent = None
    state: str | bytes = ""
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id":
            given = given or value
        elif key == TRACEPARENT:
            parent = value
        elif key == TRACESTATE:
            state = value
    identity = accept_request_id(given if isinstance(given, str) else None)
    request_id.set(identity)
    if parent is not None:
        trace_context.set(parse(str(parent), str(state)))
    context.set_trailing_metadata((("x-request-id", identity),))
    return identity


async def begin(context: Context, lifecycle: Lifecycle, telemetry: Telemetry) -> None:
    """Identify a call, which ends here, and is counted, where the service is stopping."""
    identify(context)
    if lifecycle.stopping.is_set():
        error = UnavailableError(STOPPING)
        telemetry.refused("grpc", error)
        await abort(context, error)


async def outcome(
    lifecycle: Lifecycle,
    telemetry: Telemetry,
    method: str,
    answer: Callable[[RequestRecord], Awaitable[Response]],
    context: Context | None,
) -> Response | FoveaError:
    """A request's answer or its error, counted as one request in flight.

    Args:
        method: the call's, as "fovea.v1.Classifier/Classify".
        context: of a call that has one answer.
    """
    lifecycle.enter()
    try:
        with telemetry.request("grpc", method) as record:
            response = await answer(record)
        if trace := record.trace:
            if context:
                context.add_done_callback(lambda _: trace.sent())  # type: ignore[arg-type]  # the stubs have no function
            else:
                trace.end()
        return response
    except FoveaError as error:
        # Tracebacks hold the images and tensors of the request.
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    except Exception as error:
        return internal(error)
    finally:
        lifecycle.leave()


def internal(error: Exception) -> FoveaError:
    """What a client is told of an error that nobody foresaw; all else of it is logged."""
    log.error("internal error", exc_info=error)
    return FoveaError("internal error; the service's log has the details")


async def abort(context: Context, error: FoveaError) -> NoReturn:
    """End the call in an error."""
    try:
        await context.abort(error.grpc_code, str(error))
    except grpc.aio.AbortError:
        raise
    except Exception:
        # The client's own deadline passed at the same moment: nobody is left to be told.
        raise asyncio.CancelledError from None
    raise AssertionError("abort returns never")


async def until(stopping: asyncio.Event, requests: AsyncIterator[Request]) -> AsyncIterator[Request]:
    """The requests of a stream, until it ends or the service stops."""
    stop = asyncio.create_task(stopping.wait())
    iterator = aiter(requests)
    try:
        while True:
            following = asyncio.ensure_future(anext(iterator, None))
            await asyncio.wait({stop, following}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                return
            request = following.result()
            if request is None:
                return
            yield request
    finally:
        stop.cancel()


async def in_order(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Awaitable[Response]],
    stopping: asyncio.Event,
) -> AsyncIterator[Response]:
    """Answer a stream's requests side by side, and give the answers in the order of the requests."""
    answers: asyncio.Queue[asyncio.Task[Response] | None] = asyncio.Queue(STREAM_WINDOW)

    async def read() -> None:
        try:
            async for request in until(stopping, requests):
                task = asyncio.ensure_future(answer(request))
                try:
                    await answers.put(task)
                except asyncio.CancelledError:
                    task.cancel()
                    raise
        finally:
            await answers.put(None)

    reader = asyncio.create_task(read())
    task: asyncio.Task[Response] | None = None
    try:
        while (task := await answers.get()) is not None:
            yield await task
        await reader
    finally:
        reader.cancel()
        if task:
            task.cancel()
        while not answers.empty():
            if left := answers.get_nowait():
                left.cancel()
