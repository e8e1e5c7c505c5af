"""LoadGen itself, with a service that is a function."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("mlperf_loadgen", reason="LoadGen is not installed (package mlcommons-loadgen)")

from loadtests.scenarios.client import Client
from loadtests.scenarios.logs import count_correct
from loadtests.scenarios.samples import Sample
from loadtests.scenarios.settings import Demand, Scenario, images_per_request, loadgen_settings
from loadtests.scenarios.system import MOST_REQUESTS_OF_A_QUERY, Outcome, SystemUnderTest

DEMAND = Demand(
    min_duration_s=0.1, min_query_count=5, target_qps=2000.0, p99_ms=15.0, offline_qps=100.0, images_per_request=3
)


async def run(scenario: Scenario, client: Client, samples: list[Sample], logs: Path) -> Outcome:
    """In accuracy mode, where every sample is asked for."""
    settings = loadgen_settings(scenario, "accuracy", DEMAND)
    system = SystemUnderTest(client, samples, images_per_request(scenario, DEMAND, settings))
    await asyncio.to_thread(system.run_test, settings, logs)
    return system.outcome()


def numbered(count: int) -> list[Sample]:
    return [Sample(b"%d" % number, str(number)) for number in range(count)]


async def echo(images: list[bytes]) -> list[str]:
    await asyncio.sleep(0)
    return [image.decode() for image in images]


def correct(logs: Path, samples: list[Sample]) -> int:
    return count_correct((logs / "mlperf_log_accuracy.json").read_text(), [sample.label for sample in samples])


async def test_each_answer_is_logged_as_that_of_its_own_image(tmp_path: Path) -> None:
    samples = numbered(10)
    outcome = await run("SingleStream", Client(bytes, echo), samples, tmp_path)
    assert outcome == Outcome(requests=10, failed=0, first_error="", most_in_flight=1)
    assert correct(tmp_path, samples) == 10


async def test_a_query_of_multistream_is_one_request_of_eight(tmp_path: Path) -> None:
    sizes = []

    async def classify(images: list[bytes]) -> list[str]:
        sizes.append(len(images))
        return await echo(images)

    samples = numbered(12)
    outcome = await run("MultiStream", Client(bytes, classify), samples, tmp_path)
    assert sizes == [8, 8]
    assert outcome.most_in_flight == 1
    assert correct(tmp_path, samples) == 12


async def test_the_query_of_offline_is_many_requests_some_at_a_time(tmp_path: Path) -> None:
    sizes = []

    async def classify(images: list[bytes]) -> list[str]:
        sizes.append(len(images))
        return await echo(images)

    samples = numbered(100)
    outcome = await run("Offline", Client(bytes, classify), samples, tmp_path)
    assert sorted(sizes) == [1] + [3] * 33
    assert outcome == Outcome(requests=34, failed=0, first_error="", most_in_flight=MOST_REQUESTS_OF_A_QUERY)
    assert correct(tmp_path, samples) == 100


async def test_server_sends_whether_earlier_requests_were_answered_or_not(tmp_path: Path) -> None:
    samples = numbered(40)
    waiting = 0
    all_there = asyncio.Event()

    async def classify(images: list[bytes]) -> list[str]:
        nonlocal waiting
        waiting += 1
        if waiting == len(samples):
            all_there.set()
        await all_there.wait()
        return await echo(images)

    outcome = await run("Server", Client(bytes, classify), samples, tmp_path)
    assert outcome == Outcome(requests=40, failed=0, first_error="", most_in_flight=40)


async def test_images_are_prepared_when_they_are_loaded(tmp_path: Path) -> None:
    prepared = []

    def prepare(image: bytes) -> bytes:
        prepared.append(image)
        return b"1" + image

    samples = [Sample(image.source, f"1{image.label}") for image in numbered(5)]
    await run("SingleStream", Client(prepare, echo), samples, tmp_path)
    assert sorted(prepared) == [b"0", b"1", b"2", b"3", b"4"]
    assert correct(tmp_path, samples) == 5


async def test_a_request_that_fails_is_counted_and_completed_without_data(tmp_path: Path) -> None:
    async def classify(images: list[bytes]) -> list[str]:
        if images == [b"3"]:
            raise TimeoutError
        return await echo(images)

    samples = numbered(5)
    outcome = await run("SingleStream", Client(bytes, classify), samples, tmp_path)
    assert outcome == Outcome(requests=5, failed=1, first_error="TimeoutError()", most_in_flight=1)
    assert correct(tmp_path, samples) == 4


async def test_fewer_labels_than_images_is_a_failure(tmp_path: Path) -> None:
    async def classify(images: list[bytes]) -> list[str]:
        return (await echo(images))[:1]

    outcome = await run("Offline", Client(bytes, classify), numbered(6), tmp_path)
    assert (outcome.requests, outcome.failed) == (2, 2)
    assert outcome.first_error == "1 labels for 3 images"
