"""A client's HTTP connection: uvicorn's, with an end to what a slow or idle client may hold."""

from __future__ import annotations

import json
from asyncio import TimerHandle, Transport
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, ClassVar

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.rest.headers import REQUEST_ID

CONNECTION = "fovea.connection"
"""In a scope's state."""


class HeadWithBody:
    """A transport that sends an answer's head together with what follows, which takes one system call rather than two.

    Until then it holds the head: `flush` where nothing followed.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._held = b""

    def write(self, content: bytes) -> None:
        if self._transport.is_closing():
            # Of requests that came together, uvicorn tells only the last that their client has gone.
            return
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, content))
            return
        if content.startswith(b"HTTP/1.1 ") and not content.startswith(b"HTTP/1.1 100 "):
            self._held = content
            return
        self._transport.write(content)

    def write_whole(self, content: bytes) -> None:
        """An answer, with its head."""
        self._transport.write(content)

    def flush(self) -> None:
        if self._held and not self._transport.is_closing():
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@lru_cache(1)
def _lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Of the headers that every answer has, which are the same for a second."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class DirectCycle:
    """What uvicorn asks of a request that is being answered, for one that is answered without an application."""

    class _NobodyWaits:
        def set(self) -> None: ...

    message_event = _NobodyWaits()
    disconnected = False
    response_complete = False
    keep_alive = True


class HttpConnection(HttpToolsProtocol):
    """The client has so long to send a request's head, counted from when the connection was made or the last answer
    was given; and so long to take an answer. Then it is cut off. How long a body may take is for those who read it.

    Attributes:
        patience_s: the time for a head; for an answer there is more, at `min_bytes_per_s`.
        max_head_bytes: of a request, before its body.
        max_connections: of the port; one more is refused.
        gone: whether the client is.
        on_gone: called when it goes; for the request that is being answered, which finds the connection in its scope.

    Args:
        direct: is offered every POST whose head and body have arrived together, with its body, before the application;
            says whether it takes it, and has called `begin_direct` then.
    """

    patience_s: ClassVar[float] = 20.0
    min_bytes_per_s: ClassVar[int] = 16 * 2**10
    max_head_bytes: ClassVar[int] = 64 * 2**10

    def __init__(
        self,
        *arguments: Any,
        direct: Callable[[HttpConnection, bytes], bool] | None = None,
        max_connections: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._direct = direct
        self._max_connections = max_connections
        self._body: list[bytes] | None = None
        """Of a request that may be answered directly."""
        self._answered_directly: DirectCycle | None = None

    gone = False
    on_gone: Callable[[], object] | None = None

    @property
    def body_is_there(self) -> bool:
        """Whether all of the body has arrived, of the request that is being answered."""
        # Of a later one, if any: that one begins where this one's body ends.
        return not self.cycle.more_body

    _timer: TimerHandle | None = None
    _timer_at = 0.0
    _until: float | None = None
    """When the client is cut off, by the loop's clock; None: it is the service's turn."""
    _in_head = False
    _head_bytes = 0

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(HeadWithBody(transport))  # type: ignore[arg-type]
        self._be_patient()
        if self._max_connections and len(self.connections) > self._max_connections:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"there are {self._max_connections} connections already")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)
        self.gone = True
        if self.on_gone:
            self.on_gone()

    def data_received(self, data: bytes) -> None:
        began_in_head = self._in_head
        super().data_received(data)
        if self._body is not None:
            # More of it is to come: the application knows how to wait.
            self._to_application()
        if began_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {self.max_head_bytes} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Of requests that arrive together, one that was refused at once has set it.
        self._unset_keepalive_if_required()
        self.scope["state"][CONNECTION] = self
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._wait()
        if self._direct and self._is_plain_post():
            self._body = []
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._body is None:
            super().on_body(body)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._body is not None and self._direct:
            if self._direct(self, self._body[0] if len(self._body) == 1 else b"".join(self._body)):
                self._body = None
                return
            self._to_application()
        super().on_message_complete()

    def _is_plain_post(self) -> bool:
        """Whether the request's head has nothing that needs more than an answer; no other is before it."""
        return (
            self.parser.get_method() == b"POST"
            and (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_http_version() != "1.0"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
            and not self.flow.write_paused
        )

    def _to_application(self) -> None:
        body, self._body = self._body, None
        if self.transport.is_closing():
            return
        super().on_headers_complete()
        for part in body or ():
            super().on_body(part)

    def begin_direct(self, on_gone: Callable[[], object]) -> None:
        """A request is being answered directly; one of the next two is to follow, unless the client goes away."""
        self._answered_directly = self.cycle = DirectCycle()  # type: ignore[assignment]
        self.on_gone = on_gone

    def end_direct(self, head: bytes, *body: bytes, last: bool = False) -> None:
        """The whole answer.

        Args:
            head: without the headers that every answer has, and without the empty line.
            last: whether the connection is closed after it.
        """
        # By now `self.cycle` may be that of a later request.
        cycle, self._answered_directly = self._answered_directly, None
        assert cycle is not None
        cycle.response_complete = True
        self.on_gone = None
        if self.gone:
            return
        common = _lines(tuple(self.server_state.default_headers))
        last = last or not cycle.keep_alive
        end_of_head = b"connection: close\r\n\r\n" if last else b"\r\n"
        self.transport.write_whole(b"".join([head, common, end_of_head, *body]))  # type: ignore[attr-defined]
        if last:
            self.transport.close()
        self.on_response_complete()

    def fail_direct(self, response: Response, identity: str, *, last: bool = False) -> None:
        """An answer that is an error.

        Args:
            identity: the request's id.
            last: as for `end_direct`.
        """
        headers = [*response.raw_headers, (REQUEST_ID, identity.encode())]
        head = b"".join([STATUS_LINE[response.status_code], *(b"%b: %b\r\n" % header for header in headers)])
        self.end_direct(head, bytes(response.body), last=last)

    def give_up(self) -> None:
        """Leave a request without its answer that is being answered directly: it has no task that could be ended."""
        if self._answered_directly:
            self.transport.abort()

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]
        super().on_response_complete()
        # Else there is another request, which was sent before this one was answered.
        if self.cycle.response_complete:
            self._be_patient()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._be_patient()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.cycle.response_complete:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Answer what is not HTTP in the form of every other error."""
        body = json.dumps({"error": text}).encode()
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _be_patient(self) -> None:
        to_be_taken_s = self.transport.get_write_buffer_size() / self.min_bytes_per_s
        self._until = self.loop.time() + self.patience_s + to_be_taken_s
        # One for many requests: a timer for each would cost as much as half of the parser.
        if self._timer is None or self._until < self._timer_at:
            self._set_timer(self._until)

    def _lose_patience(self) -> None:
        self._timer = None
        if self._until is None:
            return
        if self._until <= self.loop.time():
            self.transport.abort()
        else:
            self._set_timer(self._until)

    def _set_timer(self, moment: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer, self._timer_at = self.loop.call_at(moment, self._lose_patience), moment

    def _wait(self) -> None:
        """As long as it takes: it is not the client who is waited for."""
        self._until = None
