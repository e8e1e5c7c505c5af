"""A plan as a page of Markdown, and as what goes into JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from loadtests.plan.fleet import HOW, Traffic
from loadtests.plan.sizing import Answer, Case, Sizing, Spread, capacity_per_s

ASSUMPTIONS = (
    "The batcher's rules are the service's. Every request is of one kind and one priority; none is cancelled.",
    "The service's event loop is one server, first come first served, that a request visits before the queue and after "
    "its inference; it forms the batches too. A thread that runs takes a core; where more run than there are cores, "
    "all are slowed down alike. A garbage collection or a wait for Python's interpreter lock is not in it.",
    "The front costs what it costs while several requests are in flight. A lone request takes longer: each of its "
    "steps has a thread to wake up.",
    "The time of a batch is drawn from what was measured with every instance busy, each draw for itself: a machine "
    "that is slow for seconds is not in it, and lone batches may be faster.",
    "No network, no balancer's own time, no start of replicas, no failure of any.",
    "A request that is refused or too late counts as one that takes forever.",
)


def plan_page(sizing: Sizing, traffic: Traffic, answer: Answer, others: Mapping[float, Answer | None]) -> str:
    """Args:
    others: what other rates would take, by their factor; None: no number of replicas holds the bound.
    """
    curve, setup = sizing.curve, sizing.setup
    capacity = capacity_per_s(curve, setup, traffic.images)
    arrivals = "a Poisson process" if traffic.moments_s is None else f"a trace of {len(traffic.moments_s):,} arrivals"
    images = "one image" if traffic.images == 1 else f"{traffic.images} images{' in one tensor' * setup.tensors}"
    on = f"{setup.instances} instances, {f'{setup.cores} cores' if setup.cores else 'cores not limited'}"
    lines = ["# Capacity plan", ""]
    facts = {
        "Model": f"{curve.model or 'not named'} ({curve.execution_provider})",
        "Measured": f"{curve.machine or 'not said where'}, with {curve.instances} instances busy",
        "Requests": f"{traffic.rate_per_s:,.6g} per second, {arrivals}, each with {images}",
        "Bound": f"p99 of at most {1e3 * sizing.p99_s:g} ms, with {sizing.headroom:.0%} more requests as headroom",
        "Replica": f"{on}, max batch size {setup.max_batch_size}, queue delay {1e3 * setup.max_queue_delay_s:g} ms, "
        f"max queue size {setup.max_queue_size}; answers at most {capacity:,.6g} requests/s",
        "Front": f"{1e3 * setup.front_s(traffic.images):.3g} ms of processor time a request ({curve.front.source})",
        "Balancer": f"{sizing.balancer}: {HOW[sizing.balancer]}",
        "Simulated": f"{sizing.seeds} seeds" + (f", {sizing.requests:,} requests each" * (traffic.moments_s is None)),
    }
    lines += [f"- {name}: {fact}" for name, fact in facts.items()]
    machines = "GPUs or machines with some" if curve.on_gpu else "machines"
    cores = f", {answer.expected.replicas * setup.cores:,} cores" if setup.cores else ""
    lines += [
        "",
        f"**{answer.expected.replicas:,} replicas** on {answer.cost.machines:,} {machines}{cores}: "
        f"{answer.cost.per_hour:,.6g} an hour, {answer.cost.per_month:,.6g} a month, "
        f"{answer.cost.per_million_images:,.4g} for a million images, in the unit of the price.",
        "",
        "What is to be expected of them: the median over the seeds, and the range where there is one.",
        "",
        "| | requests/s | p50 ms | p95 ms | p99 ms | refused or late | instances busy | event loop busy | cores busy "
        "| mean batch size |",
        "| --- " + "| ---: " * 9 + "|",
        _expected("at the rate", answer.expected),
        _expected("with the headroom", answer.held),
        "",
        "## Other rates",
        "",
        "| rate | requests/s | replicas | machines | an hour | a month | a million images | p99 ms | instances busy |",
        "| ---: " * 9 + "|",
    ]
    for factor, other in others.items():
        start = f"| × {factor:g} | {factor * traffic.rate_per_s:,.6g} |"
        if other is None:
            lines.append(f"{start} no number holds the bound | | | | | | |")
            continue
        cost = other.cost
        lines.append(
            f"{start} {other.expected.replicas:,} | {cost.machines:,} | {cost.per_hour:,.6g} | {cost.per_month:,.6g} "
            f"| {cost.per_million_images:,.4g} | {_spread(other.expected.percentile_ms(0.99), 1)} "
            f"| {other.expected.spread(lambda outcome: outcome.instance_utilisation).median:.0%} |"
        )
    lines += ["", "## What is assumed", "", *(f"- {assumption}" for assumption in ASSUMPTIONS)]
    return "\n".join(lines) + "\n"


def plan_json(
    sizing: Sizing, traffic: Traffic, answer: Answer, others: Mapping[float, Answer | None]
) -> dict[str, Any]:
    """The same in figures. A latency that more requests fail than have is null."""
    return {
        "curve": sizing.curve.model_dump(mode="json"),
        "setup": asdict(sizing.setup),
        "rate_per_s": traffic.rate_per_s,
        "images": traffic.images,
        "p99_ms": 1e3 * sizing.p99_s,
        "headroom": sizing.headroom,
        "balancer": sizing.balancer,
        "capacity_per_s": finite(capacity_per_s(sizing.curve, sizing.setup, traffic.images)),
        "seeds": sizing.seeds,
        "requests": sizing.requests if traffic.moments_s is None else len(traffic.moments_s),
        "answer": _answer_json(answer),
        "others": [
            {"factor": factor, **(_answer_json(other) if other else {"replicas": None})}
            for factor, other in others.items()
        ],
        "assumptions": ASSUMPTIONS,
    }


def case_json(case: Case) -> dict[str, Any]:
    """Median and range of each figure over the seeds."""
    figures = {
        "p50_ms": case.percentile_ms(0.50),
        "p95_ms": case.percentile_ms(0.95),
        "p99_ms": case.percentile_ms(0.99),
        "failed": case.spread(lambda outcome: outcome.failed),
        "instance_utilisation": case.spread(lambda outcome: outcome.instance_utilisation),
        "loop_utilisation": case.spread(lambda outcome: outcome.loop_utilisation),
        "core_utilisation": case.spread(lambda outcome: outcome.core_utilisation or 0.0),
        "mean_batch_size": case.spread(lambda outcome: outcome.mean_batch_size),
    }
    return {
        "rate_per_s": case.rate_per_s,
        "replicas": case.replicas,
        **{name: {key: finite(value) for key, value in asdict(spread).items()} for name, spread in figures.items()},
    }


def finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _answer_json(answer: Answer) -> dict[str, Any]:
    return {
        "replicas": answer.expected.replicas,
        **asdict(answer.cost),
        "expected": case_json(answer.expected),
        "with_headroom": case_json(answer.held),
    }


def _expected(name: str, case: Case) -> str:
    cores = case.spread(lambda outcome: outcome.core_utilisation or 0.0).median
    cells: Sequence[str] = [
        name,
        f"{case.rate_per_s:,.6g}",
        *(_spread(case.percentile_ms(share), 1) for share in (0.50, 0.95, 0.99)),
        f"{case.spread(lambda outcome: outcome.failed).median:.3%}",
        f"{case.spread(lambda outcome: outcome.instance_utilisation).median:.0%}",
        f"{case.spread(lambda outcome: outcome.loop_utilisation).median:.0%}",
        f"{cores:.0%}" if cores else "–",
        f"{case.spread(lambda outcome: outcome.mean_batch_size).median:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _spread(spread: Spread, digits: int) -> str:
    middle, low, high = (
        f"{value:,.{digits}f}" if math.isfinite(value) else "∞" for value in (spread.median, spread.low, spread.high)
    )
    return middle if low == high else f"{middle} ({low} – {high})"
