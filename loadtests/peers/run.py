"""The rounds: in each of them every server in turn, and ONNX Runtime alone, in an order drawn anew."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from subprocess import SubprocessError
from tempfile import TemporaryDirectory

from loadtests.inprocess import Arrangement, measure_arrangements
from loadtests.machine import cores
from loadtests.peers.answers import WrongAnswerError, check_answers, drawn_images
from loadtests.peers.environment import EnvironmentMissingError, environment
from loadtests.peers.load import measure_load
from loadtests.peers.model import Model
from loadtests.peers.peer import Peer, Setting
from loadtests.peers.process import ServerFailedError, free_ports, running
from loadtests.peers.protocol import NotAnsweredError, Protocol, ask
from loadtests.peers.result import Ceiling, NotMeasured, Outcome, Start, Subject
from loadtests.targets.hardware import SamplingError

CEILING_BATCH_SIZES = (1, 8, 64)
CEILING_S = 0.5
"""Of each arrangement, in a round."""

FAILURES = (ServerFailedError, NotAnsweredError, WrongAnswerError, SamplingError, SubprocessError, OSError)
"""Of one server, which leave the others alone."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        duration_s: of each load.
        seed: of the order.
        logs: a folder for what the servers write.
    """

    models: Sequence[Model]
    peers: Sequence[Peer]
    connections: Sequence[int]
    rounds: int
    duration_s: float
    seed: int
    logs: Path


def measure(plan: Plan) -> Iterator[Outcome]:
    """Every outcome as it comes. A peer with two protocols is started for each of them."""
    folders: dict[str, Path] = {}
    for peer in plan.peers:
        try:
            folders[peer.name] = environment(peer.requirements) if peer.requirements else Path()
        except EnvironmentMissingError as error:
            for model, protocol in product(plan.models, peer.protocols):
                yield NotMeasured(Subject(model.name, 0, peer.name, protocol.wire), f"no environment: {error}")
    servers = [(peer, protocol) for peer in plan.peers if peer.name in folders for protocol in peer.protocols]
    random = Random(plan.seed)
    for number, model in product(range(1, plan.rounds + 1), plan.models):
        turns = [None, *servers]
        random.shuffle(turns)
        for turn in turns:
            if turn is None:
                yield from _measure_ceiling(model, number)
            else:
                peer, protocol = turn
                subject = Subject(model.name, number, peer.name, protocol.wire)
                counts = random.sample(plan.connections, len(plan.connections))
                try:
                    yield from _measure_server(subject, peer, protocol, model, folders[peer.name], counts, plan)
                except FAILURES as error:
                    yield NotMeasured(subject, str(error))


def _measure_ceiling(model: Model, number: int) -> Iterator[Ceiling]:
    """In a process of its own, as a server is."""
    arrangements = [Arrangement(*each) for each in product((cores(), cores() + 1), CEILING_BATCH_SIZES)]
    (pixels,) = drawn_images(model, 1)[0]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        duration_s = CEILING_S * len(arrangements)
        rates = process.submit(measure_arrangements, model.file, pixels, arrangements, duration_s).result()
    for each, rate in rates.items():
        yield Ceiling(model.name, number, each.sessions, each.batch_size, rate)


def _measure_server(
    subject: Subject, peer: Peer, protocol: Protocol, model: Model, folder: Path, counts: Sequence[int], plan: Plan
) -> Iterator[Outcome]:
    http_port, grpc_port = free_ports(2)
    port = grpc_port if protocol.wire == "gRPC" else http_port
    request = protocol.request(model, drawn_images(model, 1)[0])
    log = plan.logs / f"{model.name}-{subject.round}-{peer.name}-{protocol.wire}.log"
    with TemporaryDirectory() as scratch:
        command = peer.command(Setting(model, folder, Path(scratch), http_port, grpc_port, cores()))
        with running(command, Path(scratch), log, lambda: ask(protocol, port, request)) as server:
            check_answers(protocol, port, model)
            for count in counts:
                yield measure_load(subject, server, protocol, port, request, count, plan.duration_s)
            yield Start(subject, server.cold_start_s, server.pss_bytes())
