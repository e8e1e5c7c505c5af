"""The service in the test's own process, where a test sees which way a request takes, and can hold a batch up."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service import app, listeners
from service.backends.instance import Instance
from service.batching import BatchOutput
from service.known_requests import Flight, KnownRequests
from service.lifecycle import Lifecycle
from service.settings import Settings
from service.statistics import VersionStatistics
from service.tensors import Tensors
from tests.conformance.wire import LENGTH_HEADER, Answer, Array, binary_tensor, model_path
from tests.service.launch import metric_of

TIMEOUT_S = 60.0


class Gate:
    """What every batch passes: open, unless a test shuts it.

    Attributes:
        sizes: items in each batch that came to it.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._open = threading.Event()
        self._open.set()
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def shut(self) -> None:
        self.sizes.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def pass_through(self, items: Sequence[Tensors]) -> None:
        self.sizes.append(len(items))
        self._loop.call_soon_threadsafe(self._arrived.set)
        assert self._open.wait(TIMEOUT_S)

    async def reached(self, batches: int = 1) -> None:
        """Wait until so many have come since it was shut."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.sizes) < batches:
                self._arrived.clear()
                await self._arrived.wait()


@dataclass
class Inside:
    """A service that has started.

    Attributes:
        folder: the model repository.
        known: for every request that was known, who knew it.
    """

    folder: Path
    running: app.Running
    lifecycle: Lifecycle
    gate: Gate
    known: list[KnownRequests] = field(default_factory=list)

    async def connect(self) -> Client:
        host, port = self.running.http_address.split(":")
        return Client(*await asyncio.open_connection(host, int(port)))

    async def metric(self, name: str, **labels: str) -> float:
        async with httpx.AsyncClient() as http:
            page = (await http.get(f"http://{self.running.metrics_address}/metrics")).text
        return metric_of(page, name, **labels)

    async def wait_for_metric(self, at_least: float, name: str, **labels: str) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while await self.metric(name, **labels) < at_least:
                pass

    def statistics(self, model: str, version: str = "1") -> VersionStatistics:
        served = self.running.repository.catalogue.find(model).versions[version].served
        assert served
        return served.statistics

    async def waits(self, model: str, rows: int) -> None:
        """Wait until so many rows are in the queue."""
        served = self.running.repository.catalogue.find(model).versions["1"].served
        assert served
        async with asyncio.timeout(TIMEOUT_S):
            while served.batcher.queue_depth < rows:  # noqa: ASYNC110
                await asyncio.sleep(0)


@asynccontextmanager
async def inside(repository: Path, **settings: Any) -> AsyncIterator[Inside]:
    """The whole service, as `fovea serve` composes it."""
    ports: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    lifecycle, gate, known = Lifecycle(), Gate(), list[KnownRequests]()
    run, flight = Instance.run, KnownRequests.flight

    def gated(instance: Instance, items: Sequence[Tensors]) -> BatchOutput[Tensors]:
        gate.pass_through(items)
        return run(instance, items)

    def seen(requests: KnownRequests, *arguments: Any) -> Flight | None:
        found = flight(requests, *arguments)
        if found:
            known.append(requests)
        return found

    with pytest.MonkeyPatch.context() as patch:
        # The log is pytest's to set up, signals are for the process.
        patch.setattr(logging, "basicConfig", lambda **_: None)
        patch.setattr(logging, "captureWarnings", lambda _: None)
        patch.setattr(app, "Lifecycle", lambda: lifecycle)
        patch.setattr(listeners, "REFUSE_S", 0.01)
        patch.setattr(Instance, "run", gated)
        patch.setattr(KnownRequests, "flight", seen)
        started: asyncio.Future[app.Running] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            app.run(Settings(model_repository=repository, **ports, **settings), started.set_result)
        )
        try:
            either: set[asyncio.Future[Any]] = {serving, started}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            yield Inside(repository, started.result(), lifecycle, gate, known)
        finally:
            gate.open()
            lifecycle.stopping.set()
            await serving
            gc.unfreeze()


class Client:
    """An HTTP connection on which a test sends what it likes, in as many pieces as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def send(self, *requests: bytes) -> None:
        """In one piece."""
        self.writer.write(b"".join(requests))

    async def answer(self) -> Answer:
        async with asyncio.timeout(TIMEOUT_S):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(first.split()[1]), headers, body)

    async def ask(self, *requests: bytes) -> Answer:
        self.send(*requests)
        return await self.answer()

    async def ending(self) -> bytes:
        """What comes until the service closes the connection."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.reader.read()


Values = Mapping[str, Array]
"""Inputs by name, in the order in which they are sent."""

DATATYPES = {"i4": "INT32", "i8": "INT64", "f2": "FP16", "f4": "FP32", "u1": "UINT8"}


def words_of(values: Values, outputs: Iterable[Any] = (), **parameters: Any) -> bytes:
    """A request's JSON; an output is a name or all that is said of it."""
    inputs = [
        binary_tensor(name, DATATYPES[array.dtype.str[1:]], array.shape, array.nbytes) for name, array in values.items()
    ]
    members: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True} | parameters}
    if outputs:
        members["outputs"] = [{"name": output} if isinstance(output, str) else output for output in outputs]
    return json.dumps(members).encode()


def tensors_of(values: Values) -> bytes:
    return b"".join(array.tobytes() for array in values.values())


def post(
    model: str,
    words: bytes,
    tensors: bytes = b"",
    *headers: str,
    version: str = "",
    query: str = "",
    protocol: str = "HTTP/1.1",
    length: str | None = None,
) -> bytes:
    """An inference request, head and body.

    Args:
        headers: beside those that it needs.
        length: what is said of the JSON's.
    """
    lines = [
        f"POST {model_path(model, version)}/infer{query} {protocol}",
        "host: x",
        f"{LENGTH_HEADER}: {len(words) if length is None else length}",
        *headers,
    ]
    if not any(header.lower().startswith("transfer-encoding") for header in headers):
        lines.append(f"content-length: {len(words) + len(tensors)}")
    return "\r\n".join([*lines, "", ""]).encode() + words + tensors


def infer(model: str, values: Values, *headers: str, **options: Any) -> bytes:
    return post(model, words_of(values), tensors_of(values), *headers, **options)


ORDINARY = "accept-encoding: identity"
"""A header with which a request is answered as it is without, and by the application."""


def shown(answer: Answer) -> tuple[int, Mapping[str, str], bytes]:
    """An answer but for what differs from one to the next."""
    changing = ("date", "x-request-id")
    return answer.status, {name: value for name, value in answer.headers.items() if name not in changing}, answer.body


def random_like(values: Values, seed: int) -> Values:
    generator = np.random.default_rng(seed)
    return {name: generator.integers(0, 100, array.shape).astype(array.dtype) for name, array in values.items()}
