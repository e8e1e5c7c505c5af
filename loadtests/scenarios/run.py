"""One run of LoadGen against one protocol of a service."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from loadtests.scenarios.client import Client, over_grpc, over_http
from loadtests.scenarios.samples import find_samples
from loadtests.scenarios.settings import Demand, Mode, Protocol, Scenario, images_per_request, loadgen_settings
from loadtests.scenarios.system import Outcome, SystemUnderTest
from loadtests.target import Target

SWITCH_INTERVAL_S = 1e-4
"""LoadGen's thread needs the interpreter at every arrival; by default it might get it 5 ms late."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        folder: the images, `<class>/<image>`; None: those of every load test.
        logs: the folder for LoadGen's own logs; it must exist.
    """

    scenario: Scenario
    protocol: Protocol
    mode: Mode
    demand: Demand
    target: Target
    folder: Path | None
    logs: Path


def run_loadgen(job: Job) -> Outcome:
    """Run LoadGen in a process of its own: once started it can only be stopped together with its process."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, sending))
    process.start()
    sending.close()
    try:
        outcome: Outcome = receiving.recv()
    except EOFError:
        raise SystemExit("error: LoadGen's process ended before its run did; what it says is above") from None
    finally:
        receiving.close()
        process.kill()
        process.join()
    return outcome


def _work(job: Job, sending: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    sending.send(uvloop.run(_drive(job)))


async def _drive(job: Job) -> Outcome:
    samples = find_samples(job.folder)
    settings = loadgen_settings(job.scenario, job.mode, job.demand)
    per_request = images_per_request(job.scenario, job.demand, settings)
    async with _connected(job, per_request) as client:
        system = SystemUnderTest(client, samples, per_request)
        await asyncio.to_thread(system.run_test, settings, job.logs)
        return system.outcome()


def _connected(job: Job, per_request: int) -> AbstractAsyncContextManager[Client]:
    if job.protocol == "grpc":
        return over_grpc(job.target.grpc)
    return over_http(job.target.http, single=per_request == 1)
