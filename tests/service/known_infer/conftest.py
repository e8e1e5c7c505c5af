"""A service for a file's tests, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.models import write_classifier, write_identity, write_lookup, write_simple
from tests.service.inside import Client, Inside, inside
from tests.service.known_infer.knowing import ALONE, OVERRIDABLE, write_wide


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Inside]:
    """Models of every kind that a request can be known of, and "alone", with room for one that waits."""
    repository = tmp_path_factory.mktemp("known")
    write_simple(repository)
    write_identity(repository, "open", "FP32", (-1, -1))
    write_identity(repository, "half", "FP16", (-1,))
    write_identity(repository, "text", "BYTES", (1,))
    write_identity(repository, "unbatched", "FP32", (2, 3), max_batch_size=0, extra="")
    write_identity(repository, "empty", "FP32", (-1,), max_batch_size=0, extra="")
    write_identity(repository, "pair", "FP32", (2,))
    write_identity(repository, "alone", "FP32", (2,), max_batch_size=1, extra=ALONE)
    patient = f"dynamic_batching {{ default_queue_policy {{ {OVERRIDABLE} }} }}"
    write_identity(repository, "patient", "FP32", (2,), max_batch_size=1, extra=patient)
    write_classifier(repository)
    write_lookup(repository)
    write_identity(repository, "shared_memory", "FP32", (2,))
    write_wide(repository)
    settings = {"trace_file": repository.parent / "trace.json", "log_and_trace_changes": True}
    async with inside(repository, model_control_mode="explicit", system_shared_memory=True, **settings) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def service(shared: Inside) -> AsyncIterator[Inside]:
    """The shared one, as if nothing had been known yet."""
    shared.known.clear()
    yield shared
    shared.gate.open()
    assert await shared.metric("fovea_requests_in_flight") == 0


@pytest_asyncio.fixture(loop_scope="module")
async def client(service: Inside) -> AsyncIterator[Client]:
    async with await service.connect() as client:
        yield client
