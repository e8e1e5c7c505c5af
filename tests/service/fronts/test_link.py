"""The socket between a front and the engine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.errors import FoveaError, NotFoundError, UnavailableError
from service.fronts.link import HEAD, Handler, Link

FRAME = 9


async def linked(
    handlers: dict[int, Handler], calls: dict[str, Callable[..., Awaitable[Any]]], on_lost: Callable[[], None]
) -> tuple[Link, Link]:
    """Two ends; the handlers and calls are the second one's."""
    loop, (here, there) = asyncio.get_running_loop(), socket.socketpair()
    near, far = Link({}, {}, on_lost), Link(handlers, calls, lambda: None)
    await loop.create_unix_connection(lambda: near, sock=here)
    await loop.create_unix_connection(lambda: far, sock=there)
    return near, far


async def test_frames_arrive_whole_and_in_order_whatever_their_size() -> None:
    sizes = [0, 1, 70_000, 5, 3_000_000, 2, 0]
    found, there = list[bytes](), asyncio.Event()

    def take(body: memoryview) -> None:
        found.append(bytes(body))
        if len(found) == len(sizes):
            there.set()

    near, far = await linked({FRAME: take}, {}, lambda: None)
    for number, size in enumerate(sizes):
        near.send(FRAME, bytes([number]) * (size // 2), bytes([number]) * (size - size // 2))
    async with asyncio.timeout(30):
        await there.wait()
    assert found == [bytes([number]) * size for number, size in enumerate(sizes)]
    near.close()
    far.close()


def test_frames_in_any_pieces() -> None:
    async def in_pieces_of(size: int) -> list[bytes]:
        found = list[bytes]()
        link = Link({FRAME: lambda body: found.append(bytes(body))}, {}, lambda: None)
        stream = b"".join(HEAD.pack(len(body), FRAME) + body for body in (b"", b"a", b"longer than a piece", b"b"))
        for at in range(0, len(stream), size):
            link.data_received(stream[at : at + size])
        return found

    for size in range(1, 40):
        assert asyncio.run(in_pieces_of(size)) == [b"", b"a", b"longer than a piece", b"b"], size


async def test_a_call_is_answered_or_fails_as_it_did_there(caplog: pytest.LogCaptureFixture) -> None:
    async def double(number: int) -> int:
        return 2 * number

    async def refuse() -> None:
        raise NotFoundError("no such thing")

    async def stumble() -> None:
        raise KeyError("a bug")

    near, far = await linked({}, {"double": double, "refuse": refuse, "stumble": stumble}, lambda: None)
    assert await asyncio.gather(*(near.call("double", number) for number in range(50))) == list(range(0, 100, 2))
    with pytest.raises(NotFoundError, match="no such thing"):
        await near.call("refuse")
    with pytest.raises(FoveaError, match="internal error; the log has the details"):
        await near.call("stumble")
    assert "a bug" in caplog.text
    near.close()
    far.close()


async def test_who_waits_is_told_that_the_other_end_has_gone() -> None:
    begun, lost = asyncio.Event(), asyncio.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    near, far = await linked({}, {"forever": forever}, lost.set)
    waiting = asyncio.create_task(near.call("forever"))
    async with asyncio.timeout(30):
        await begun.wait()
        far.close()
        with pytest.raises(UnavailableError, match="the service is stopping"):
            await waiting
        await lost.wait()
    with pytest.raises(UnavailableError):
        await near.call("forever")
    near.send(FRAME, b"nobody hears it")
