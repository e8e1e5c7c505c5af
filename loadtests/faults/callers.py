"""Callers that never pause, and know what became of each request."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto

import aiohttp
import grpc.aio

from loadtests.refusals import refused_call
from loadtests.target import BUNDLED_REPOSITORY
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1.classifier_pb2_grpc import ClassifierStub

IMAGE = (BUNDLED_REPOSITORY / "cifar10" / "1" / "golden.jpg").read_bytes()
LABEL = "airplane"
"""What the bundled model says of it."""
CALLERS = 4
"""Of each way, each with one request at a time."""
AGAIN_S = 0.05
PATIENCE_S = 60.0
TIMEOUT_S = 60.0


class Ending(Enum):
    """REFUSED: the service, or the balancer before it, said that it does not take the request (503, UNAVAILABLE).
    UNREACHED: there was no connection. LOST: the request was sent, and then there was no answer or a wrong one.
    """

    ANSWERED = auto()
    REFUSED = auto()
    UNREACHED = auto()
    LOST = auto()


Attempt = Callable[[], Awaitable[tuple[Ending, str]]]
"""One request: how it ended, and in which words if not well."""


@dataclass
class Tally:
    """How the requests of one way ended.

    Attributes:
        refused, lost: by their words.
        again: requests that were asked again, and answered then.
        unanswered: those that never were.
        longest_s: from a caller's first attempt to its answer.
    """

    answered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unreached: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    again: int = 0
    unanswered: int = 0
    longest_s: float = 0.0

    @property
    def accepted(self) -> int:
        return self.answered + self.lost.total()

    def count(self, ending: Ending, words: str) -> None:
        match ending:
            case Ending.ANSWERED:
                self.answered += 1
            case Ending.REFUSED:
                self.refused[words] += 1
            case Ending.UNREACHED:
                self.unreached += 1
            case Ending.LOST:
                self.lost[words] += 1


class Callers:
    """Callers at work."""

    def __init__(self, ways: Mapping[str, Attempt], patience_s: float) -> None:
        self.tallies = {way: Tally() for way in ways}
        self._patience_s = patience_s
        self._over = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._go_on(attempt, self.tallies[way]))
            for way, attempt in ways.items()
            for _ in range(CALLERS)
        ]

    async def steady(self, seconds: float) -> None:
        """Let them call for so long, and until each way was answered since."""
        before = {way: tally.answered for way, tally in self.tallies.items()}
        await asyncio.sleep(seconds)
        await self.until(lambda: all(tally.answered > before[way] for way, tally in self.tallies.items()))

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for what only looking can tell.

        Raises:
            TimeoutError: it is not so within a minute.
        """
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(true):
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    async def until_they_gave_up(self) -> None:
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """No more requests; those that were begun are waited for."""
        self._over.set()
        await asyncio.gather(*self._tasks)

    @property
    def longest_s(self) -> float:
        return max(tally.longest_s for tally in self.tallies.values())

    @property
    def refused(self) -> int:
        return sum(tally.refused.total() for tally in self.tallies.values())

    @property
    def unreached(self) -> int:
        return sum(tally.unreached for tally in self.tallies.values())

    @property
    def again(self) -> int:
        return sum(tally.again for tally in self.tallies.values())

    async def _go_on(self, attempt: Attempt, tally: Tally) -> None:
        while not self._over.is_set():
            start, attempts = time.perf_counter(), 0
            while True:
                attempts += 1
                ending, words = await attempt()
                tally.count(ending, words)
                if ending is Ending.ANSWERED:
                    tally.again += attempts > 1
                    tally.longest_s = max(tally.longest_s, time.perf_counter() - start)
                    break
                if time.perf_counter() - start > self._patience_s:
                    tally.unanswered += 1
                    return
                await asyncio.sleep(AGAIN_S)


@asynccontextmanager
async def calling(
    http: str, grpc_address: str, *, patience_s: float = PATIENCE_S, authorities: bytes | None = None
) -> AsyncIterator[Callers]:
    """Callers over HTTP and gRPC, who ask again until they are answered.

    Args:
        http: `http://host:port`.
        grpc_address: `host:port`.
        patience_s: how long they ask again; who is left unanswered then calls no more.
        authorities: certificates, PEM, that the service's is held against: with them each request has a connection
            of its own. None: no TLS, and connections stay open.
    """
    async with AsyncExitStack() as stack:
        if authorities is None:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(grpc_address, LOCAL))
            stub = ClassifierStub(channel)
            ways: dict[str, Attempt] = {
                "HTTP": lambda: over_http(session, http),
                "gRPC": lambda: over_grpc(stub),
            }
        else:
            ways = {
                "HTTP": lambda: over_new_https(http, authorities),
                "gRPC": lambda: over_new_grpcs(grpc_address, authorities),
            }
        callers = Callers(ways, patience_s)
        try:
            yield callers
        finally:
            await callers.stop()


LOCAL = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]


async def over_new_https(address: str, authorities: bytes) -> tuple[Ending, str]:
    context = ssl.create_default_context(cadata=authorities.decode())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        return await over_http(session, address)


async def over_new_grpcs(address: str, authorities: bytes) -> tuple[Ending, str]:
    credentials = grpc.ssl_channel_credentials(authorities)
    async with grpc.aio.secure_channel(address, credentials, LOCAL) as channel:
        return await over_grpc(ClassifierStub(channel))


async def over_http(session: aiohttp.ClientSession, address: str) -> tuple[Ending, str]:
    """One request over HTTP."""
    url, headers = f"{address}/v1/classify", {"content-type": "image/jpeg"}
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    try:
        async with session.post(url, data=IMAGE, headers=headers, timeout=timeout) as response:
            if response.status == 200:
                return _of_label((await response.json())["predictions"][0]["label"])
            await response.read()
            return (Ending.REFUSED if response.status == 503 else Ending.LOST), str(response.status)
    except aiohttp.ClientConnectorError as error:
        return Ending.UNREACHED, str(error)
    except (aiohttp.ClientError, TimeoutError) as error:
        return Ending.LOST, "no answer within the minute" if isinstance(error, TimeoutError) else "connection closed"


async def over_grpc(stub: ClassifierStub) -> tuple[Ending, str]:
    """One call over gRPC."""
    try:
        answer = await stub.Classify(pb.ClassifyRequest(images=[IMAGE]), timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        code, words = error.code(), error.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE:
            if words.startswith("failed to connect"):
                return Ending.UNREACHED, words
            if refused_call(error):
                return Ending.REFUSED, code.name
            return Ending.LOST, "502" if words.endswith("status: 502") else "connection closed"
        return Ending.LOST, code.name
    return _of_label(answer.results[0].classification.predictions[0].label)


def _of_label(label: str) -> tuple[Ending, str]:
    return (Ending.ANSWERED, "") if label == LABEL else (Ending.LOST, "wrong answer")
