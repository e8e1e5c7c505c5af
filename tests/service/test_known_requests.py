"""Forms of requests and what becomes of requests that have one, with a real repository and no transport."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.backends.onnx_runtime import OnnxRuntimeEngine
from service.batching import Entry
from service.decoding import Decoder
from service.errors import DeadlineExceededError, FoveaError, InferenceError, QueueFullError
from service.images import ImageLimits
from service.inference import Inference, Tensor
from service.known_requests import MAX_FORMS, MAX_SHAPES, Flight, Form, KnownRequests, Words, form_of
from service.lifecycle import Lifecycle
from service.repository import Repository
from service.telemetry import Telemetry
from service.tensors import DTYPES, Array
from service.tracing import Tracing
from tests.conformance.models import write_identity, write_lookup, write_simple
from tests.service.launch import metric_of

PRIORITIES = """
dynamic_batching {
    priority_levels: 3 default_priority_level: 2
    default_queue_policy { default_timeout_microseconds: 7000000 allow_timeout_override: true }
    priority_queue_policy { key: 1 value { default_timeout_microseconds: 5000000 } }
}
"""


@dataclass
class Parts:
    """What known requests are made of."""

    repository: Repository
    inference: Inference
    lifecycle: Lifecycle
    tracing: Tracing
    telemetry: Telemetry
    known: KnownRequests

    def form(self, model: str, arrays: Mapping[str, Array], **options: Any) -> Form | None:
        datatypes = {dtype: name for name, dtype in DTYPES.items()}
        inputs = {name: Tensor(datatypes[array.dtype], array) for name, array in arrays.items()}
        size_bytes = options.pop("size_bytes", sum(array.nbytes for array in arrays.values()))
        given: dict[str, Any] = {"priority": 0, "timeout_us": 0, "word": shapes_of} | options
        outputs = given.pop("outputs", ())
        served = self.inference.choose(model, "").served
        return form_of(model, "", served, inputs, size_bytes, outputs, **given)

    def remember(self, key: object, model: str, arrays: Mapping[str, Array], **options: Any) -> Form:
        form = self.form(model, arrays, **options)
        assert form
        self.known.remember(key, form)
        return form

    def metric(self, name: str, **labels: str) -> float:
        return metric_of(self.telemetry.page("")[0].decode(), name, **labels)

    @property
    def in_flight(self) -> float:
        return self.metric("fovea_requests_in_flight", protocol="http")


def shapes_of(outputs: Sequence[Array]) -> Words:
    return tuple(str(output.shape).encode() for output in outputs)


@dataclass
class Caller:
    """Who begins a request, and waits for what becomes of it."""

    outcome: asyncio.Future[tuple[Words, list[bytes]] | FoveaError] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def flight(self, parts: Parts, key: object, content: bytes, at: int = 0) -> Flight | None:
        def answer(words: Words, tensors: list[bytes]) -> None:
            self.outcome.set_result((words, tensors))

        return parts.known.flight(key, content, at, "mine", answer, self.outcome.set_result)

    def begin(self, parts: Parts, key: object, content: bytes, at: int = 0, timeout_s: float = 60) -> Flight:
        flight = self.flight(parts, key, content, at)
        assert flight
        flight.begin(timeout_s)
        return flight

    async def told(self) -> tuple[Words, list[bytes]] | FoveaError:
        return await asyncio.wait_for(self.outcome, 60)

    async def error(self) -> FoveaError:
        outcome = await self.told()
        assert isinstance(outcome, FoveaError)
        return outcome


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    write_identity(tmp_path, "pair", "FP32", (2,))
    write_identity(tmp_path, "open", "FP32", (-1,))
    write_identity(tmp_path, "text", "BYTES", (1,))
    write_identity(tmp_path, "prioritized", "FP32", (2,), extra=PRIORITIES)
    write_simple(tmp_path)
    write_lookup(tmp_path)
    lifecycle, tracing = Lifecycle(), Tracing(tmp_path / "trace.json")
    telemetry = Telemetry(tracing)
    repository = Repository(
        tmp_path,
        OnnxRuntimeEngine("cpu", device_id=0),
        max_queue_size=4,
        default_model=None,
        on_batch=telemetry.on_batch,
    )
    await repository.start()
    decoder = Decoder(ImageLimits(1, 1, 1), max_waiting=1, threads=1)
    inference = Inference(repository.catalogue, decoder)
    known = KnownRequests(inference, lifecycle, telemetry, protocol="http", operation="infer")
    yield Parts(repository, inference, lifecycle, tracing, telemetry, known)
    assert metric_of(telemetry.page("")[0].decode(), "fovea_requests_in_flight") == 0
    await asyncio.wait_for(lifecycle.idle(), 60)
    await repository.close()
    decoder.close()
    tracing.close()


PAIR: Mapping[str, Array] = {"INPUT0": np.array([[1, 2]], np.float32)}
RAW = PAIR["INPUT0"].tobytes()


# Forms


async def test_tensors_are_where_they_were_in_the_first_request(parts: Parts) -> None:
    one, two = np.arange(16, dtype=np.int32).reshape(1, 16), np.full((1, 16), 5, np.int32)
    parts.remember("a", "simple", {"INPUT1": two, "INPUT0": one}, outputs=("OUTPUT1", "OUTPUT0"))
    caller = Caller()
    caller.begin(parts, "a", b"words" + (two * 2).tobytes() + one.tobytes(), len(b"words"))
    assert await caller.told() == ((b"(1, 16)", b"(1, 16)"), [(one - 10).tobytes(), (one + 10).tobytes()])


async def test_a_request_of_strings_has_no_form(parts: Parts) -> None:
    assert parts.form("text", {"INPUT0": np.array([[b"a"]], np.object_)}, size_bytes=8) is None


@pytest.mark.parametrize("size_bytes", [0, 7, 9])
async def test_a_request_whose_tensors_are_elsewhere_has_no_form(parts: Parts, size_bytes: int) -> None:
    assert parts.form("pair", PAIR, size_bytes=size_bytes) is None


@pytest.mark.parametrize(
    ("priority", "timeout_us", "level", "timeout_s"),
    [(0, 0, 2, 7.0), (1, 0, 1, 5.0), (1, 1000, 1, 5.0), (3, 1000, 3, 0.001), (3, 9_000_000, 3, 7.0), (9, 0, 2, 7.0)],
)
async def test_a_forms_place_in_the_queue(
    parts: Parts, priority: int, timeout_us: int, level: int, timeout_s: float
) -> None:
    form = parts.form("prioritized", PAIR, priority=priority, timeout_us=timeout_us)
    assert form
    assert (form.priority, form.queue_timeout_s) == (level, timeout_s)


async def test_words_are_made_once_for_each_shape(parts: Parts) -> None:
    made = 0

    def word(outputs: Sequence[Array]) -> Words:
        nonlocal made
        made += 1
        return shapes_of(outputs)

    form = parts.form("open", {"INPUT0": np.zeros((1, 2), np.float32)}, word=word)
    assert form
    for _ in range(3):
        for size in range(MAX_SHAPES):
            assert form.words_for([np.zeros(size, np.float32)]) == (f"({size},)".encode(),)
    assert made == MAX_SHAPES
    for size in range(5 * MAX_SHAPES):
        form.words_for([np.zeros(size, np.float32)])
        assert len(form.words) <= MAX_SHAPES


async def test_forms_are_bounded(parts: Parts) -> None:
    form = parts.form("pair", PAIR)
    assert form
    for number in range(3 * MAX_FORMS):
        parts.known.remember(number, form)
        assert parts.known.knows(number, form.served)
    assert sum(parts.known.knows(number, form.served) for number in range(3 * MAX_FORMS)) <= MAX_FORMS


# What is left to the adapter


async def test_what_is_out_of_the_ordinary_is_left_to_the_adapter(parts: Parts) -> None:
    parts.remember("a", "pair", PAIR)
    assert Caller().flight(parts, "a", RAW)
    assert not Caller().flight(parts, "b", RAW)
    for content, at in ((RAW, 1), (RAW[:-1], 0), (RAW + b"\0", 0), (b"", 0), (b"", 8), (RAW, 9999)):
        assert not Caller().flight(parts, "a", content, at)
    parts.tracing.change("another", {"trace_level": 1})
    assert not Caller().flight(parts, "a", RAW)
    parts.tracing.change("another", {"trace_level": None})
    assert Caller().flight(parts, "a", RAW)
    parts.lifecycle.stopping.set()
    assert not Caller().flight(parts, "a", RAW)


async def test_a_form_goes_with_its_version(parts: Parts) -> None:
    form = parts.remember("a", "pair", PAIR)
    await parts.repository.load("pair", override='{"max_batch_size": 4}')
    assert parts.known.knows("a", form.served)
    assert not Caller().flight(parts, "a", RAW)
    assert not parts.known.knows("a", form.served)
    parts.remember("a", "pair", PAIR)
    served = weakref.ref(parts.inference.choose("pair", "").served)
    await parts.repository.unload("pair")
    assert not Caller().flight(parts, "a", RAW)
    await parts.repository.close()
    gc.collect()
    assert served() is None


# What becomes of a request


async def test_a_request_is_answered_and_counted(parts: Parts) -> None:
    parts.remember("a", "pair", PAIR)
    caller = Caller()
    flight = caller.begin(parts, "a", RAW)
    assert (parts.in_flight, flight.done()) == (1, False)
    assert await caller.told() == ((b"(1, 2)",), [RAW])
    assert (parts.in_flight, flight.done()) == (0, True)
    flight.cancel()
    assert parts.metric("fovea_requests_total", protocol="http", model="pair", code="200") == 1
    assert parts.metric("fovea_requests_total") == 1
    statistics = parts.inference.choose("pair", "").served.statistics
    assert (statistics.success.count, statistics.fail.count, statistics.queue.count) == (1, 0, 1)
    assert abs(statistics.last_inference_ms / 1e3 - time.time()) < 60


async def test_requests_that_arrive_together_share_a_batch(parts: Parts) -> None:
    parts.remember("a", "pair", PAIR)
    callers = [Caller() for _ in range(3)]
    for number, caller in enumerate(callers):
        caller.begin(parts, "a", np.full((1, 2), number, np.float32).tobytes())
    for number, caller in enumerate(callers):
        assert await caller.told() == ((b"(1, 2)",), [np.full((1, 2), number, np.float32).tobytes()])
    assert parts.metric("fovea_batch_size_count") == 1
    assert parts.metric("fovea_batch_size_sum") == 3


async def test_requests_of_other_shapes_have_batches_of_their_own(parts: Parts) -> None:
    callers = {size: Caller() for size in (2, 3)}
    for size, caller in callers.items():
        parts.remember(size, "open", {"INPUT0": np.zeros((1, size), np.float32)})
        caller.begin(parts, size, np.ones(size, np.float32).tobytes())
    for size, caller in callers.items():
        assert await caller.told() == ((f"(1, {size})".encode(),), [np.ones(size, np.float32).tobytes()])
    assert parts.metric("fovea_batch_size_count") == 2


async def test_the_more_urgent_is_answered_first(parts: Parts) -> None:
    order: list[int] = []
    callers = {priority: Caller() for priority in (3, 2, 1)}
    for priority, caller in callers.items():
        parts.remember(priority, "prioritized", PAIR, priority=priority)
        caller.outcome.add_done_callback(lambda _, priority=priority: order.append(priority))  # type: ignore[misc]
        caller.begin(parts, priority, RAW)
    await asyncio.gather(*(caller.told() for caller in callers.values()))
    assert order == [1, 2, 3]


async def test_no_timer_is_left(parts: Parts) -> None:
    """It would hold the tensors until the deadline."""
    parts.remember("a", "prioritized", PAIR)
    answered, gone = Caller(), Caller()
    flights = [caller.begin(parts, "a", RAW) for caller in (answered, gone)]
    timers = [timer for flight in flights if isinstance(flight._entry, Entry) for timer in flight._entry.timers]
    flights[1].cancel()
    await answered.told()
    assert len(timers) == 4
    assert all(timer.cancelled() for timer in timers)


async def test_a_full_queue_refuses(parts: Parts) -> None:
    parts.remember("a", "pair", PAIR)
    callers = [Caller() for _ in range(5)]
    for caller in callers:
        caller.begin(parts, "a", RAW)
    assert isinstance(await callers[-1].error(), QueueFullError)
    for caller in callers[:-1]:
        assert await caller.told() == ((b"(1, 2)",), [RAW])
    assert parts.metric("fovea_requests_total", code="503") == parts.metric("fovea_requests_rejected_total") == 1
    assert parts.inference.choose("pair", "").served.statistics.fail.count == 0


async def test_a_request_that_is_late_fails(parts: Parts) -> None:
    parts.remember("a", "pair", PAIR)
    caller = Caller()
    caller.begin(parts, "a", RAW, timeout_s=0)
    assert isinstance(await caller.error(), DeadlineExceededError)
    assert parts.metric("fovea_requests_total", code="504") == 1
    assert parts.inference.choose("pair", "").served.statistics.fail.count == 1
    assert parts.metric("fovea_batch_size_count") == 0


async def test_who_has_gone_costs_no_inference(parts: Parts) -> None:
    parts.remember("a", "pair", PAIR)
    gone, stays = Caller(), Caller()
    flight = gone.begin(parts, "a", RAW)
    stays.begin(parts, "a", RAW)
    flight.cancel()
    flight.cancel()
    assert await stays.told() == ((b"(1, 2)",), [RAW])
    assert not gone.outcome.done()
    assert parts.metric("fovea_batch_size_sum") == 1
    assert parts.metric("fovea_requests_total", code="499") == 1


async def test_a_batch_that_fails_fails_its_requests(parts: Parts) -> None:
    parts.remember("a", "lookup", {"INDEX": np.zeros((1, 1), np.int64)})
    callers = [Caller(), Caller()]
    for caller in callers:
        caller.begin(parts, "a", np.array([[99]], np.int64).tobytes())
    for caller in callers:
        error = await caller.error()
        assert isinstance(error, InferenceError)
        assert str(error).startswith("inference failed: ")
    assert parts.metric("fovea_requests_total", code="500") == 2
    assert parts.inference.choose("lookup", "").served.statistics.fail.count == 2


async def test_words_that_cannot_be_made_fail_one_request(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    def broken(outputs: Sequence[Array]) -> Words:
        raise LookupError("no words")

    parts.remember("broken", "pair", PAIR, word=broken)
    parts.remember("a", "pair", PAIR)
    callers = [Caller(), Caller()]
    for caller, key in zip(callers, ("broken", "a"), strict=True):
        caller.begin(parts, key, RAW)
    assert str(await callers[0].error()) == "internal error; the log has the details"
    assert await callers[1].told() == ((b"(1, 2)",), [RAW])
    assert "no words" in caplog.text
    assert parts.metric("fovea_requests_total", code="500") == 1


async def test_a_version_waits_for_its_known_requests(parts: Parts) -> None:
    parts.remember("a", "pair", PAIR)
    caller = Caller()
    caller.begin(parts, "a", RAW)
    await parts.repository.unload("pair")
    closing = asyncio.create_task(parts.repository.close())
    assert await caller.told() == ((b"(1, 2)",), [RAW])
    await asyncio.wait_for(closing, 60)
