"""A result as text: what the page and the Markdown both say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.report.levels import Level, Spread, smallest
from loadtests.report.numbers import number
from loadtests.report.result import Environment, Result, Run


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; a row's first two name the protocol and the load."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(levels: Sequence[Level]) -> list[Table]:
    """Those that the runs have something for."""
    found = [_latencies(levels), _stages(levels), _batch_sizes(levels), _energy(levels), _refusals(levels)]
    found += [_errors(levels)]
    return [table for table in found if table.rows]


def facts(result: Result) -> dict[str, str]:
    """What one needs to know to read the figures."""
    environment = result.environment
    watched = target(result)
    notes = dict.fromkeys(note for run in result.runs for note in (run.readings or {}).get("notes", ()))
    return {
        "Time": result.time,
        "Hardware": _hardware(environment),
        **({"Target": ", ".join(map(" ".join, watched.items()))} if watched else {}),
        "Software": _software(environment),
        "Service": environment.service,
        "Settings": _settings(environment),
        "Model": f"{environment.model} version {environment.model_version}, "
        f"{environment.execution_provider}, {environment.instances} instances, "
        f"max batch size {environment.max_batch_size}",
        "SHA-256 of model.onnx": environment.model_sha256 or "not known",
        "Images": environment.images,
        "Load generator": environment.generator,
        "Runs": f"{result.rounds} rounds, {result.duration_s:g} s a run, after a warm-up that is not counted",
        **({"Power and energy": "; ".join(notes)} if notes else {}),
    }


def target(result: Result) -> dict[str, str]:
    """What the sampler learnt of the target, by name, beside what the environment has."""
    hardware = [(run.readings or {}).get("hardware") or {} for run in result.runs]
    return {name: fact for known in hardware for name, fact in known.items() if name != "machine"}


def reading(result: Result) -> list[str]:
    """Sentences on how the figures came about."""
    if result.overload:
        sentences = ["The low rate has two rounds: before the overload and after it."]
    elif result.rounds == 1:
        sentences = ["There was one round: nothing shows how much the figures vary."]
    else:
        sentences = ["A figure is the median over the rounds, and the range beside it is over the rounds."]
    if any(run.load.kind == "open" for run in result.runs):
        sentences.append(
            "Latency under an open load counts from the scheduled arrival, so that the wait of a request that was sent "
            "late counts too."
        )
    sentences.append(
        "“Generator busy” is the share of its time that the load generator computed: near 100 % it measures itself."
    )
    return sentences


def _hardware(environment: Environment) -> str:
    parts = [environment.hardware, f"{environment.memory_bytes / 2**30:.1f} GiB of memory"]
    parts += [environment.gpu or "nvidia-smi found no GPU", f"load average before: {environment.load_average:.1f}"]
    return ", ".join(parts)


def _software(environment: Environment) -> str:
    runtime = f"ONNX Runtime {environment.onnxruntime or 'not known'}"
    return f"Fovea {environment.fovea}, {runtime}, Python {environment.python}, {environment.operating_system}"


def _settings(environment: Environment) -> str:
    if environment.settings is None:
        return "not known"
    return ", ".join(f"{name}={value}" for name, value in environment.settings.items()) or "defaults"


def _latencies(levels: Sequence[Level]) -> Table:
    headings = (
        "protocol", "load", "requests", "failures", "images/s", "range", "p50 ms", "p95 ms", "p99 ms", "range",
        "p99.9 ms", "max ms", "generator busy", "sent late, p99 ms",
    )  # fmt: skip
    rows = []
    for level in levels:
        p99 = level.latency_ms(99)
        busy, late = level.spread(lambda run: 100 * run.generator_busy), level.spread(lambda run: run.late_p99_ms)
        rows.append(
            (
                *_named(level),
                f"{level.requests:,}",
                f"{level.failures:,}",
                number(level.images_per_s.median),
                spread_range(level.images_per_s),
                *(_median(level.latency_ms(percentile)) for percentile in (50, 95, 99)),
                spread_range(p99),
                *(_median(level.latency_ms(percentile)) for percentile in (99.9, 100)),
                f"{_median(busy)} %",
                _median(late) if level.load.kind == "open" else "–",
            )
        )
    return Table("Latency and throughput", headings, tuple(rows))


def _stages(levels: Sequence[Level]) -> Table:
    parts = [(level, level.where_the_time_went_ms) for level in levels]
    names = max((times for _, times in parts), key=len)
    rows = [
        (*_named(level), *(number(times[name]) if name in times else "–" for name in names))
        for level, times in parts
        if times
    ]
    return Table("Where the time went, mean ms of a request", ("protocol", "load", *names), tuple(rows))


def _batch_sizes(levels: Sequence[Level]) -> Table:
    sizes = sizes_of(levels)
    rows = [
        (*_named(level), *(f"{100 * level.batch_shares.get(size, 0):.1f} %" for size in sizes))
        for level in levels
        if level.batch_shares
    ]
    return Table("Batch sizes, share of the batches", ("protocol", "load", *sizes), tuple(rows))


def _energy(levels: Sequence[Level]) -> Table:
    rows = []
    for level in levels:
        joules = level.spread(joules_per_image)
        watts = level.spread(lambda run: run.efficiency.mean_w if run.efficiency else None)
        images = level.spread(lambda run: run.efficiency.images_per_j if run.efficiency else None)
        cpu_us = level.spread(lambda run: run.efficiency.service_cpu_us_per_image if run.efficiency else None)
        if joules or watts or cpu_us:
            figures = (_median(watts), spread_range(watts), _median(joules), spread_range(joules), _median(images))
            rows.append((*_named(level), *figures, _median(cpu_us), spread_range(cpu_us)))
    headings = (
        "protocol", "load", "power, mean W", "range", "J for an image", "range", "images/J, or images/s per W",
        "the service's CPU µs for an image", "range",
    )  # fmt: skip
    return Table("Energy and processor time", headings, tuple(rows))


def _refusals(levels: Sequence[Level]) -> Table:
    rows = []
    for level in levels:
        if any(run.refused for run in level.runs):
            p50, p99 = level.refused_ms(50), level.refused_ms(99)
            refused = f"{sum(run.refused for run in level.runs):,}"
            rows.append((*_named(level), refused, _median(p50), _median(p99), spread_range(p99)))
    return Table(
        "Refusals: the service was too busy", ("protocol", "load", "requests", "p50 ms", "p99 ms", "range"), tuple(rows)
    )


def _errors(levels: Sequence[Level]) -> Table:
    rows = [
        (*_named(level), f"{run.round}", f"{count:,}", error)
        for level in levels
        for run in level.runs
        for error, count in run.errors.items()
    ]
    return Table("Failures", ("protocol", "load", "round", "requests", "error"), tuple(rows))


def joules_per_image(run: Run) -> float | None:
    """Of the whole target, over the run; None: not known."""
    energy_j = (run.readings or {}).get("energy_j")
    answered = run.requests - run.failures
    return energy_j / answered if energy_j and answered else None


def sizes_of(levels: Sequence[Level]) -> list[str]:
    """Every batch size, or range of sizes, that occurs; the smallest first."""
    return sorted({size for level in levels for size in level.batch_shares}, key=smallest)


def spread_range(spread: Spread | None) -> str:
    return "–" if spread is None else f"{number(spread.least)} – {number(spread.most)}"


def _median(spread: Spread | None) -> str:
    return "–" if spread is None else number(spread.median)


def _named(level: Level) -> tuple[str, str]:
    return level.protocol, str(level.load)
