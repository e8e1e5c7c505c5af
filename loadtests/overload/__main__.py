"""Command line: `python -m loadtests.overload` asks for five times what is answered, and watches the end of it."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import uvloop

from loadtests.arguments import add_service_options, chosen_service, count, positive
from loadtests.command import run
from loadtests.images import encoded_images
from loadtests.openloop import Outcome, Send, send_at
from loadtests.overload.conclusion import conclude
from loadtests.report.closedloop import keep_in_flight
from loadtests.report.environment import describe_environment
from loadtests.report.files import write_files
from loadtests.report.measure import run_of
from loadtests.report.numbers import rate_text
from loadtests.report.result import Load, Overload, Protocol, Result, Run
from loadtests.report.senders import allow_many_connections, sender
from loadtests.results import new_results_folder
from loadtests.shapes import OVERLOAD, Stage, due
from loadtests.target import Target

PROTOCOLS: dict[str, Protocol] = {"http": "HTTP", "grpc": "gRPC"}
LOW = 1 / 4
"""The rate before and after, as a share of what is answered."""


def main(arguments: list[str] | None = None) -> int:
    """Overload the service; 1 when a request failed before it, or in it but was not refused, or when latency was not
    normal again after it.
    """
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.overload",
        description="Find what the service answers to some requests in flight, send random arrivals of a low "
        f"rate, then {OVERLOAD} times what it answers, then the low rate again. Unless it is pointed at a service that "
        "runs, it starts its own, with the model repository FOVEA_MODEL_REPOSITORY or the bundled one. The images are "
        "the JPEG files in the folder FOVEA_LOADTEST_IMAGES, or drawn ones.",
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, default="http", help="default: http")
    parser.add_argument("--rate", type=positive, metavar="R", help="answered per second; unset: it is measured")
    parser.add_argument("--in-flight", type=count, default=64, metavar="N", help="to find it, default: %(default)s")
    parser.add_argument("--duration-s", type=positive, default=60.0, help="seconds of the overload, default: 60")
    parser.add_argument(
        "--calm-s",
        type=positive,
        default=10.0,
        help="seconds before and after it, and of finding the rate, default: 10",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals, default: %(default)s")
    add_service_options(parser)
    options = parser.parse_args(arguments)

    allow_many_connections()
    began = datetime.now().astimezone().isoformat(timespec="minutes")
    images = encoded_images()
    with chosen_service(parser, options) as target:
        environment = describe_environment(target, images)
        overload, runs = uvloop.run(_overload(target, images, options))
    result = Result(began, environment, 2, options.duration_s, tuple(runs), overload=overload)
    folder = new_results_folder()
    write_files(result, folder)
    print(f"\n{overload.reason}\n{overload.method}\nIn {folder}")
    return 0 if _passed(overload, runs) else 1


async def _overload(target: Target, images: Sequence[bytes], options: argparse.Namespace) -> tuple[Overload, list[Run]]:
    protocol = PROTOCOLS[options.protocol]
    async with sender(protocol, target, images) as send:
        peak_per_s = options.rate or await _peak_per_s(send, options.in_flight, options.calm_s)
        stages = [
            Stage("before", options.calm_s, 1, LOW * peak_per_s),
            Stage("overload", options.duration_s, 1, OVERLOAD * peak_per_s),
            Stage("after", options.calm_s, 1, LOW * peak_per_s),
        ]
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(watched(stages))
            outcomes = await send_at(send, due(stages, options.seed))
    runs = list(_runs(protocol, stages, outcomes, watch.result()))
    return conclude(protocol, stages, outcomes, peak_per_s=peak_per_s), runs


async def watched(stages: Sequence[Stage]) -> list[float]:
    """Say when each stage begins; the share of each that this thread computed."""
    busy = []
    for stage in stages:
        print(f"{stage.label}: {stage.duration_s:g} s of {rate_text(stage.rate_per_user or 0)} requests/s", flush=True)
        computed_s, start = time.thread_time(), time.monotonic()
        await asyncio.sleep(stage.duration_s)
        busy.append((time.thread_time() - computed_s) / (time.monotonic() - start))
    return busy


async def _peak_per_s(send: Send, in_flight: int, duration_s: float) -> float:
    """Ends the program where a request fails: who is refused asks again at once, and takes the others' time."""
    print(f"{in_flight} in flight for {duration_s:g} s …", flush=True)
    warm_up = await keep_in_flight(send, in_flight, min(1.0, duration_s))
    outcomes = await keep_in_flight(send, in_flight, duration_s)
    if error := next((each.error for each in warm_up + outcomes if each.error), None):
        raise SystemExit(f"error: {in_flight} requests in flight are not all answered ({error}): see --in-flight")
    return len(outcomes) / max(each.scheduled_s + each.latency_s for each in outcomes)


def _runs(
    protocol: Protocol, stages: Sequence[Stage], outcomes: Sequence[Outcome], busy: Sequence[float]
) -> Iterator[Run]:
    start_s = 0.0
    for stage, generator_busy in zip(stages, busy, strict=True):
        some = [
            replace(each, scheduled_s=each.scheduled_s - start_s)
            for each in outcomes
            if start_s <= each.scheduled_s < start_s + stage.duration_s
        ]
        assert stage.rate_per_user is not None
        yield run_of(
            protocol,
            Load("open", stage.rate_per_user),
            some,
            number=2 if stage is stages[-1] else 1,
            duration_s=stage.duration_s,
            generator_busy=generator_busy,
            stage_ms={},
            batch_sizes={},
            readings=None,
        )
        start_s += stage.duration_s


def _passed(overload: Overload, runs: Sequence[Run]) -> bool:
    before, during, _ = runs
    return overload.back_after_s is not None and not before.failures and during.failures == during.refused


if __name__ == "__main__":
    run(main)
