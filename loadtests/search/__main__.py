"""Command line: `python -m loadtests.search --p99-ms 20` finds the highest rate that is held within a bound."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from datetime import datetime

from loadtests.arguments import add_hardware_option, add_service_options, chosen_service, count, positive
from loadtests.command import run
from loadtests.images import encoded_images
from loadtests.report.environment import describe_environment
from loadtests.report.files import write_files
from loadtests.report.measure import measure
from loadtests.report.numbers import rate_text
from loadtests.report.result import Load, Protocol, Result, Run, Search
from loadtests.report.senders import allow_many_connections, sender
from loadtests.results import new_results_folder
from loadtests.search.bisection import bisect
from loadtests.search.conclusion import conclude
from loadtests.search.tally import Tally
from loadtests.search.verdict import verdict
from loadtests.target import Target

PROTOCOLS: dict[str, Protocol] = {"http": "HTTP", "grpc": "gRPC"}

LEAST_ARRIVALS = 200
"""In a probe, on average; it lasts as long as that takes. Of fewer, the p99 is decided by the slowest one."""


def main(arguments: list[str] | None = None) -> int:
    """Search; 1 when there is no number."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.search",
        description="Find the highest rate of random arrivals at which the 99th percentile of the latency stays within "
        "a bound and no request fails. Unless it is pointed at a service that runs, it starts its own, with the model "
        "repository FOVEA_MODEL_REPOSITORY or the bundled one. The images are the JPEG files in the folder "
        "FOVEA_LOADTEST_IMAGES, or drawn ones.",
    )
    parser.add_argument("--p99-ms", type=positive, required=True, help="the bound, from the scheduled arrival")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="http", help="default: http")
    parser.add_argument("--duration-s", type=positive, default=10.0, help="least seconds of a probe, default: 10")
    parser.add_argument("--rounds", type=count, default=5, help="probes that decide on a rate, default: 5")
    parser.add_argument("--lowest-rate", type=positive, default=20.0, help="tried first, per second, default: 20")
    parser.add_argument(
        "--resolution", type=positive, default=0.05,
        help="share by which the lowest rate missed may be above the highest held, default: 0.05",
    )  # fmt: skip
    parser.add_argument("--limit-s", type=positive, default=3600.0, help="no probe begins after it, default: 3600")
    add_hardware_option(parser)
    add_service_options(parser)
    options = parser.parse_args(arguments)

    allow_many_connections()
    began = datetime.now().astimezone().isoformat(timespec="minutes")
    images = encoded_images()
    with chosen_service(parser, options) as target:
        environment = describe_environment(target, images)
        search, runs = asyncio.run(_search(target, images, options))
    runs = sorted(runs, key=lambda run: (run.load, run.round))
    folder = new_results_folder()
    write_files(Result(began, environment, options.rounds, options.duration_s, tuple(runs), search), folder)
    print(f"\n{search.reason}\n{search.method}\nIn {folder}")
    return 1 if search.rate_per_s is None else 0


async def _search(target: Target, images: Sequence[bytes], options: argparse.Namespace) -> tuple[Search, list[Run]]:
    protocol = PROTOCOLS[options.protocol]
    tally = Tally(options.p99_ms, options.rounds)
    end = time.monotonic() + options.limit_s
    async with sender(protocol, target, images) as send:

        async def probe(rate: float, repeat: int) -> Run:
            duration_s = max(options.duration_s, LEAST_ARRIVALS / rate)
            run = await measure(
                target, protocol, send, Load("open", rate),
                number=repeat, duration_s=duration_s, seed=len(tally.runs), hardware=options.hardware,
            )  # fmt: skip
            p99 = f"{run.latency_ms[99.0]:,.1f} ms" if run.latency_ms else "not known"
            said = (
                f"probe {len(tally.runs) + 1}: {rate_text(rate)}/s: p99 {p99}, {run.failures} of {run.requests} failed"
            )
            print(f"{said}: {verdict(run, options.p99_ms)}", flush=True)
            return run

        in_time = await bisect(
            probe, tally,
            lowest_per_s=options.lowest_rate, resolution=options.resolution,
            time_left=lambda: time.monotonic() < end,
        )  # fmt: skip
    search = conclude(tally, protocol, lowest_per_s=options.lowest_rate, resolution=options.resolution, in_time=in_time)
    return search, tally.runs


if __name__ == "__main__":
    run(main)
