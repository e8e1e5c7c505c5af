"""A result as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from loadtests.gpu.result import Result, Served, Subject
from loadtests.report.levels import Spread
from loadtests.report.numbers import number


def page(result: Result) -> str:
    """Medians and ranges over the rounds; each share is one of rates of the same round."""
    lines = ["# Served rate against what the hardware can do", ""]
    lines += [f"- {name}: {fact}" for name, fact in result.facts.items()]
    for subject in result.subjects:
        lines += ["", f"## {subject.model}", "", *_bounds(subject), "", *_alone(result, subject)]
        lines += ["", *_served(result, subject)]
    return "\n".join(lines) + "\n"


def _bounds(subject: Subject) -> Iterator[str]:
    work = subject.work
    yield (
        f"An image takes {work.multiply_adds / 1e9:.3g} billion multiply-adds in {work.precision} and "
        f"{work.input_bytes:,} bytes of input; the weights are {work.weight_bytes:,} bytes."
    )
    for name, rate in subject.limits.items():
        yield f"The {name} allows {number(rate)} images/s."
    if not subject.limits:
        yield "No rate of the hardware is known, so neither is what it allows."


def _alone(result: Result, subject: Subject) -> Iterator[str]:
    yield "| ONNX Runtime alone | images/s, median | range | of what the hardware allows |"
    yield "| --- | ---: | ---: | ---: |"
    ceilings = [each for each in result.ceilings if each.model == subject.model]
    for sessions, batch_size in dict.fromkeys((each.sessions, each.batch_size) for each in ceilings):
        rates = [e.images_per_s for e in ceilings if (e.sessions, e.batch_size) == (sessions, batch_size)]
        spread = Spread.of(rates)
        name = f"{sessions} session{'s' * (sessions > 1)}, batch size {batch_size}"
        yield f"| {name} | {_spread(spread)} | {_of_limits(spread, subject)} |"


def _served(result: Result, subject: Subject) -> Iterator[str]:
    yield (
        "| served | images a request | connections | images/s, median | range | served / alone, median | range "
        "| of what the hardware allows | p50 ms | p99 ms | J/image | failed |"
    )
    yield "| --- |" + " ---: |" * 11

    def load(each: Served) -> tuple[str, str, int, int]:
        return each.wire, each.memory, each.images, each.connections

    served = sorted((each for each in result.served if each.model == subject.model), key=load)
    for (wire, memory, images, connections), group in groupby(served, load):
        rounds = list(group)
        rates = Spread.of(each.images_per_s for each in rounds)
        shares = Spread.of(each.images_per_s / _ceiling(result, each) for each in rounds)
        place = wire if memory == "message" else f"{wire}, {memory} shared memory"
        cells = [place, images, connections, _spread(rates), _spread(shares, ".3f"), _of_limits(rates, subject)]
        cells += [_median(each.p50_ms for each in rounds), _median(each.p99_ms for each in rounds)]
        cells += [_median(each.joules_per_image for each in rounds), sum(each.failed for each in rounds)]
        yield f"| {' | '.join(map(str, cells))} |"


def _ceiling(result: Result, served: Served) -> float:
    """The best arrangement's rate in the same round."""
    of_round = [each for each in result.ceilings if (each.model, each.round) == (served.model, served.round)]
    return max(each.images_per_s for each in of_round)


def _of_limits(rates: Spread | None, subject: Subject) -> str:
    return f"{rates.median / min(subject.limits.values()):.3f}" if rates and subject.limits else "–"


def _spread(spread: Spread | None, form: str | None = None) -> str:
    if spread is None:
        return "– | –"
    median, least, most = (
        format(value, form) if form else number(value) for value in (spread.median, spread.least, spread.most)
    )
    return f"{median} | {least} – {most}"


def _median(values: Iterable[float | None]) -> str:
    spread = Spread.of(values)
    return number(spread.median) if spread else "–"
