"""The service as LoadGen knows it: a "system under test" that takes queries and completes them."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.scenarios.client import Client
from loadtests.scenarios.loadgen import loadgen
from loadtests.scenarios.samples import Sample

MOST_REQUESTS_OF_A_QUERY = 16
"""At a time. Only Offline has queries of more than one request; how many queries are in flight is LoadGen's affair."""


@dataclass(frozen=True)
class Outcome:
    """What LoadGen does not know of a run.

    Attributes:
        requests: sent.
        failed: of these, without a label for each image. LoadGen takes them for answers like any other.
        first_error: what the first of them said.
        most_in_flight: requests that waited for their answer at the same time.
    """

    requests: int
    failed: int
    first_error: str
    most_in_flight: int


class SystemUnderTest:
    """Made in an event loop, which sends the requests; LoadGen runs in a thread beside it.

    Args:
        samples: by LoadGen's index.
    """

    def __init__(self, client: Client, samples: Sequence[Sample], images_per_request: int) -> None:
        self._client = client
        self._samples = samples
        self._images_per_request = images_per_request
        self._loop = asyncio.get_running_loop()
        self._images: dict[int, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._failed = 0
        self._first_error = ""
        self._in_flight = 0
        self._most_in_flight = 0

    def outcome(self) -> Outcome:
        return Outcome(self._requests, self._failed, self._first_error, self._most_in_flight)

    def run_test(self, settings: loadgen.TestSettings, logs: Path) -> None:
        """Have LoadGen run. Blocks until it has the last answer and has written its logs into that folder."""
        output = loadgen.LogOutputSettings()
        output.outdir = str(logs)
        log_settings = loadgen.LogSettings()
        log_settings.log_output = output
        log_settings.enable_trace = False
        system = loadgen.ConstructSUT(self._issue, self._flush)
        library = loadgen.ConstructQSL(len(self._samples), len(self._samples), self._load, self._unload)
        try:
            loadgen.StartTestWithLogSettings(system, library, settings, log_settings)
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(system)

    def _load(self, indices: list[int]) -> None:
        self._images = {index: self._client.prepare(self._samples[index].read()) for index in indices}

    def _unload(self, indices: list[int]) -> None:
        self._images = {}

    def _issue(self, query: list[loadgen.QuerySample]) -> None:
        """Returns at once, so that LoadGen keeps to its schedule."""
        self._loop.call_soon_threadsafe(self._start, query)

    def _flush(self) -> None:
        """Nothing is ever held back."""

    def _start(self, query: list[loadgen.QuerySample]) -> None:
        starts = range(0, len(query), self._images_per_request)
        requests = (query[start : start + self._images_per_request] for start in starts)
        for _ in range(min(len(starts), MOST_REQUESTS_OF_A_QUERY)):
            task = self._loop.create_task(self._send(requests))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, requests: Iterator[list[loadgen.QuerySample]]) -> None:
        """One request after another, until none is left to any task."""
        for samples in requests:
            self._requests += 1
            self._in_flight += 1
            self._most_in_flight = max(self._most_in_flight, self._in_flight)
            labels = await self._classify(samples)
            self._in_flight -= 1
            _complete(samples, labels)

    async def _classify(self, samples: list[loadgen.QuerySample]) -> list[str]:
        try:
            labels = await self._client.classify([self._images[sample.index] for sample in samples])
            if len(labels) != len(samples):
                raise ValueError(f"{len(labels)} labels for {len(samples)} images")
        # Whatever it was: LoadGen would wait for this answer for ever.
        except Exception as error:
            self._failed += 1
            self._first_error = self._first_error or str(error) or repr(error)
            return [""] * len(samples)
        return labels


def _complete(samples: list[loadgen.QuerySample], labels: list[str]) -> None:
    """Give LoadGen the label of each image as its data, UTF-8; it copies what it keeps."""
    data = [array("B", label.encode()) for label in labels]
    loadgen.QuerySamplesComplete(
        [
            loadgen.QuerySampleResponse(sample.id, *block.buffer_info())
            for sample, block in zip(samples, data, strict=True)
        ]
    )
