"""Two services behind a balancer, restarted one after the other under load.

The steps are a Deployment's: the balancer is told first, then comes SIGTERM, and the next one's turn is when this one
is ready again and known. Callers come three ways: HTTP and gRPC through the balancer, and gRPC that balances by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc.aio

from loadtests.faults.balancer import Balancer, balancing
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1.classifier_pb2_grpc import ClassifierStub
from tests.repositories import picture, write_model
from tests.service.launch import RunningService, running, until, wait_for_metric

RED = picture("red")
CALLERS = 4
"""Of each way, each with one request at a time."""
ENOUGH = 50
"""Requests of each way between two steps."""
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # Who stops says so to the watch, and gets no more calls.
    "healthCheckConfig": {"serviceName": ""},
    # For what was on its way by then.
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
"""Of the clients that balance by themselves."""


@dataclass
class Tally:
    """How the requests of one way ended."""

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0

    def __str__(self) -> str:
        failures = "".join(f", {count} times {what}" for what, count in self.failed.items())
        return (
            f"{self.answered} answered, {self.failed.total()} failed{failures}; the longest took {self.longest_s:.2f} s"
        )


async def restart_all(repository: Path, *, rounds: int = 1, drain: bool = True) -> dict[str, Tally]:
    """Restart each of two services under load.

    Args:
        drain: whether the balancer is told before SIGTERM, and given the time to act on it, as by a preStop hook.
    """
    services = {name: (free_port(), free_port()) for name in ("a", "b")}
    with balancing(services) as balancer, ExitStack() as stack:
        started = {name: stack.enter_context(service(repository, *ports)) for name, ports in services.items()}
        for name in services:
            await until(lambda name=name: balancer.up(name))  # type: ignore[misc]
        async with load(balancer, [grpc_port for _, grpc_port in services.values()]) as tallies:
            for _ in range(rounds):
                for name, ports in services.items():
                    await more(tallies)
                    if drain:
                        balancer.drain(name)
                        await until(lambda name=name: balancer.requests(name) == 0)  # type: ignore[misc]
                    started[name].terminate()
                    await asyncio.to_thread(started[name].exit_code)
                    await more(tallies)
                    balancer.drain(name)
                    started[name] = await asyncio.to_thread(stack.enter_context, service(repository, *ports))
                    # By those who balance by themselves: the others are not sent here yet.
                    await wait_for_metric(started[name], 1, "fovea_requests_total", protocol="grpc")
                    balancer.restore(name)
                    await until(lambda name=name: balancer.up(name))  # type: ignore[misc]
            await more(tallies)
    return tallies


def service(repository: Path, http_port: int, grpc_port: int) -> AbstractContextManager[RunningService]:
    return running(repository, http_port=http_port, grpc_port=grpc_port, grpc_transport="grpcio")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


async def more(tallies: dict[str, Tally]) -> None:
    """Wait until each way has been gone some times again."""
    so_far = {way: tally.answered for way, tally in tallies.items()}
    await until(lambda: all(tally.answered >= so_far[way] + ENOUGH for way, tally in tallies.items()))


@asynccontextmanager
async def load(balancer: Balancer, grpc_ports: list[int]) -> AsyncIterator[dict[str, Tally]]:
    """Callers of each way, from here to the context's end; then those that have begun finish."""
    direct = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in grpc_ports)
    options = [("grpc.service_config", json.dumps(SERVICE_CONFIG)), ("grpc.max_reconnect_backoff_ms", 1000)]
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        through = ClassifierStub(await stack.enter_async_context(grpc.aio.insecure_channel(balancer.grpc)))
        alone = ClassifierStub(await stack.enter_async_context(grpc.aio.insecure_channel(direct, options=options)))
        ways: dict[str, Callable[[], Awaitable[str]]] = {
            "HTTP": lambda: over_http(http, balancer.http),
            "gRPC": lambda: over_grpc(through),
            "gRPC, balanced by its client": lambda: over_grpc(alone),
        }
        tallies = {way: Tally() for way in ways}
        over = asyncio.Event()
        async with asyncio.TaskGroup() as callers:
            for way, call in ways.items():
                for _ in range(CALLERS):
                    callers.create_task(go_on(call, tallies[way], over))
            try:
                yield tallies
            finally:
                over.set()


async def go_on(call: Callable[[], Awaitable[str]], tally: Tally, over: asyncio.Event) -> None:
    """Call again and again."""
    while not over.is_set():
        start = time.perf_counter()
        failure = await call()
        tally.longest_s = max(tally.longest_s, time.perf_counter() - start)
        if failure:
            tally.failed[failure] += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.05)
        else:
            tally.answered += 1


async def over_http(session: aiohttp.ClientSession, address: str) -> str:
    """One request; what it failed with, or nothing."""
    headers = {"content-type": "image/jpeg"}
    try:
        async with session.post(f"{address}/v1/classify", data=RED, headers=headers) as response:
            await response.read()
            return "" if response.status == 200 else str(response.status)
    except aiohttp.ClientError as error:
        return type(error).__name__


async def over_grpc(stub: ClassifierStub) -> str:
    """One call; what it failed with, or nothing."""
    try:
        await stub.Classify(pb.ClassifyRequest(images=[RED]), timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.rolling_restart", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="restarts of each service, default: %(default)s")
    parser.add_argument("--no-drain", action="store_true", help="SIGTERM without telling the balancer first")
    parser.add_argument("--repository", type=Path, help="model repository, default: one fast model")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.repository is None:
            write_model(Path(folder))
        start = time.monotonic()
        repository = arguments.repository or Path(folder)
        tallies = asyncio.run(restart_all(repository, rounds=arguments.rounds, drain=not arguments.no_drain))
    print(f"{2 * arguments.rounds} restarts in {time.monotonic() - start:.0f} s")
    for way, tally in tallies.items():
        print(f"{way}: {tally}")


if __name__ == "__main__":
    main()
