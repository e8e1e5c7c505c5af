"""A front's requests in the engine's queue: both ends in one process, with a real socket, memory and batcher."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2 as pb

from service.batching import BatchOutput, DynamicBatcher
from service.errors import DeadlineExceededError, InferenceError, QueueFullError, UnavailableError
from service.fronts.arena import Arena, mapped, memory_file
from service.fronts.front_requests import FrontRequests
from service.fronts.link import Link
from service.fronts.remote_batcher import RemoteBatcher, RemoteRequests
from service.image_contract import NoImagesError
from service.loading import ServedVersion
from service.model_config import ModelConfig
from service.statistics import VersionStatistics
from service.tensors import Tensors, TensorSpec

NUMBER = 3
MAX_QUEUE_SIZE = 4
ARENA_BYTES = 4096


@dataclass
class Ends:
    """Attributes:
    batcher: the front's.
    served: the engine's.
    gate: every batch waits while it is not set.
    seen: rows of each batch.
    """

    batcher: RemoteBatcher
    served: ServedVersion
    gate: threading.Event
    seen: list[int]
    front: Link
    engine: Link
    arena: Arena
    requests: FrontRequests
    began: asyncio.Event


@asynccontextmanager
async def both_ends(*, max_batch_size: int = 8) -> AsyncIterator[Ends]:
    """The engine doubles its input; a negative number is an error."""
    loop, gate, seen, began = asyncio.get_running_loop(), threading.Event(), list[int](), asyncio.Event()
    gate.set()

    def double(items: Sequence[Tensors]) -> BatchOutput[Tensors]:
        seen.append(sum(len(item[0]) for item in items))
        loop.call_soon_threadsafe(began.set)
        assert gate.wait(60)
        if any((cast("np.ndarray[tuple[int, ...], np.dtype[np.float32]]", item[0]) < 0).any() for item in items):
            raise ValueError("a negative number")
        return BatchOutput([tuple(tensor + tensor for tensor in item) for item in items], 0.25, 0.5, 0.125)  # type: ignore[operator]

    batcher = DynamicBatcher[Tensors, Tensors](
        [double], max_batch_size=max_batch_size, max_queue_size=MAX_QUEUE_SIZE, priority_levels=2
    )
    spec = TensorSpec("x", "FP32", (-1,))
    config = ModelConfig(pb.ModelConfig(name="double", max_batch_size=max_batch_size), (spec,), (spec,), {})
    served = ServedVersion(config, "1", NoImagesError("tensors"), (), batcher, False, VersionStatistics())
    descriptor = memory_file(ARENA_BYTES)
    arena = Arena(descriptor)
    remote, requests = RemoteRequests(arena), FrontRequests(mapped(descriptor))
    os.close(descriptor)
    remote.link = Link(remote.handlers(), {}, remote.lost)
    requests.link = Link(requests.handlers(), {}, requests.lost)
    here, there = socket.socketpair()
    await loop.create_unix_connection(lambda: remote.link, sock=here)
    await loop.create_unix_connection(lambda: requests.link, sock=there)
    requests.offer(NUMBER, served)
    front = RemoteBatcher(remote, NUMBER, max_batch_size=max_batch_size, max_queue_size=MAX_QUEUE_SIZE)
    try:
        yield Ends(front, served, gate, seen, remote.link, requests.link, arena, requests, began)
    finally:
        gate.set()
        remote.link.close()
        requests.link.close()
        async with asyncio.timeout(30):
            await served.close()


def item(value: float, columns: int = 5) -> Tensors:
    return (np.full((1, columns), value, np.float32),)


async def test_each_gets_its_own_answer_in_the_arena_or_beside_it() -> None:
    """Those in flight together are many times the arena."""
    async with both_ends() as ends:

        async def ask(value: int, columns: int) -> None:
            completed = await ends.batcher.submit(item(value, columns))
            (doubled,) = completed.result
            assert doubled.shape == (1, columns)
            assert (doubled == 2 * value).all()
            assert (completed.batch.assembly_s, completed.batch.inference_s, completed.batch.output_s) == (
                0.25,
                0.5,
                0.125,
            )
            assert completed.queue_s >= 0

        for _ in range(5):
            await asyncio.gather(*(ask(value, columns) for value, columns in enumerate((1, 300, 2000, 700))))
        assert ends.served.statistics.success.count == 20
        assert ends.batcher.waiting == 0


async def test_a_full_queue_refuses_and_is_not_counted_as_a_failure() -> None:
    async with both_ends(max_batch_size=1) as ends:
        ends.gate.clear()
        first = asyncio.create_task(ends.batcher.submit(item(1)))
        await ends.began.wait()
        waiting = [asyncio.create_task(ends.batcher.submit(item(2))) for _ in range(MAX_QUEUE_SIZE)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="Exceeds maximum queue size: 4 rows are waiting"):
            await ends.batcher.submit(item(3))
        # Now the front knows, and refuses before anything is done for a request.
        with pytest.raises(QueueFullError, match="Exceeds maximum queue size: 4 rows are waiting"):
            ends.batcher.require_room()
        ends.gate.set()
        await asyncio.gather(first, *waiting)
        ends.batcher.require_room()
        assert ends.served.statistics.success.count == 1 + MAX_QUEUE_SIZE
        assert ends.served.statistics.fail.count == 0
        # Both are counted as refused, whichever process it was that did.
        assert ends.served.statistics.failures == {"REJECTED": 2}


async def test_a_front_without_requests_in_flight_lets_the_engine_decide() -> None:
    """What it was told of the queue is old, and nothing would ever tell it better."""
    async with both_ends() as ends:
        ends.batcher.told_depth = MAX_QUEUE_SIZE
        ends.batcher.require_room()
        # A shadow is sent no copies while something waits.
        assert ends.batcher.queue_depth == 0
        ends.gate.clear()
        asking = asyncio.create_task(ends.batcher.submit(item(1)))
        await ends.began.wait()
        assert ends.batcher.queue_depth == MAX_QUEUE_SIZE
        ends.gate.set()
        await asking
        assert ends.batcher.queue_depth == 0


async def test_a_failed_batch_is_an_error_of_its_callers() -> None:
    async with both_ends() as ends:
        with pytest.raises(InferenceError, match="inference failed: a negative number"):
            await ends.batcher.submit(item(-1))
        assert (await ends.batcher.submit(item(1))).result[0].max() == 2
        assert (ends.served.statistics.success.count, ends.served.statistics.fail.count) == (1, 1)


async def test_a_deadline_and_a_longest_time_in_the_queue() -> None:
    async with both_ends() as ends:
        ends.gate.clear()
        running = asyncio.create_task(ends.batcher.submit(item(1)))
        await ends.began.wait()
        with pytest.raises(DeadlineExceededError):
            await ends.batcher.submit(item(2), time.monotonic() + 0.01)
        with pytest.raises(UnavailableError, match="Request timeout expired"):
            await ends.batcher.submit(item(2), queue_timeout_s=0.01)
        ends.gate.set()
        await running
        assert ends.seen == [1]


async def test_who_leaves_costs_no_inference_and_leaves_its_place() -> None:
    async with both_ends(max_batch_size=1) as ends:
        ends.gate.clear()
        running = asyncio.create_task(ends.batcher.submit(item(1)))
        await ends.began.wait()
        leaving = [asyncio.create_task(ends.batcher.submit(item(2))) for _ in range(MAX_QUEUE_SIZE)]
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        staying = [asyncio.create_task(ends.batcher.submit(item(3))) for _ in range(MAX_QUEUE_SIZE)]
        await asyncio.sleep(0)
        ends.gate.set()
        assert [completed.result[0].max() for completed in await asyncio.gather(running, *staying)] == [2, 6, 6, 6, 6]
        assert len(ends.seen) == 1 + MAX_QUEUE_SIZE


@pytest.mark.parametrize("by", ["cancellation", "deadline"])
async def test_what_is_in_a_batch_keeps_its_place_though_nobody_waits_for_it(by: str) -> None:
    """What comes next would be written over it, and might fail the batch of somebody else."""
    async with both_ends() as ends:
        ends.gate.clear()
        staying = asyncio.create_task(ends.batcher.submit(item(1)))
        leaving = asyncio.create_task(ends.batcher.submit(item(2)))
        await ends.began.wait()
        assert ends.seen == [2]
        if by == "cancellation":
            leaving.cancel()
        else:
            _, request = ends.requests._requests.values()
            assert request.entry
            request.entry.expire()
        with pytest.raises(asyncio.CancelledError if by == "cancellation" else DeadlineExceededError):
            await leaving
        failing = asyncio.create_task(ends.batcher.submit(item(-1)))
        await asyncio.sleep(0)
        ends.gate.set()
        assert (await staying).result[0].max() == 2
        with pytest.raises(InferenceError, match="a negative number"):
            await failing
        assert ends.batcher.waiting == 0
        await all_places_are_free(ends)


async def test_what_leaves_the_queue_gives_its_place_back_though_the_instance_is_busy() -> None:
    async with both_ends(max_batch_size=1) as ends:
        ends.gate.clear()
        running = asyncio.create_task(ends.batcher.submit(item(1)))
        await ends.began.wait()
        free = ends.arena.place(1)
        assert free is not None
        ends.arena.free(free, 1)
        leaving = asyncio.create_task(ends.batcher.submit(item(2)))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(UnavailableError, match="Request timeout expired"):
            await ends.batcher.submit(item(2), queue_timeout_s=0.01)
        assert ends.arena.place(1) == free
        ends.arena.free(free, 1)
        ends.gate.set()
        await running
        await all_places_are_free(ends)


async def all_places_are_free(ends: Ends) -> None:
    # What came before its answer has come, too.
    await ends.batcher.submit(item(1))
    assert ends.arena.place(ARENA_BYTES) == 0


async def test_a_version_serves_until_its_front_has_no_more_requests_for_it() -> None:
    async with both_ends() as ends:
        closing = asyncio.create_task(ends.served.close())
        assert (await ends.batcher.submit(item(1))).result[0].max() == 2
        assert not closing.done()
        await ends.batcher.close()
        async with asyncio.timeout(30):
            await closing


async def test_a_front_that_dies_holds_nothing_back() -> None:
    async with both_ends() as ends:
        ends.gate.clear()
        waiting = asyncio.create_task(ends.batcher.submit(item(1)))
        await ends.began.wait()
        closing = asyncio.create_task(ends.served.close())
        ends.front.close()
        ends.gate.set()
        async with asyncio.timeout(30):
            await closing
            with pytest.raises(UnavailableError, match="the service is stopping"):
                await waiting
        with pytest.raises(UnavailableError, match="the service is stopping"):
            await ends.batcher.submit(item(1))


async def test_a_front_that_has_died_is_offered_nothing() -> None:
    """It would never give it back, and an unload or the stop would wait for it."""
    async with both_ends() as ends:
        ends.front.close()
        async with asyncio.timeout(30):
            while not ends.engine.lost:  # noqa: ASYNC110
                await asyncio.sleep(0)
            ends.requests.offer(NUMBER, ends.served)
            await ends.served.close()
