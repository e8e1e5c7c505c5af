"""Command line: `python -m loadtests.scenarios` has MLPerf's LoadGen drive a service over HTTP and over gRPC."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import get_args

from loadtests.arguments import add_service_options, chosen_service, count, positive
from loadtests.command import run
from loadtests.machine import describe_machine
from loadtests.metrics import mean_between, read_metrics
from loadtests.results import new_results_folder
from loadtests.scenarios.logs import count_correct, parse_detail, parse_summary
from loadtests.scenarios.report import TITLES, Accuracy, Performance, Result, report
from loadtests.scenarios.run import Job, run_loadgen
from loadtests.scenarios.samples import find_samples
from loadtests.scenarios.settings import Demand, Mode, Protocol, Scenario, loadgen_settings
from loadtests.scenarios.system import MOST_REQUESTS_OF_A_QUERY, Outcome


def main(arguments: list[str] | None = None) -> int:
    """Run every scenario over every protocol; 1 when a request failed, whatever LoadGen's verdict."""
    parser = _parser()
    options = parser.parse_args(arguments)
    demand = Demand(**{field.name: getattr(options, field.name) for field in fields(Demand)})
    modes = options.mode or (get_args(Mode) if options.folder else ["performance"])
    if "accuracy" in modes and not options.folder:
        parser.error("--mode accuracy needs a folder, for the classes of its images")
    try:
        samples = find_samples(options.folder)
    except FileNotFoundError as error:
        parser.error(str(error))
    labels = [sample.label for sample in samples]

    with chosen_service(parser, options) as target:
        folder = new_results_folder()
        facts = {
            "Time": f"{datetime.now():%Y-%m-%d %H:%M}",
            "Machine": f"{describe_machine()}; it also ran the load generator",
            "Served": f"{', '.join(target.served())} at {target.http}",
            "Images": f"{len(samples):,}",
            **_settings(demand, options.scenario),
        }
        results = []
        for scenario, protocol in product(dict.fromkeys(options.scenario), dict.fromkeys(options.protocol)):
            jobs = {
                mode: Job(
                    scenario, protocol, mode, demand, target, options.folder, folder / f"{scenario}-{protocol}-{mode}"
                )
                for mode in modes
            }
            performance = _performance(jobs["performance"]) if "performance" in jobs else None
            accuracy = _accuracy(jobs["accuracy"], labels) if "accuracy" in jobs else None
            results.append(Result(scenario, protocol, performance, accuracy))
    page = report(results, facts)
    (folder / "scenarios.md").write_text(page)
    print(f"\n{page}\nIn {folder}")
    return 1 if any(outcome.failed for result in results for _, outcome in result.outcomes()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.scenarios",
        description="Have MLPerf's LoadGen drive the service. Unless it is pointed at one that runs, it starts its "
        "own, with the model repository FOVEA_MODEL_REPOSITORY or the bundled one.",
    )
    parser.add_argument(
        "folder", type=Path, nargs="?",
        help="<class>/<image>, as the test split of an image folder; unset: the images of python -m loadtests, and no "
        "accuracy mode",
    )  # fmt: skip
    for name, of in (("--scenario", Scenario), ("--protocol", Protocol)):
        parser.add_argument(name, nargs="+", choices=get_args(of), default=get_args(of), help="default: all")
    parser.add_argument("--mode", nargs="+", choices=get_args(Mode), help="default: performance; with a folder, both")
    parser.add_argument("--min-duration-s", type=positive, default=60.0, help="of a run, default: 60 (MLPerf's: 600)")
    parser.add_argument("--min-query-count", type=count, help="default: MLPerf's (100; MultiStream 662; Offline 24576)")
    parser.add_argument("--target-qps", type=positive, default=100.0, help="Server: requests per second, default: 100")
    parser.add_argument("--p99-ms", type=positive, default=15.0, help="Server: latency bound, default: 15 (MLPerf's)")
    parser.add_argument(
        "--offline-qps", type=positive, default=600.0,
        help="Offline: most images per second that are expected; says how large the query is, default: 600",
    )  # fmt: skip
    parser.add_argument("--images-per-request", type=count, default=8, help="Offline, default: %(default)s")
    add_service_options(parser)
    return parser


def _settings(demand: Demand, scenarios: Sequence[Scenario]) -> dict[str, str]:
    """What was asked of LoadGen, and what of it is not MLPerf's."""
    seeds = loadgen_settings(scenarios[0], "performance", demand)
    counts = "MLPerf's minimum of queries" if demand.min_query_count is None else f"{demand.min_query_count:,} queries"
    facts = {
        "LoadGen": f"{version('mlcommons-loadgen')}, with MLPerf's settings for ResNet-50; seeds {seeds.qsl_rng_seed}, "
        f"{seeds.sample_index_rng_seed}, {seeds.schedule_rng_seed}",
        "Not an MLPerf submission": f"at least {demand.min_duration_s:g} s a run (MLPerf: 600 s) and {counts}; the "
        "model and the images are not MLPerf's",
        "Server": f"{demand.target_qps:g} requests per second on average; bound: 99 % within {demand.p99_ms:g} ms",
        "Offline": f"one query, large enough for {demand.offline_qps:g} images/s, in requests of "
        f"{demand.images_per_request} images, {MOST_REQUESTS_OF_A_QUERY} at a time",
    }
    return {name: fact for name, fact in facts.items() if name not in get_args(Scenario) or name in scenarios}


def _performance(job: Job) -> Performance:
    before = read_metrics(job.target.metrics)
    outcome = _run(job)
    after = read_metrics(job.target.metrics)
    detail = parse_detail((job.logs / "mlperf_log_detail.txt").read_text())
    return Performance(
        outcome,
        parse_summary((job.logs / "mlperf_log_summary.txt").read_text()),
        queries=detail["result_query_count"],
        images_per_query=detail["effective_samples_per_query"],
        mean_batch_size=mean_between(before, after, "fovea_batch_size"),
    )


def _accuracy(job: Job, labels: list[str]) -> Accuracy:
    outcome = _run(job)
    correct = count_correct((job.logs / "mlperf_log_accuracy.json").read_text(), labels)
    return Accuracy(outcome, correct, len(labels))


def _run(job: Job) -> Outcome:
    print(f"{job.scenario} over {TITLES[job.protocol]}, {job.mode} …", flush=True)
    job.logs.mkdir()
    return run_loadgen(job)


if __name__ == "__main__":
    run(main)
