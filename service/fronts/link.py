"""The socket between a front and the engine: frames both ways, and calls that are answered.

A frame is its length, its kind and its body. What is sent within one turn of the event loop leaves in one system call.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import struct
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, cast

from service.errors import FoveaError, UnavailableError

log = logging.getLogger("fovea.fronts")

HEAD = struct.Struct("<IB")
"""A frame's length, without this; its kind."""
CALL, ANSWER = 0, 1
"""The kinds of frames that are the link's own."""

Handler = Callable[[memoryview], None]


class Link(asyncio.Protocol):
    """One end.

    Args:
        handlers: what to do with a frame, by its kind; the body is valid only until the handler returns.
        calls: what the other end may call, by name. A FoveaError is its to see; whatever else is raised is a
            bug, and logged here.
        on_lost: called when the other end has gone.
    """

    def __init__(
        self,
        handlers: dict[int, Handler],
        calls: dict[str, Callable[..., Awaitable[Any]]],
        on_lost: Callable[[], None],
    ) -> None:
        self._handlers = {**handlers, CALL: self._on_call, ANSWER: self._on_answer}
        self._calls = calls
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received: list[bytes] = []
        self._received_bytes = self._needed_bytes = 0
        """What has come of a frame that is not all there, and how much it takes to go on."""
        self._outgoing: list[bytes] = []
        self._numbers = count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self.lost = False

    def send(self, kind: int, *parts: bytes) -> None:
        """Send one frame, soon."""
        if self.lost:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(HEAD.pack(sum(map(len, parts)), kind))
        self._outgoing += parts

    async def call(self, name: str, *arguments: Any) -> Any:
        """Have the other end do something, and get what came of it.

        Raises:
            FoveaError: as it did there.
            UnavailableError: the other end has gone.
        """
        if self.lost:
            raise UnavailableError("the service is stopping")
        number = next(self._numbers)
        asked = self._asked[number] = self._loop.create_future()
        self.send(CALL, pickle.dumps((number, name, arguments)))
        try:
            return await asked
        finally:
            del self._asked[number]

    def close(self) -> None:
        """Send what is to be sent, and hang up."""
        self._flush()
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(UnavailableError("the service is stopping"))
        for task in self._answering:
            task.cancel()
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        if self._received:
            self._received.append(data)
            self._received_bytes += len(data)
            if self._received_bytes < self._needed_bytes:
                return
            data = b"".join(self._received)
            self._received.clear()
        view, at, self._needed_bytes = memoryview(data), 0, HEAD.size
        while len(data) - at >= HEAD.size:
            length, kind = HEAD.unpack_from(data, at)
            end = at + HEAD.size + length
            if end > len(data):
                self._needed_bytes = end - at
                break
            self._handlers[kind](view[at + HEAD.size : end])
            at = end
        if at < len(data):
            self._received.append(data[at:])
            self._received_bytes = len(data) - at

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self._transport and not self._transport.is_closing():
            self._transport.write(b"".join(outgoing))

    def _on_call(self, body: memoryview) -> None:
        task = self._loop.create_task(self._answer(*pickle.loads(body)))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            answer = (number, True, await self._calls[name](*arguments))
        except FoveaError as error:
            answer = (number, False, error_words(error))
        except Exception as error:
            log.exception("internal error in %s", name, exc_info=error)
            answer = (number, False, (FoveaError, "internal error; the log has the details"))
        self.send(ANSWER, pickle.dumps(answer))

    def _on_answer(self, body: memoryview) -> None:
        number, succeeded, content = pickle.loads(body)
        asked = self._asked.get(number)
        if asked is None or asked.done():
            return
        if succeeded:
            asked.set_result(content)
        else:
            asked.set_exception(error_of(content))


def error_words(error: FoveaError) -> tuple[type[FoveaError], str]:
    """An error as it travels: without its cause and its traceback."""
    return type(error), str(error)


def error_of(words: tuple[type[FoveaError], str]) -> FoveaError:
    kind, text = words
    return kind(text)
