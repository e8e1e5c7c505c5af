"""One model version from its folder to being served: sessions opened, warmed up and held against the golden sample."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

from service.backends.engine import Engine, Session
from service.backends.instance import Instance
from service.batching import Completed, Timed, Waiter
from service.errors import ModelError
from service.golden import check_golden
from service.image_contract import ImageContract, NoImagesError, image_contract
from service.images import Pixels
from service.model_config import ModelConfig, complete
from service.statistics import VersionStatistics
from service.tensors import DTYPES, Array, Tensors, TensorSpec
from service.trace_context import TraceContext

log = logging.getLogger("fovea.repository")

MAX_BATCH_BYTES = 2**30
"""Of a model's largest batch, where its shape is known."""


@dataclass(frozen=True)
class OpenedVersion:
    """A version with its sessions open, checked, and not yet taking requests.

    Attributes:
        images: how images are sent to it; or why they cannot be.
        proven: whether it has a golden sample (which then came out right).
    """

    config: ModelConfig
    version: str
    images: ImageContract | NoImagesError
    instances: Sequence[Instance]
    proven: bool

    def close(self) -> None:
        """Release the sessions, where it is not to take requests after all."""
        for instance in self.instances:
            instance.close()


class Batcher(Protocol):
    """Where the requests for a version wait: a `DynamicBatcher`, or what stands for one in another process."""

    @property
    def queue_depth(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    @property
    def max_batch_size(self) -> int: ...

    @property
    def max_queue_size(self) -> int: ...

    async def submit(
        self,
        item: Tensors,
        deadline: float | None = None,
        *,
        rows: int = 1,
        kind: Hashable = None,
        priority: int = 1,
        queue_timeout_s: float | None = None,
    ) -> Completed[Tensors]: ...

    def enqueue(
        self,
        item: Tensors,
        waiter: Waiter[Tensors],
        deadline: float | None = None,
        *,
        rows: int = 1,
        kind: Hashable = None,
        priority: int = 1,
        queue_timeout_s: float | None = None,
        trace: TraceContext | None = None,
    ) -> Timed: ...

    def require_room(self, rows: int = 1) -> None: ...

    async def close(self) -> None: ...


class OpenInstance(Protocol):
    """What a served version tells of its instances, and ends them with."""

    @property
    def provider(self) -> str: ...

    def close(self) -> None: ...


@dataclass(eq=False)
class ServedVersion:
    """A version at work.

    Context manager: while a request is inside, the version goes on serving, even if another has taken its place.

    Attributes:
        withdrawn: whether it takes no more requests.
    """

    config: ModelConfig
    version: str
    images: ImageContract | NoImagesError
    instances: Sequence[OpenInstance]
    batcher: Batcher
    proven: bool
    statistics: VersionStatistics
    withdrawn: bool = False
    _users: int = 0
    _unused: asyncio.Event = field(default_factory=asyncio.Event)

    def acquire(self) -> None:
        """As entering it; `release` is to follow."""
        self._users += 1

    def release(self) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def kind(self, item: Tensors) -> Hashable:
        """What requests must have in common to share a batch: the shape of a row."""
        return tuple(array.shape[1:] for array in item) if self.config.open_dims else None

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def gives_features(self) -> bool:
        """Whether images get features from it, and no classes."""
        return isinstance(self.images, ImageContract) and self.images.features > 0

    @property
    def max_rows(self) -> int:
        """The most rows of one request."""
        return max(1, self.config.max_batch_size)

    @property
    def largest_batch(self) -> int:
        """The most rows that requests share a batch of."""
        return self.batcher.max_batch_size

    @property
    def execution_provider(self) -> str:
        return self.instances[0].provider

    async def close(self) -> None:
        """Answer the requests that it has, then release the sessions."""
        while self._users:
            self._unused.clear()
            await self._unused.wait()
        await self.batcher.close()
        for instance in self.instances:
            # Triton, which it may have to tell, may hang.
            await asyncio.to_thread(instance.close)


def open_version(folder: Path, version: str, proto: pb.ModelConfig, engine: Engine) -> OpenedVersion:
    """Open, warm up and check a version's sessions. Takes its time: not for the event loop's thread.

    Args:
        folder: the model's.

    Raises:
        ModelError: it cannot be served; the message says why.
    """
    completed = pb.ModelConfig()
    completed.CopyFrom(proto)
    sessions = engine.open(folder, version, completed)
    instances: list[Instance] = []
    try:
        config = complete(completed, sessions[0].graph, folder)
        images: ImageContract | NoImagesError
        try:
            images = image_contract(config)
        except NoImagesError as reason:
            images = reason.with_traceback(None)
        for session in sessions:
            sizes = _batch_sizes(session, config)
            batched = config.max_batch_size > 0
            instance = Instance(session, config.inputs, config.outputs, batched=batched, batch_sizes=sizes)
            instances.append(instance)
            _warm_up(instance, config, images, sizes)
        proven = False
        if isinstance(images, ImageContract):
            # One of each kind: the arithmetic differs between providers, not between instances of one.
            for instance in {instance.provider: instance for instance in instances}.values():
                proven = _check_golden(folder / version, instance, images)
    except BaseException:
        for instance in instances:
            instance.close()
        for session in sessions[len(instances) :]:
            session.close()
        raise
    return OpenedVersion(config, version, images, instances, proven)


def _batch_sizes(session: Session, config: ModelConfig) -> list[int]:
    """The sizes that a session may see; empty: any."""
    fixed = session.graph.inputs[0].dims[0] if config.max_batch_size and session.graph.inputs else -1
    if fixed > 0:
        return [fixed]
    return _powers_of_two(config.max_batch_size) if session.slow_at_new_sizes else []


def _warm_up(
    instance: Instance,
    config: ModelConfig,
    images: ImageContract | NoImagesError,
    batch_sizes: Sequence[int],
) -> None:
    """Run zeros once at each batch size; for an image model they are a black image, which must give numbers."""
    if not config.max_batch_size:
        sizes: Sequence[int] = [1]
    else:
        # Where no size is slow at first, it matters only whether there can be more than one.
        sizes = batch_sizes or sorted({1, min(2, config.max_batch_size)})
    largest = max(1, config.max_batch_size)
    batch_bytes = sum(prod(_row(spec)) * largest * DTYPES[spec.datatype].itemsize for spec in config.inputs)
    if batch_bytes > MAX_BATCH_BYTES:
        raise ModelError(
            f"a batch of {largest} takes {batch_bytes} bytes: max_batch_size must keep it within {MAX_BATCH_BYTES}"
        )
    for size in sizes:
        item = tuple(_zeros(spec, config, size) for spec in config.inputs)
        try:
            (outputs,) = instance.run([item]).results
        except Exception as error:
            if isinstance(images, ImageContract):
                raise ModelError(f"warm-up with batch size {size} failed: {error}") from error
            log.warning("%s: warm-up of zeros with batch size %s failed: %s", config.name, size, error)
            return
        for spec, output in zip(config.outputs, outputs, strict=True):
            shape = output.shape[1:] if config.max_batch_size else output.shape
            if not spec.fits(shape):
                raise ModelError(
                    f"a batch of {size} gives '{spec.name}' of {output.shape}, not {spec.dims} for each row"
                )
        if isinstance(images, ImageContract):
            found = outputs[images.output]
            kind, count = ("features", images.features) if images.features else ("logits", len(images.labels))
            if found.size != size * count:
                raise ModelError(f"a batch of {size} gives {found.size} {kind}, not {size} times {count}")
            if not np.isfinite(found).all():
                raise ModelError(f"{kind} of a black image are not finite")


def _zeros(spec: TensorSpec, config: ModelConfig, size: int) -> Array:
    shape = (size, *_row(spec)) if config.max_batch_size else _row(spec)
    zero = b"" if spec.datatype == "BYTES" else 0
    return np.full(shape, zero, DTYPES[spec.datatype])


def _row(spec: TensorSpec) -> tuple[int, ...]:
    """The smallest shape that a row may have."""
    return tuple(max(1, dim) for dim in spec.dims)


def _check_golden(folder: Path, instance: Instance, images: ImageContract) -> bool:
    def infer(pixels: Pixels) -> Array:
        (outputs,) = instance.run([(images.to_input(pixels),)]).results
        return outputs[images.output].reshape(-1)

    return check_golden(folder, images.preprocessing, infer, kind="feature" if images.features else "logit")


def _powers_of_two(limit: int) -> list[int]:
    return [2**n for n in range((limit - 1).bit_length())] + [limit]
