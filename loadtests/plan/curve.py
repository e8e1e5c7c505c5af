"""What a plan starts from: how long a batch takes, by its size, and what a request costs beside it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

LIKELY = (np.arange(50) + 0.5) / 50
"""The shares at which times are read off what was measured; each then stands for as many batches as every other."""


class Point(BaseModel):
    """The inference time at one batch size.

    Attributes:
        likely_ms: equally likely times; none: always the median.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: PositiveInt
    median_ms: NonNegativeFloat
    likely_ms: tuple[NonNegativeFloat, ...] = ()


class Front(BaseModel):
    """Processor time of a request that is no inference.

    Attributes:
        transport_ms: of a request, however many its images: half of it before they are decoded, half after.
        decode_ms, postprocessing_ms: of an image.
        decode_threads: threads that decode; 0: the event loop itself does, as with small images.
        source: where the figures are from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    transport_ms: NonNegativeFloat = 0
    decode_ms: NonNegativeFloat = 0
    postprocessing_ms: NonNegativeFloat = 0
    decode_threads: NonNegativeInt = 0
    source: str = "none: the front is free"

    @property
    def request_ms(self) -> float:
        """Of a request with one image."""
        return self.transport_ms + self.decode_ms + self.postprocessing_ms


class Curve(BaseModel):
    """One model on one kind of machine; the batcher's settings are those of the model's configuration.

    Attributes:
        instances: how many were busy at the same time when the points were measured.
        cores: shared by the instances and the front; None: they are not in each other's way, as with a GPU.
        padded: whether a batch is padded to the next measured size.
        max_batch_size: 1 where requests do not share batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = ""
    execution_provider: str = "CPUExecutionProvider"
    machine: str = ""
    instances: PositiveInt = 1
    cores: PositiveInt | None = None
    padded: bool = False
    max_batch_size: PositiveInt
    max_queue_size: PositiveInt = 1024
    max_queue_delay_ms: NonNegativeFloat = 0
    points: Annotated[tuple[Point, ...], Field(min_length=1)]
    front: Front = Front()

    @property
    def on_gpu(self) -> bool:
        return self.execution_provider != "CPUExecutionProvider"

    def times_s(self, max_batch_size: int) -> NDArray[np.float64]:
        """Equally likely times of a batch of each size from 0; between two measured sizes, on the line between them.

        Where there are more instances than cores, their threads had a share of a core each while they were measured:
        what is given here is the time on a whole one.

        Returns:
            shape (max_batch_size + 1, len(LIKELY)), float64, seconds.

        Raises:
            ValueError: no batch as large as this was measured.
        """
        points = sorted(self.points, key=lambda point: point.batch_size)
        sizes = np.array([point.batch_size for point in points])
        if max_batch_size > sizes[-1]:
            raise ValueError(f"max batch size {max_batch_size}: the curve ends at {sizes[-1]}")
        likely_s = 1e-3 * np.array([np.quantile(point.likely_ms or [point.median_ms], LIKELY) for point in points])
        wanted = np.arange(max_batch_size + 1)
        if self.padded:
            times_s = likely_s[np.searchsorted(sizes, wanted)]
        else:
            times_s = np.stack([np.interp(wanted, sizes, column) for column in likely_s.T], axis=1)
        share = min(1.0, self.cores / self.instances) if self.cores else 1.0
        return np.asarray(share * times_s)

    def service_s(self, max_batch_size: int, seed: int) -> Callable[[int], float]:
        """Draws the time of a batch, in seconds, given its size.

        Raises:
            ValueError: as `times_s`.
        """
        times = self.times_s(max_batch_size).tolist()
        draw = random.Random(seed).random
        return lambda batch_size: times[batch_size][int(len(LIKELY) * draw())]


def read_curve(path: Path) -> Curve:
    """Ends the program where the file is not there or is no curve."""
    try:
        return Curve.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise SystemExit(f"error: {path} is no curve as `python -m loadtests.plan curve` writes it: {error}") from None
