"""Where the time of single requests went: written to a file, in the form that Triton writes.

Moments are in seconds on `time.monotonic`'s clock until they are written.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path

from service.errors import StartError
from service.inference import Timeline

log = logging.getLogger("fovea.tracing")

MAX_WAITING = 10_000
"""Most traces that wait to be written together."""
MAX_WRITES = 4
"""Most writes that wait for the file system."""

DEFAULTS = {"trace_level": 0, "trace_rate": 1000, "trace_count": -1, "log_frequency": 0}
"""`trace_level` 1: timestamps."""
RECEIVED = {"http": ("HTTP_RECV_START",), "grpc": ("GRPC_WAITREAD_START", "GRPC_WAITREAD_END")}
"""What a request begins with; gRPC has read it by then."""


class RequestTrace:
    """The moments of one request, gathered until its answer is sent. Each of its images is an inference."""

    def __init__(self, tracing: Tracing, protocol: str, request_id: str) -> None:
        self._tracing = tracing
        self._protocol = protocol
        self._request_id = request_id
        self._moments: list[tuple[str, float]] = []
        self._inferences: list[tuple[str, str, str, Timeline]] = []
        self._mark(*RECEIVED[protocol])

    def read(self) -> None:
        """The body of the request is there."""
        self._mark("HTTP_RECV_END")

    def add(self, model: str, version: str, timeline: Timeline, request_id: str = "") -> None:
        """An inference has its result.

        Args:
            request_id: what its client calls it; empty: as the request as a whole.
        """
        self._inferences.append((model, version, request_id or self._request_id, timeline))

    def answered(self) -> None:
        """The answer is there, and about to be sent."""
        self._mark(f"{self._protocol.upper()}_SEND_START")

    def sent(self) -> None:
        """The answer was handed to the network."""
        self._mark(f"{self._protocol.upper()}_SEND_END")
        self.end()

    def end(self) -> None:
        for model, version, request_id, timeline in self._inferences:
            moments = sorted([*self._moments, *_moments(timeline)], key=lambda moment: moment[1])
            self._tracing.sample(model, version, request_id, moments)

    def _mark(self, *names: str) -> None:
        now = time.monotonic()
        self._moments += [(name, now) for name in names]


class Tracing:
    """Takes one in so many of the requests that were answered, and writes them.

    A model has settings of its own, or the common ones; what it does not set is as for all.

    Attributes:
        file: where traces go; None: nothing can be traced.
        on: whether anything is traced.

    Raises:
        StartError: there is no such folder.
    """

    def __init__(self, file: Path | None) -> None:
        if file and not file.parent.is_dir():
            raise StartError(f"FOVEA_TRACE_FILE={file}: there is no folder {file.parent}")
        self.file = file
        self._set: dict[str, dict[str, int]] = {"": {}}
        self.on = False
        self._seen: Counter[str] = Counter()
        self._waiting: dict[str, list[str]] = {}
        self._ids, self._file_numbers = count(1), count()
        self._end_of_file = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="trace")
        self._writes: list[Future[None]] = []

    def settings(self, model: str = "") -> Mapping[str, int]:
        """The settings in force for a model; empty: the common ones."""
        return DEFAULTS | self._set[""] | self._set.get(model, {})

    def change(self, model: str, changes: Mapping[str, int | None]) -> None:
        """Change a model's own settings (empty: the common ones); None clears. What was traced so far is written."""
        self._write_all()
        both = {**self._set.get(model, {}), **changes}
        own = {name: value for name, value in both.items() if value is not None}
        if own or not model:
            self._set[model] = own
        else:
            self._set.pop(model, None)
        self._seen.clear()
        self.on = any(self.settings(name)["trace_level"] for name in self._set)

    def begin(self, protocol: str, request_id: str) -> RequestTrace | None:
        """A request has arrived; None while nothing is traced."""
        return RequestTrace(self, protocol, request_id) if self.on else None

    def sample(self, model: str, version: str, request_id: str, moments: list[tuple[str, float]]) -> None:
        """An inference was answered: it is traced, or passed over."""
        owner = model if model in self._set else ""
        settings = self.settings(owner)
        left = settings["trace_count"]
        if not (settings["trace_level"] and left):
            return
        self._seen[owner] += 1
        if self._seen[owner] % settings["trace_rate"]:
            return
        if left > 0:
            self._set[owner if "trace_count" in self._set[owner] else ""]["trace_count"] = left - 1
        waiting = self._waiting.setdefault(owner, [])
        waiting.append(_text(next(self._ids), model, version, request_id, moments))
        if len(waiting) == (settings["log_frequency"] or MAX_WAITING) or left == 1:
            self._write(owner)

    def close(self) -> None:
        """Write what waits."""
        self._write_all()
        self._writer.shutdown()

    def _write_all(self) -> None:
        for owner in list(self._waiting):
            self._write(owner)

    def _write(self, owner: str) -> None:
        traces = self._waiting.pop(owner)
        self._writes = [write for write in self._writes if not write.done()]
        if len(self._writes) == MAX_WRITES:
            log.warning("%s traces are lost: FOVEA_TRACE_FILE is not written as fast as they come", len(traces))
            return
        number = next(self._file_numbers) if self.settings(owner)["log_frequency"] else None
        self._writes.append(self._writer.submit(self._write_now, ",\n".join(traces), number))

    def _write_now(self, traces: str, number: int | None) -> None:
        assert self.file
        try:
            if number is None:
                self._append(self.file, traces)
            else:
                self.file.with_name(f"{self.file.name}.{number}").write_text(f"[{traces}]\n")
        except OSError as error:
            log.error("FOVEA_TRACE_FILE=%s: traces are lost: %s", self.file, error)

    def _append(self, file: Path, traces: str) -> None:
        """Add to the list that the file holds; begin one where this service has none yet."""
        begun = self._end_of_file > 0 and file.exists()
        with file.open("r+b" if begun else "wb") as output:
            output.seek(self._end_of_file if begun else 0)
            output.write(((",\n" if begun else "[") + traces).encode())
            end = output.tell()
            output.write(b"]\n")
            output.truncate()
        self._end_of_file = end


def _moments(timeline: Timeline) -> list[tuple[str, float]]:
    """A batch begins where the queue ends, and its parts follow one another."""
    taken = timeline.queued + timeline.queue_s
    assembled = taken + timeline.batch.assembly_s
    inferred = assembled + timeline.batch.inference_s
    return [
        ("REQUEST_START", timeline.start),
        ("QUEUE_START", timeline.queued),
        ("COMPUTE_START", taken),
        ("COMPUTE_INPUT_END", assembled),
        ("COMPUTE_OUTPUT_START", inferred),
        ("COMPUTE_END", inferred + timeline.batch.output_s),
        ("REQUEST_END", timeline.end),
    ]


def _text(number: int, model: str, version: str, request_id: str, moments: list[tuple[str, float]]) -> str:
    head = {"id": number, "model_name": model, "model_version": int(version), "request_id": request_id}
    timestamps = [{"id": number, "timestamps": [{"name": name, "ns": round(moment * 1e9)}]} for name, moment in moments]
    return json.dumps([head, *timestamps], separators=(",", ":"))[1:-1]
