"""The served rate against the ceilings, and the time to decode, as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loadtests.inprocess import Arrangement
from loadtests.report.levels import Spread
from loadtests.report.numbers import number


@dataclass(frozen=True)
class Served:
    """The service under one load.

    Attributes:
        decode_us: the mean of its own stage; None: it decoded nothing.
    """

    images_per_s: float
    failed: int
    decode_us: float | None


@dataclass(frozen=True)
class Round:
    """Images per second.

    Attributes:
        alone: of ONNX Runtime with images already decoded.
        decoding: of the same where each session decodes its own.
        decode_us: of the decoder in a bare loop.
        served: by load.
    """

    alone: Mapping[Arrangement, float]
    decoding: Mapping[Arrangement, float]
    decode_us: float
    served: Mapping[str, Served]


def ceiling_table(rounds: Sequence[Round], facts: dict[str, str]) -> str:
    """Medians and ranges over the rounds; each ratio is one of figures of the same round."""
    lines = ["# Served rate against the ceiling", "", *(f"- {name}: {fact}" for name, fact in facts.items()), ""]
    lines += [
        "Medians over the rounds, and ranges; a ceiling is the best arrangement of each round.", "",
        "| | images/s | / already decoded | / decoding too |",
        "| --- | ---: | ---: | ---: |",
        *_rates(rounds), "",
        "| mean time to decode | µs | / bare loop |",
        "| --- | ---: | ---: |",
        *_decoding(rounds),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _rates(rounds: Sequence[Round]) -> Iterator[str]:
    def row(name: str, rates: Sequence[float]) -> str:
        alone = Spread.of(rate / max(each.alone.values()) for rate, each in zip(rates, rounds, strict=True))
        decoding = Spread.of(rate / max(each.decoding.values()) for rate, each in zip(rates, rounds, strict=True))
        return f"| {name} | {_cell(Spread.of(rates))} | {_cell(alone)} | {_cell(decoding)} |"

    for each in rounds[0].alone:
        yield row(f"{_words(each)}, already decoded", [found.alone[each] for found in rounds])
    for each in rounds[0].decoding:
        yield row(f"{_words(each)}, decoding too", [found.decoding[each] for found in rounds])
    for load in rounds[0].served:
        yield row(f"Fovea, {load}", [found.served[load].images_per_s for found in rounds])


def _decoding(rounds: Sequence[Round]) -> Iterator[str]:
    yield f"| the decoder in a bare loop | {_cell(Spread.of(each.decode_us for each in rounds))} | |"
    for load in rounds[0].served:
        times_us = [each.served[load].decode_us for each in rounds]
        ratios = (us and us / each.decode_us for us, each in zip(times_us, rounds, strict=True))
        yield f"| Fovea, {load} | {_cell(Spread.of(times_us))} | {_cell(Spread.of(ratios))} |"


def _words(arrangement: Arrangement) -> str:
    return f"ONNX Runtime, {arrangement.sessions} sessions, batch size {arrangement.batch_size}"


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    if spread.rounds == 1:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.least)} – {number(spread.most)})"
