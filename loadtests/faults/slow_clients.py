"""Clients that send a byte at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from loadtests.faults.callers import IMAGE, calling
from loadtests.faults.fault import Fault, Finding
from loadtests.faults.replica import replica
from loadtests.report.senders import allow_many_connections

CONNECTIONS = 150
"""Of each kind."""
GAP_S = 0.5
HEAD = b"POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/jpeg\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def provoke(seconds: float) -> Finding:
    allow_many_connections()
    async with replica() as service:
        http, grpc = urlsplit(service.target.http), urlsplit(f"//{service.target.grpc}")
        async with calling(service.target.http, service.target.grpc) as callers:
            await callers.steady(seconds)
            calm_s = callers.longest_s
            kinds = {
                "half a head": (http.port, b"", HEAD),
                "half a body": (http.port, HEAD + f"content-length: {len(IMAGE)}\r\n\r\n".encode(), IMAGE),
                "half of HTTP/2's first words": (grpc.port, b"", PREFACE),
            }
            slow = [
                asyncio.create_task(trickle(port or 0, at_once, slowly))
                for port, at_once, slowly in kinds.values()
                for _ in range(CONNECTIONS)
            ]
            await callers.steady(2 * seconds)
            ended = sum(each.done() for each in slow)
            for each in slow:
                each.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            await callers.stop()
    return Finding(
        f"{len(slow)} connections that send {', '.join(kinds)} a byte each {GAP_S:g} s",
        f"the others were answered all along, the longest after {callers.longest_s:.2f} s ({calm_s:.2f} s before); "
        f"{ended} of the slow ones were cut off by then (a head has 20 s); {callers.refused} refused",
        callers.tallies,
    )


async def trickle(port: int, at_once: bytes, slowly: bytes) -> None:
    """Until it is all sent, or the other side has had enough."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with suppress(ConnectionError):
            writer.write(at_once)
            for byte in slowly:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(GAP_S)
    finally:
        writer.close()


FAULT = Fault("slow-clients", "Slow clients", provoke)
