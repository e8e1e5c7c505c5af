"""Command line: `python -m loadtests` loads a service over HTTP and over gRPC with locust."""

from __future__ import annotations

import argparse
import signal
import sys
from datetime import datetime

from loadtests.arguments import add_service_options, chosen_service
from loadtests.machine import describe_machine
from loadtests.results import new_results_folder
from loadtests.run import run_locust
from loadtests.summary import summarize


def main(arguments: list[str] | None = None) -> int:
    """Load both protocols; 1 when a request failed, or none was answered."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Load the service with images over HTTP, then over gRPC. Unless it is pointed at one that runs, "
        "it starts its own, with the model repository FOVEA_MODEL_REPOSITORY or the bundled one. "
        "The images are the JPEG files in the folder FOVEA_LOADTEST_IMAGES, or drawn ones.",
    )
    parser.add_argument("--users", type=int, default=16, help="each sends without a pause, default: %(default)s")
    parser.add_argument("--duration-s", type=int, default=15, help="seconds for each protocol, default: %(default)s")
    add_service_options(parser)
    options = parser.parse_args(arguments)

    with chosen_service(parser, options) as target:
        folder = new_results_folder()
        facts = {
            "Time": f"{datetime.now():%Y-%m-%d %H:%M}",
            "Machine": f"{describe_machine()}; it also ran the load generator",
            "Served": f"{', '.join(target.served())} at {target.http}",
            "Load": f"{options.users} users without a pause, {options.duration_s} s for each protocol",
        }
        runs = []
        for protocol, user, host in (("HTTP", "HttpUser", target.http), ("gRPC", "GrpcUser", target.grpc)):
            print(f"{protocol}: {options.users} users for {options.duration_s} s …", flush=True)
            runs.append(
                run_locust(
                    user, protocol, host, target.metrics,
                    users=options.users, duration_s=options.duration_s, folder=folder,
                )
            )  # fmt: skip
    summary = summarize(runs, facts)
    (folder / "summary.md").write_text(summary)
    print(f"\n{summary}\nIn {folder}")
    return 1 if any(run.failures or not run.requests for run in runs) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
