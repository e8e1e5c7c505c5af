"""Command line: `python -m loadtests` loads a service with locust, over HTTP and over gRPC unless told otherwise."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from loadtests.arguments import add_service_options, chosen_service, count, positive
from loadtests.command import run
from loadtests.machine import describe_machine
from loadtests.results import new_results_folder
from loadtests.run import Load, Run, run_locust
from loadtests.shapes import OVERLOAD, SHAPES, stages
from loadtests.summary import summarize
from loadtests.target import Target
from loadtests.users import USERS, UserKind

DURATION_S = 15


def main(arguments: list[str] | None = None) -> int:
    """Load the service with each kind of users; 1 when a request failed that should not, or none was answered."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description="Load the service with images over HTTP, then over gRPC. Unless it is pointed at one that runs, "
        "it starts its own, with the model repository FOVEA_MODEL_REPOSITORY or the bundled one. "
        "The images are the JPEG files in the folder FOVEA_LOADTEST_IMAGES, or drawn ones.",
    )
    parser.add_argument(
        "--user", choices=USERS, nargs="+", default=["http", "grpc"], help="kinds of users, one run for each"
    )
    parser.add_argument("--users", type=count, default=16, help="each sends without a pause, default: %(default)s")
    parser.add_argument(
        "--rate",
        type=positive,
        metavar="R",
        help="instead: random arrivals per second, of all users together, whether earlier ones were answered or not",
    )
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        help=f"how the load goes over time; overload is {OVERLOAD} times the rate R, or {OVERLOAD} times what the "
        "users are answered without a pause",
    )
    parser.add_argument(
        "--duration-s",
        type=count,
        help=f"seconds of each run, default: {DURATION_S}; "
        + ", ".join(f"{name} {shape.duration_s}" for name, shape in SHAPES.items()),
    )
    add_service_options(parser)
    options = parser.parse_args(arguments)
    duration_s = options.duration_s or (SHAPES[options.shape].duration_s if options.shape else DURATION_S)
    if options.shape:
        try:
            stages(options.shape, options.users, duration_s, None)
        except ValueError as error:
            parser.error(str(error))
    load = Load(options.users, duration_s, options.shape, options.rate)

    with chosen_service(parser, options) as target:
        folder = new_results_folder()
        facts = {
            "Time": f"{datetime.now():%Y-%m-%d %H:%M}",
            "Machine": f"{describe_machine()}; it also ran the load generator",
            "Served": f"{', '.join(target.served())} at {target.http}",
            "Load": f"{load}, for each kind of users"
            + (f"; in the overload {OVERLOAD} times the rate" if load.shape == "overload" else ""),
        }
        runs = [run for kind in dict.fromkeys(options.user) for run in _runs(USERS[kind], target, load, folder)]
    summary = summarize(runs, facts)
    (folder / "summary.md").write_text(summary)
    print(f"\n{summary}\nIn {folder}")
    return 0 if all(_passed(run, options.shape) for run in runs) else 1


def _runs(kind: UserKind, target: Target, load: Load, folder: Path) -> Iterator[Run]:
    """A run; an overload without a known rate has another before it, as long as a stage, that finds the rate."""
    if load.shape == "overload":
        known = load.rate_per_s
        if known is None:
            alone = Load(load.users, load.duration_s // len(SHAPES["overload"].levels))
            measured = _run(kind, target, alone, folder, f"{kind.name}-closed")
            yield measured
            known = measured.whole.answered_per_s
        if not known:
            return
        load = replace(load, rate_per_s=OVERLOAD * known)
    yield _run(kind, target, load, folder, kind.name)


def _run(kind: UserKind, target: Target, load: Load, folder: Path, name: str) -> Run:
    print(f"{name}: {load} …", flush=True)
    return run_locust(kind, target, load, folder, name)


def _passed(run: Run, shape: str | None) -> bool:
    """Some requests were answered in every stage, and none failed; from an overload on, some are to be refused."""
    if any(figures.requests == figures.failures for figures in (run.whole, *run.stages.values())):
        return False
    if shape != "overload" or not run.stages:
        return not run.whole.failures
    before = next(iter(run.stages.values()))
    return not before.failures and run.whole.failures == sum(figures.requests for figures in run.refused.values())


if __name__ == "__main__":
    run(main)
