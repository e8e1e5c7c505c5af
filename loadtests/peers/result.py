"""What was measured, as it is kept: one JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Ceiling:
    """ONNX Runtime alone.

    Attributes:
        sessions: of one thread each.
    """

    model: str
    round: int
    sessions: int
    batch_size: int
    images_per_s: float


@dataclass(frozen=True)
class Subject:
    """A server that was started: with which model, in which round, to be asked over HTTP or gRPC."""

    model: str
    round: int
    peer: str
    wire: str


@dataclass(frozen=True)
class Measurement:
    """A server under one load.

    Attributes:
        failed: requests refused or broken off, and those whose answer was no answer.
        p50_ms, p99_ms: None: none was answered; over gRPC also: some failed, and their times are among the others'.
        server_cpu_us: processor time of all the server's processes for each answered request; None: none was answered.
        generator_busy: share of one core that h2load took; close to 1 it is h2load that was measured.
    """

    subject: Subject
    connections: int
    requests_per_s: float
    failed: int
    p50_ms: float | None
    p99_ms: float | None
    server_cpu_us: float | None
    generator_busy: float


@dataclass(frozen=True)
class Start:
    """A server's start.

    Attributes:
        cold_start_s: from exec to its first answer.
        pss_bytes: its memory after its last load.
    """

    subject: Subject
    cold_start_s: float
    pss_bytes: int


@dataclass(frozen=True)
class NotMeasured:
    """A server that could not be measured, or not to the end, and why. Round 0 is every round."""

    subject: Subject
    reason: str


Outcome = Ceiling | Measurement | Start | NotMeasured


@dataclass(frozen=True)
class Result:
    """All of it.

    Attributes:
        facts: what one needs to know to read it, by name.
        peers: their configurations, by name.
    """

    facts: dict[str, str]
    peers: dict[str, str]
    ceilings: tuple[Ceiling, ...]
    measurements: tuple[Measurement, ...]
    starts: tuple[Start, ...]
    not_measured: tuple[NotMeasured, ...]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], facts: dict[str, str], peers: dict[str, str]) -> Result:
        return cls(
            facts=facts,
            peers=peers,
            ceilings=tuple(each for each in outcomes if isinstance(each, Ceiling)),
            measurements=tuple(each for each in outcomes if isinstance(each, Measurement)),
            starts=tuple(each for each in outcomes if isinstance(each, Start)),
            not_measured=tuple(each for each in outcomes if isinstance(each, NotMeasured)),
        )

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> Result:
        """What `write` wrote.

        Raises:
            ValueError: it is something else.
        """
        return TypeAdapter(cls).validate_json(file.read_bytes())
