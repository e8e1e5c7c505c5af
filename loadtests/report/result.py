"""The JSON that a load test leaves: what was measured, of what, and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from loadtests.report.numbers import rate_text
from loadtests.targets.readings import Efficiency

FORMAT = 1
FILE_NAME = "result.json"

PERCENTILES: tuple[float, ...] = (*(float(percent) for percent in range(1, 100)), 99.5, 99.9, 100.0)

STAGES = ("decode", "queue", "batch_assembly", "inference", "postprocessing", "total")
"""That the service's histogram has; the last is all of an image's way."""

Protocol = Literal["HTTP", "gRPC"]


@dataclass(frozen=True, order=True)
class Load:
    """How requests were sent.

    Attributes:
        kind: closed, so many unanswered at any time; open, so many arrivals a second whatever is answered.
        value: requests in flight, or requests per second.
    """

    kind: Literal["closed", "open"]
    value: float

    def __str__(self) -> str:
        return f"{self.value:g} in flight" if self.kind == "closed" else f"{rate_text(self.value)}/s"


@dataclass(frozen=True)
class Run:
    """One protocol under one load, once.

    Attributes:
        round: from 1; the same load in another round is the same measurement again.
        duration_s: from the first request to the last answer.
        requests: all of them, those that failed too; each had one image.
        errors: what requests failed with, and how many did.
        images_per_s: answered, over the duration.
        mean_ms: mean latency of the answered requests; None where there are none.
        latency_ms: of the answered requests, by percentile (PERCENTILES); empty where there are none. An open load's
            counts from the scheduled arrival.
        late_p99_ms: how late the load generator sent, 99th percentile; 0 under a closed load: it has no schedule.
        generator_busy: the share of its time that the load generator's thread computed; near 1 it measures itself.
        stage_ms: mean time of an image in each stage, from the service's histograms.
        batch_sizes: how many batches there were of each size or range of sizes, from the service's histogram.
        readings: what the target's sensors said during the run, as `loadtests.targets` gives it.
        efficiency: what came of it for what it took; None: the target was not watched.
        refused: requests that the service was too busy for, among the failures.
        refused_ms: their latency, as `latency_ms`.
    """

    protocol: Protocol
    load: Load
    round: int
    duration_s: float
    requests: int
    failures: int
    errors: dict[str, int]
    images_per_s: float
    mean_ms: float | None
    latency_ms: dict[float, float]
    late_p99_ms: float
    generator_busy: float
    stage_ms: dict[str, float]
    batch_sizes: dict[str, int]
    readings: dict[str, Any] | None = None
    refused: int = 0
    refused_ms: dict[float, float] = field(default_factory=dict)
    efficiency: Efficiency | None = None


@dataclass(frozen=True)
class Environment:
    """What was measured, and on what; None: not known, as of a service that was not started here.

    Attributes:
        service: whether it was started for the purpose, or ran already, and where.
        settings: the environment variables FOVEA_* that were set.
        images: what was sent.
        generator: the load generator, and what it shares with the service.
    """

    hardware: str
    memory_bytes: int
    load_average: float
    gpu: str | None
    operating_system: str
    python: str
    onnxruntime: str | None
    fovea: str
    service: str
    settings: dict[str, str] | None
    model: str
    model_version: str
    model_sha256: str | None
    execution_provider: str
    instances: int
    max_batch_size: int
    images: str
    generator: str


@dataclass(frozen=True)
class Search:
    """The highest rate of arrivals that was held.

    Attributes:
        p99_ms: the bound.
        rate_per_s: None where there is no such number; `reason` says why.
        low_per_s: up to this rate, no repeat missed; None: there is no such rate.
        high_per_s: from this rate on, every repeat missed; None: there is no such rate.
        confidence: of the interval from `low_per_s` to `high_per_s`.
        resolution: the largest ratio, less 1, of the lowest rate missed to the highest held that ends the search.
        reason: the outcome in words.
        method: how it was searched.
    """

    protocol: Protocol
    p99_ms: float
    rate_per_s: float | None
    low_per_s: float | None
    high_per_s: float | None
    confidence: float
    resolution: float
    reason: str
    method: str


@dataclass(frozen=True)
class Moment:
    """A part of an overload: the requests that were due in it.

    Attributes:
        start_s: of it, from the start of the overload; negative before.
        answered: of the requests.
        p50_ms, p99_ms: of those answered; None: there are none.
        refused_p99_ms: of those refused.
    """

    start_s: float
    requests: int
    answered: int
    refused: int
    p50_ms: float | None
    p99_ms: float | None
    refused_p99_ms: float | None


@dataclass(frozen=True)
class Overload:
    """More requests than are answered, between two times of few.

    Attributes:
        duration_s: of the overload alone.
        peak_per_s: what is answered to those who wait for their answers.
        rate_per_s: random arrivals.
        goodput_per_s: answered while it lasted.
        normal_ms: 95th percentile of the latency before.
        back_after_s: from the end of the overload until latency was normal again; None: not seen.
        moments: the whole in parts of equal length.
        reason: the outcome in words.
        method: how it was measured.
    """

    protocol: Protocol
    duration_s: float
    peak_per_s: float
    rate_per_s: float
    goodput_per_s: float
    normal_ms: float | None
    back_after_s: float | None
    moments: tuple[Moment, ...]
    reason: str
    method: str


@dataclass(frozen=True)
class Result:
    """One load test.

    Attributes:
        time: when it began, as ISO 8601.
        rounds: how often each load was repeated.
        duration_s: seconds of one run.
        search: where the runs are the probes of a search.
        overload: where the runs are its parts; those before and after it are two rounds of one load.
    """

    time: str
    environment: Environment
    rounds: int
    duration_s: float
    runs: tuple[Run, ...]
    search: Search | None = None
    overload: Overload | None = None
    format: int = FORMAT

    @property
    def found(self) -> Search | Overload | None:
        """What comes before the figures."""
        return self.search or self.overload

    @property
    def title(self) -> str:
        if self.search:
            return "Search for the rate that is held"
        return "Overload" if self.overload else "Load test"


RESULT = TypeAdapter(Result)


def to_json(result: Result) -> str:
    return RESULT.dump_json(result, indent=1).decode()


def read_result(path: Path) -> Result:
    """The result in a file, or in a folder's result.json.

    Raises:
        ValueError: there is none, or it is none that this version reads.
    """
    file = path / FILE_NAME if path.is_dir() else path
    try:
        content = from_json(file.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file; a load test's result is its {FILE_NAME}") from None
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON: {error}") from None
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise ValueError(f"{file}: has format {version}, and this version reads format {FORMAT}")
    try:
        return RESULT.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{file}: {where}: {first['msg']}") from None


def percentiles(times_ms: Sequence[float]) -> dict[float, float]:
    """For each of PERCENTILES the time that this share took at most; empty for no times."""
    if not times_ms:
        return {}
    ordered = sorted(times_ms)
    # In whole thousandths: no float is 99.9 %.
    ranks = {percent: math.ceil(len(ordered) * round(10 * percent) / 1000) for percent in PERCENTILES}
    return {percent: ordered[rank - 1] for percent, rank in ranks.items()}
