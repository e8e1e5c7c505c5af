"""The rounds: in each of them ONNX Runtime alone, then the service under every load."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from loadtests.gpu.memory import cuda_region, shared_request, system_region
from loadtests.gpu.result import Served
from loadtests.inprocess import Arrangement, measure_arrangements
from loadtests.machine import cores
from loadtests.peers import result
from loadtests.peers.answers import check_answers, drawn_images
from loadtests.peers.fovea import FOVEA
from loadtests.peers.load import measure_load
from loadtests.peers.model import Model
from loadtests.peers.peer import Setting
from loadtests.peers.process import Server, free_ports, running
from loadtests.peers.protocol import OIP_GRPC, OIP_HTTP, Protocol, ask
from loadtests.targets.hardware import Hardware
from loadtests.targets.measurement import Measurement

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
IMAGES = (1, 8, 32, 128)
CEILING_S = 1.0
"""Of each arrangement, at most; and at least one batch."""
TOLERANCE = 0.02
"""Of the largest logit, between a GPU and a CPU."""
MAX_CONNECTIONS = 256


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        device_id: of the GPU; None: on the CPU.
        batch_sizes: of ONNX Runtime alone.
        images: in a request.
        in_flight: images unanswered at any time, about.
        duration_s: of each load.
        hardware: what is watched.
        logs: a folder for what the service writes.
    """

    models: Sequence[Model]
    device_id: int | None
    batch_sizes: Sequence[int]
    images: Sequence[int]
    in_flight: int
    rounds: int
    duration_s: float
    hardware: Hardware
    logs: Path

    @property
    def memories(self) -> tuple[str, ...]:
        return ("message", "system") if self.device_id is None else ("message", "system", "cuda")


def measure(plan: Plan) -> Iterator[result.Ceiling | Served]:
    """Every outcome as it comes.

    Raises:
        ServerFailedError, NotAnsweredError, WrongAnswerError: the service could not be measured.
    """
    for number, model in product(range(1, plan.rounds + 1), plan.models):
        yield from _measure_ceiling(plan, model, number)
        yield from _measure_service(plan, model, number)


def _measure_ceiling(plan: Plan, model: Model, number: int) -> Iterator[result.Ceiling]:
    """In a process of its own, which gives all memory back."""
    counts = (cores(),) if plan.device_id is None else (1, 2)
    arrangements = [Arrangement(*each) for each in product(counts, plan.batch_sizes)]
    # The layout is what the service asks for; its other options are ONNX Runtime's own defaults.
    cuda = None if plan.device_id is None else {"device_id": str(plan.device_id), "prefer_nhwc": "1"}
    (pixels,) = drawn_images(model, 1)[0]
    duration_s = min(CEILING_S, plan.duration_s) * len(arrangements)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        rates = process.submit(measure_arrangements, model.file, pixels, arrangements, duration_s, cuda).result()
    for each, rate in rates.items():
        yield result.Ceiling(model.name, number, each.sessions, each.batch_size, rate)


def _measure_service(plan: Plan, model: Model, number: int) -> Iterator[Served]:
    http_port, grpc_port = free_ports(2)
    ports = {OIP_HTTP: http_port, OIP_GRPC: grpc_port}
    on_gpu = plan.device_id is not None
    settings = {"FOVEA_EXECUTION_PROVIDER": "cuda" if on_gpu else "cpu", "FOVEA_DEVICE_ID": str(plan.device_id or 0)}
    settings |= {"FOVEA_SYSTEM_SHARED_MEMORY": "true", "FOVEA_CUDA_SHARED_MEMORY": str(on_gpu).lower()}
    pixels = np.concatenate(drawn_images(model, max(plan.images)))
    first = OIP_HTTP.request(model, pixels[:1])
    with TemporaryDirectory() as scratch:
        command = FOVEA.command(Setting(model, Path(), Path(scratch), http_port, grpc_port, cores()))
        command = replace(command, settings=command.settings | settings)
        log = plan.logs / f"{model.name}-{number}.log"
        with running(command, Path(scratch), log, lambda: ask(OIP_HTTP, http_port, first)) as server:
            for protocol, port in ports.items():
                check_answers(protocol, port, model, relative=TOLERANCE if on_gpu else 0.0)
            for memory in plan.memories:
                with _region(memory, f"http://127.0.0.1:{http_port}", pixels.tobytes(), plan.device_id or 0):
                    for (protocol, port), images in product(ports.items(), plan.images):
                        yield _measure(plan, model, number, server, protocol, port, memory, pixels[:images])


def _region(memory: str, http: str, content: bytes, device_id: int) -> AbstractContextManager[None]:
    match memory:
        case "system":
            return system_region(http, content)
        case "cuda":
            return cuda_region(http, content, device_id)
        case _:
            return nullcontext()


def _measure(
    plan: Plan,
    model: Model,
    number: int,
    server: Server,
    protocol: Protocol,
    port: int,
    memory: str,
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> Served:
    images, wire = len(pixels), protocol.wire
    own = memory == "message"
    request = protocol.request(model, pixels) if own else shared_request(wire, model, images)
    connections = min(MAX_CONNECTIONS, max(2, plan.in_flight // images))
    subject = result.Subject(model.name, number, FOVEA.name, wire)
    watch = Measurement(plan.hardware)
    load = measure_load(subject, server, protocol, port, request, connections, plan.duration_s, watch)
    images_per_s = images * load.requests_per_s
    energy_j, watched_s = watch.readings.energy_j, watch.readings.duration_s
    return Served(
        model=model.name,
        round=number,
        wire=wire,
        memory=memory,
        images=images,
        connections=connections,
        images_per_s=images_per_s,
        failed=load.failed,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        joules_per_image=energy_j / watched_s / images_per_s if energy_j and images_per_s else None,
        generator_busy=load.generator_busy,
    )
