"""Command line: `python -m loadtests.report` sweeps the load over HTTP and gRPC and leaves a page with plots."""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Literal

from tqdm import tqdm

from loadtests.arguments import add_hardware_option, add_service_options, chosen_service, count, positive
from loadtests.command import run
from loadtests.images import encoded_images
from loadtests.report.environment import describe_environment
from loadtests.report.files import write_files
from loadtests.report.markdown import to_markdown
from loadtests.report.measure import measure
from loadtests.report.result import Load, Protocol, Result, Run
from loadtests.report.senders import allow_many_connections, sender
from loadtests.results import new_results_folder
from loadtests.target import Target

PROTOCOLS: tuple[Protocol, ...] = ("HTTP", "gRPC")
IN_FLIGHT = (1, 4, 16, 64)


def main(arguments: list[str] | None = None) -> int:
    """Measure every load in every round; 1 when a request failed, or a run had none answered."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.report",
        description="Load the service over HTTP and gRPC at several levels, in rounds of shuffled order, and leave the "
        "figures as JSON, as a page with plots and as Markdown. Unless it is pointed at a service that runs, it starts "
        "its own, with the model repository FOVEA_MODEL_REPOSITORY or the bundled one. The images are the JPEG files "
        "in the folder FOVEA_LOADTEST_IMAGES, or drawn ones.",
    )
    loads = parser.add_mutually_exclusive_group()
    loads.add_argument(
        "--in-flight", type=count, nargs="+", metavar="N", default=IN_FLIGHT,
        help="requests unanswered at any time; default: 1 4 16 64",
    )  # fmt: skip
    loads.add_argument(
        "--rates", type=positive, nargs="+", metavar="R", help="instead: random arrivals per second, answered or not"
    )
    parser.add_argument("--duration-s", type=positive, default=10.0, help="seconds of one run, default: 10")
    parser.add_argument("--rounds", type=count, metavar="N", default=5, help="default: 5")
    add_hardware_option(parser)
    add_service_options(parser)
    options = parser.parse_args(arguments)
    kind: Literal["closed", "open"] = "open" if options.rates else "closed"
    levels = [Load(kind, value) for value in dict.fromkeys(options.rates or options.in_flight)]

    allow_many_connections()
    time = datetime.now().astimezone().isoformat(timespec="minutes")
    images = encoded_images()
    with chosen_service(parser, options) as target:
        environment = describe_environment(target, images)
        runs = asyncio.run(
            _sweep(
                target, images, levels, rounds=options.rounds, duration_s=options.duration_s, hardware=options.hardware
            )
        )
    result = Result(time, environment, options.rounds, options.duration_s, tuple(runs))
    folder = new_results_folder()
    write_files(result, folder)
    print(f"\n{to_markdown(result)}\nIn {folder}")
    return 1 if any(run.failures or not run.requests for run in runs) else 0


async def _sweep(
    target: Target,
    images: Sequence[bytes],
    levels: Sequence[Load],
    *,
    rounds: int,
    duration_s: float,
    hardware: str | None,
) -> list[Run]:
    """Every round has every protocol and load once, in an order of its own, so that a drift falls on all of them."""
    order = random.Random(0)
    runs = []
    async with AsyncExitStack() as stack:
        senders = {
            protocol: await stack.enter_async_context(sender(protocol, target, images)) for protocol in PROTOCOLS
        }
        with tqdm(total=rounds * len(PROTOCOLS) * len(levels), unit="run") as progress:
            for number in range(1, rounds + 1):
                turns = [(protocol, load) for protocol in PROTOCOLS for load in levels]
                order.shuffle(turns)
                for protocol, load in turns:
                    progress.set_description(f"round {number} of {rounds}: {protocol}, {load}")
                    run = await measure(
                        target, protocol, senders[protocol], load,
                        number=number, duration_s=duration_s, seed=number, hardware=hardware,
                    )  # fmt: skip
                    runs.append(run)
                    progress.update()
    return sorted(runs, key=lambda run: (PROTOCOLS.index(run.protocol), run.load, run.round))


if __name__ == "__main__":
    run(main)
