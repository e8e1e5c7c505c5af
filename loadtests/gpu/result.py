"""What was measured, as it is kept: one JSON object."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.gpu.limits import Work
from loadtests.peers.result import Ceiling


@dataclass(frozen=True)
class Served:
    """The service under one load.

    Attributes:
        wire: HTTP or gRPC.
        memory: where the images are: `message`, or `system` or `cuda` shared memory.
        images: in a request.
        failed: requests.
        p50_ms: of a request; None: none was answered; so for the next two.
        joules_per_image: of what the hardware's target covers; None also where nothing counts it.
        generator_busy: share of one core that h2load took; close to 1 it is h2load that was measured.
    """

    model: str
    round: int
    wire: str
    memory: str
    images: int
    connections: int
    images_per_s: float
    failed: int
    p50_ms: float | None
    p99_ms: float | None
    joules_per_image: float | None
    generator_busy: float


@dataclass(frozen=True)
class Subject:
    """A model, and what bounds it.

    Attributes:
        limits: images a second that the hardware allows, by its part.
    """

    model: str
    work: Work
    limits: dict[str, float]


@dataclass(frozen=True)
class Result:
    """All of it.

    Attributes:
        facts: what one needs to know to read it, by name.
    """

    facts: dict[str, str]
    subjects: tuple[Subject, ...]
    ceilings: tuple[Ceiling, ...]
    served: tuple[Served, ...]

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")
