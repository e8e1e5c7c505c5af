"""Command line: `python -m loadtests.plan` says how many replicas hold a rate and a latency, and what they cost."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import get_args

from loadtests.arguments import count, positive
from loadtests.command import run
from loadtests.images import SIZES, draw
from loadtests.machine import cores, describe_machine
from loadtests.plan.curve import Curve, Front, read_curve
from loadtests.plan.fleet import Balancer, Traffic, setup_of
from loadtests.plan.measure import measure_points
from loadtests.plan.overhead import measure_front
from loadtests.plan.plan_page import plan_json, plan_page
from loadtests.plan.served import read_served
from loadtests.plan.sizing import FACTORS, Answer, Sizing
from loadtests.plan.trace import read_trace
from loadtests.plan.validate import require_same, validate
from loadtests.plan.validation_page import validation_json, validation_page
from loadtests.results import new_results_folder
from loadtests.target import started_service


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three commands; 1 when a validation met a service that answered nothing at one of its loads."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.plan",
        description="Capacity on paper that can be checked: measure a curve, plan with it, validate the plan.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    curve = commands.add_parser(
        "curve",
        help="measure what a batch and a request cost on this machine",
        description="Measure the inference time of a model by batch size, with every instance busy, and what a request "
        "costs the service beside it. The model is one of the model repository FOVEA_MODEL_REPOSITORY or the bundled "
        "one; a service is started for its configuration and for the front's metrics.",
    )
    curve.add_argument("--model", default="", help="unset: the service's default")
    curve.add_argument("--from", type=Path, dest="points", metavar="FILE", help="take the inference times from a curve")
    curve.add_argument("--repeats", type=count, default=50, help="batches of a size and instance, default: 50")
    curve.add_argument("--front-ms", type=_not_negative, metavar="MS", help="of a request; unset: measured")
    curve.add_argument("--front-requests", type=count, default=2000, metavar="N", help="default: %(default)s")
    curve.add_argument("--image", type=Path, metavar="FILE", help="image of each request; unset: a drawn JPEG, 32x32")
    curve.add_argument("--output", type=Path, metavar="FILE", help="unset: curve.json in a new folder of the results")
    curve.set_defaults(run=_curve)

    plan = commands.add_parser(
        "plan",
        help="how many replicas hold a rate and a latency",
        description="Simulate queue, batcher and replicas, and say how many of them hold the p99.",
    )
    plan.add_argument("--curve", type=Path, required=True, metavar="FILE")
    arrivals = plan.add_mutually_exclusive_group(required=True)
    arrivals.add_argument("--rate", type=positive, help="requests per second, a Poisson process")
    arrivals.add_argument("--trace", type=Path, metavar="FILE", help="arrival times in seconds, one on each line")
    plan.add_argument("--images", type=count, default=1, help="of a request, default: 1")
    plan.add_argument("--tensors", action="store_true", help="the images of a request are one tensor")
    plan.add_argument("--p99-ms", type=positive, required=True, metavar="MS")
    plan.add_argument("--headroom", type=_not_negative, default=0.2, metavar="SHARE", help="of the rate, default: 0.2")
    plan.add_argument("--price-per-hour", type=_not_negative, default=1.0, metavar="PRICE", help="of a machine or GPU")
    plan.add_argument("--replicas-per-machine", type=count, default=1, metavar="N", help="or GPU, default: 1")
    plan.add_argument("--balancer", choices=get_args(Balancer), default="random", help="default: %(default)s")
    plan.add_argument("--timeout-s", type=positive, default=30.0, metavar="S", help="of a request, default: 30")
    plan.add_argument("--requests", type=count, default=20_000, help="in each simulation, default: %(default)s")
    plan.add_argument("--seeds", type=count, default=5, help="default: %(default)s")
    batcher = plan.add_argument_group("the batcher's settings, where they are not to be the curve's")
    batcher.add_argument("--max-batch-size", type=count)
    batcher.add_argument("--max-queue-size", type=count)
    batcher.add_argument("--queue-delay-ms", type=_not_negative, metavar="MS")
    batcher.add_argument("--instances", type=count)
    plan.set_defaults(run=_plan)

    checked = commands.add_parser(
        "validate",
        help="hold predictions against the service",
        description="Start the service, load it with Poisson arrivals over HTTP at five shares of its predicted "
        "capacity, and compare. The curve must have been measured on this machine, of the same model repository.",
    )
    checked.add_argument("--curve", type=Path, required=True, metavar="FILE")
    checked.add_argument("--model", default="", help="unset: the service's default")
    checked.add_argument("--duration-s", type=positive, default=60.0, metavar="S", help="of each load, default: 60")
    checked.add_argument("--image", type=Path, metavar="FILE", help="image of each request; unset: a drawn JPEG, 32x32")
    checked.add_argument("--seeds", type=count, default=5, help="of each prediction, default: %(default)s")
    checked.set_defaults(run=_validate)
    return parser


def _curve(options: argparse.Namespace) -> int:
    given = options.points and options.front_ms is not None
    curve = read_curve(options.points) if given else _measured(options)
    if options.front_ms is not None:
        curve = curve.model_copy(update={"front": Front(transport_ms=options.front_ms, source="given as a number")})
    path = options.output or new_results_folder() / "curve.json"
    path.write_text(curve.model_dump_json(indent=2) + "\n")
    print("| batch size | median ms | 10th – 90th percentile | images/s of all instances |")
    print("| ---: | ---: | ---: | ---: |")
    for point in curve.points:
        likely = point.likely_ms or (point.median_ms,)
        low, high = likely[len(likely) // 10], likely[-1 - len(likely) // 10]
        rate = 1e3 * curve.instances * point.batch_size / point.median_ms if point.median_ms else math.inf
        print(f"| {point.batch_size} | {point.median_ms:.3f} | {low:.3f} – {high:.3f} | {rate:,.0f} |")
    print(f"\nFront: {curve.front.request_ms:.3f} ms a request of one image ({curve.front.source})\nIn {path}")
    return 0


def _measured(options: argparse.Namespace) -> Curve:
    with started_service() as target:
        served = read_served(target, options.model)
        front = Front()
        if options.front_ms is None:
            front = measure_front(target, served.model, _image(options.image), options.front_requests)
    if options.points:
        return read_curve(options.points).model_copy(update={"front": front})
    points, padded = measure_points(
        served.path,
        served.execution_provider,
        instances=served.instances,
        max_batch_size=served.max_batch_size,
        repeats=options.repeats,
    )
    return Curve(
        model=f"{served.model} version {served.version}",
        execution_provider=served.execution_provider,
        machine=f"{describe_machine()}, {datetime.now():%Y-%m-%d %H:%M}",
        instances=served.instances,
        cores=cores() if served.execution_provider == "CPUExecutionProvider" else None,
        padded=padded,
        max_batch_size=served.max_batch_size,
        max_queue_size=served.max_queue_size,
        max_queue_delay_ms=served.max_queue_delay_ms,
        points=points,
        front=front,
    )


def _plan(options: argparse.Namespace) -> int:
    curve = read_curve(options.curve)
    names = ("max_batch_size", "max_queue_size", "instances")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if given.get("instances", curve.instances) != curve.instances:
        print(f"the curve was measured with {curve.instances} instances busy; it may be another one with more of them")
    if options.queue_delay_ms is not None:
        given["max_queue_delay_s"] = 1e-3 * options.queue_delay_ms
    sizing = Sizing(
        curve,
        replace(setup_of(curve, tensors=options.tensors), timeout_s=options.timeout_s, **given),
        1e-3 * options.p99_ms,
        headroom=options.headroom,
        balancer=options.balancer,
        price_per_hour=options.price_per_hour,
        replicas_per_machine=options.replicas_per_machine,
        requests=options.requests,
        seeds=options.seeds,
    )
    traffic = read_trace(options.trace, options.images) if options.trace else Traffic(options.rate, options.images)
    answer = sizing.answer(traffic)
    others: dict[float, Answer | None] = {}
    for factor in FACTORS:
        try:
            others[factor] = answer if factor == 1 else sizing.answer(traffic.times(factor))
        except ValueError:
            others[factor] = None
    folder = new_results_folder()
    page = plan_page(sizing, traffic, answer, others)
    (folder / "plan.md").write_text(page)
    (folder / "plan.json").write_text(json.dumps(plan_json(sizing, traffic, answer, others), indent=2) + "\n")
    print(f"{page}\nIn {folder}")
    return 0


def _validate(options: argparse.Namespace) -> int:
    curve = read_curve(options.curve)
    image = _image(options.image)
    with started_service() as target:
        served = read_served(target, options.model)
        require_same(curve, served)
        validation = asyncio.run(validate(curve, target, served.model, image, options.duration_s, options.seeds))
    facts = {
        "Time": f"{datetime.now():%Y-%m-%d %H:%M}",
        "Machine": f"{describe_machine()}; it also ran the load generator",
        "Served": f"{served.model} version {served.version}, {served.instances} instances, max batch size "
        f"{served.max_batch_size}",
        "Curve": f"{curve.model}, {curve.machine}",
        "Load": f"Poisson arrivals over HTTP, one image of {len(image):,} bytes each, {options.duration_s:g} s a load",
    }
    folder = new_results_folder()
    page = validation_page(validation, facts)
    (folder / "validation.md").write_text(page)
    (folder / "validation.json").write_text(json.dumps(validation_json(validation, facts), indent=2) + "\n")
    print(f"\n{page}\nIn {folder}")
    return 0 if all(load.measured.answered_per_s for load in validation.loads) else 1


def _image(path: Path | None) -> bytes:
    return path.read_bytes() if path else draw(0, SIZES[0])


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return value


if __name__ == "__main__":
    run(main)
