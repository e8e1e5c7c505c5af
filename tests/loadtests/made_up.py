"""Results that nothing measured, with figures that anyone can follow."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from loadtests.report.result import Environment, Load, Protocol, Result, Run, percentiles
from loadtests.targets.readings import Efficiency

ENVIRONMENT = Environment(
    hardware="2 cores, Example 3000",
    memory_bytes=8 * 2**30,
    load_average=0.25,
    gpu=None,
    operating_system="Example OS 1",
    python="3.11.2",
    onnxruntime="1.32.0 (onnxruntime)",
    fovea="0.1.0",
    service="started for the load test",
    settings={"FOVEA_MAX_QUEUE_SIZE": "64"},
    model="colours",
    model_version="1",
    model_sha256="ab" * 32,
    execution_provider="CPUExecutionProvider",
    instances=2,
    max_batch_size=8,
    images="32 JPEGs",
    generator="an asyncio client; it shares these cores",
)

STAGE_MS = {"decode": 0.4, "queue": 1.0, "batch_assembly": 0.1, "inference": 3.0, "postprocessing": 0.2, "total": 5.0}

READINGS = {
    "target": "tesla",
    "hardware": {"device": "Example T1", "driver": "999.1", "power limit": "70 W"},
    "duration_s": 10.0,
    "figures": {"power_w": {"mean": 50.0, "max": 60.0, "t_s": [0.0, 5.0, 10.0], "values": [40.0, 60.0, 50.0]}},
    "energy_j": 500.0,
    "service_cpu_s": 2.0,
    "notes": ["counted by the GPU"],
}
EFFICIENCY = Efficiency(100.0, 50.0, 2.0, 2000.0, None)


def made_up_run(
    protocol: Protocol = "HTTP", load: Load | None = None, number: int = 1, *, p50_ms: float = 10.0, **other: Any
) -> Run:
    """1,000 requests, 100 a second, with latencies from half of the median up to many times of it."""
    random_times = random.Random(number)
    times_ms = [p50_ms * (0.5 + random_times.expovariate(1.4)) for _ in range(1000)]
    run = Run(
        protocol=protocol,
        load=load or Load("closed", 4),
        round=number,
        duration_s=10.0,
        requests=1000,
        failures=0,
        errors={},
        images_per_s=100.0,
        mean_ms=p50_ms,
        latency_ms=percentiles(times_ms),
        late_p99_ms=0.0,
        generator_busy=0.25,
        stage_ms=STAGE_MS,
        batch_sizes={"1": 30, "2": 20, "3–4": 50},
    )
    return replace(run, **other)


def made_up_result(*runs: Run, **other: Any) -> Result:
    rounds = max((run.round for run in runs), default=1)
    return replace(Result("2026-01-02T03:04+00:00", ENVIRONMENT, rounds, 10.0, runs), **other)


def made_up_sweep(*, scale: float = 1.0, rounds: int = 3, readings: bool = True) -> Result:
    """Two protocols, four loads; each round a little slower than the one before."""
    runs = []
    protocols: tuple[tuple[Protocol, float], ...] = (("HTTP", 1.0), ("gRPC", 1.2))
    for protocol, factor in protocols:
        for in_flight in (1, 4, 16, 64):
            for number in range(1, rounds + 1):
                slower = scale * factor * (1 + 0.02 * number)
                rate = 600 * in_flight / (in_flight + 3) / slower
                p50_ms = 1e3 * in_flight / rate
                stages = {stage: time_ms * p50_ms / 7 for stage, time_ms in STAGE_MS.items()}
                sizes = {"1": 64, "2": 2 * in_flight, "3–4": in_flight**2 // 4, "5–8": in_flight**2 // 20}
                runs.append(
                    made_up_run(
                        protocol, Load("closed", in_flight), number, p50_ms=p50_ms, images_per_s=rate,
                        stage_ms=stages, batch_sizes=sizes, readings=READINGS if readings else None,
                        efficiency=EFFICIENCY if readings else None,
                    )
                )  # fmt: skip
    return made_up_result(*runs)
