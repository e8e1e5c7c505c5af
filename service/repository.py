"""The model repository: a folder of models in Triton's layout, loaded, checked and looked up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.backends.onnx_runtime import OnnxRuntimeInstance, available_cores, require_provider
from service.batching import BatchRecord, DynamicBatcher
from service.errors import InvalidInputError, ModelError, NotFoundError, StartError, UnavailableError
from service.golden import check_golden
from service.images import Pixels
from service.model_config import ImageModelConfig, read_config

MAX_SHOWN_LENGTH = 100

Logits = npt.NDArray[np.generic]
OnBatch = Callable[[str, str, BatchRecord], None]


class State(Enum):
    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class ServedVersion:
    """A version at work."""

    name: str
    version: str
    config: ImageModelConfig
    instances: Sequence[OnnxRuntimeInstance]
    batcher: DynamicBatcher[Pixels, Logits]
    proven: bool

    @property
    def execution_provider(self) -> str:
        return self.instances[0].provider

    async def close(self) -> None:
        await self.batcher.close()
        for instance in self.instances:
            instance.close()


@dataclass
class VersionEntry:
    """A version and how it fares; `reason` says why it is not ready."""

    version: str
    state: State = State.LOADING
    reason: str = ""
    served: ServedVersion | None = None


@dataclass
class ModelEntry:
    """A model; `reason` says why none of its versions could be tried."""

    name: str
    versions: dict[str, VersionEntry] = field(default_factory=dict)
    reason: str = ""


class Repository:
    """Loads a folder of models and finds the version that a request means.

    Args:
        folder: `<name>/{config.pbtxt, labels.txt, <version>/model.onnx}`.
        execution_provider: "cpu" or "cuda".
        max_queue_size: for models whose config sets none.
        default_model: what a request that names no model gets; None: the only model.
        on_batch: told model, version and record of every batch.

    Raises:
        StartError: the execution provider, the folder or the default model is not there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        execution_provider: str,
        device_id: int,
        max_queue_size: int,
        default_model: str | None,
        on_batch: OnBatch,
    ) -> None:
        self._folder = folder
        self._provider = require_provider(execution_provider)
        self._device_id = device_id
        self._max_queue_size = max_queue_size
        self._on_batch = on_batch
        self.models = {name: ModelEntry(name) for name in _model_names(folder)}
        if default_model is not None and default_model not in self.models:
            raise StartError(f"FOVEA_DEFAULT_MODEL={default_model}: {folder} holds {', '.join(self.models)}")
        self._default_model = default_model or (next(iter(self.models)) if len(self.models) == 1 else None)

    async def load(self) -> None:
        """Load every model. One that cannot be served keeps its reason and leaves the others alone."""
        for model in self.models.values():
            try:
                config = read_config(self._folder / model.name)
                numbers = config.serves(_version_numbers(self._folder / model.name))
                if not numbers:
                    raise ModelError("no version folder (1, 2, …) with a model.onnx")
            except ModelError as error:
                model.reason = str(error)
                continue
            model.versions = {str(number): VersionEntry(str(number)) for number in numbers}
            for entry in model.versions.values():
                try:
                    entry.served = await self._serve(config, entry.version)
                    entry.state = State.READY
                except ModelError as error:
                    entry.state, entry.reason = State.UNAVAILABLE, str(error)

    async def close(self) -> None:
        """Finish what waits and release the sessions."""
        for served in self.served():
            await served.close()

    def served(self) -> list[ServedVersion]:
        return [entry.served for model in self.models.values() for entry in model.versions.values() if entry.served]

    def problems(self) -> list[str]:
        """Why the repository is not all ready: one sentence for each model or version."""
        found = [f"{model.name}: {model.reason}" for model in self.models.values() if model.reason]
        for model in self.models.values():
            found += [
                f"{model.name} version {entry.version}: {entry.reason or 'loading'}"
                for entry in model.versions.values()
                if entry.state is not State.READY
            ]
        return found

    def find(self, name: str) -> ModelEntry:
        """Look a model up by name.

        Raises:
            NotFoundError: there is none.
        """
        if name not in self.models:
            raise NotFoundError(
                f"Request for unknown model: {_shown(name)} is not found; served: {', '.join(self.models)}"
            )
        return self.models[name]

    def known(self, name: str) -> str:
        """The model that a name stands for (empty: the default model); empty where there is none."""
        name = name or self._default_model or ""
        return name if name in self.models else ""

    def resolve(self, name: str, version: str) -> ServedVersion:
        """The version that a request means; empty strings: the default model, its highest ready version.

        Raises:
            InvalidInputError: no model named, and there is no default.
            NotFoundError: no such model or version.
            UnavailableError: it is not ready.
        """
        if not name:
            if self._default_model is None:
                raise InvalidInputError(f"no model named: must be one of {', '.join(self.models)}")
            name = self._default_model
        model = self.find(name)
        if version:
            if version not in model.versions and not model.reason:
                raise NotFoundError(
                    f"Request for unknown model: '{name}' version {_shown(version)} is not found; "
                    f"served: {', '.join(model.versions)}"
                )
            entries = [model.versions[version]] if version in model.versions else []
        else:
            entries = list(model.versions.values())
        for entry in reversed(entries):
            if entry.served:
                return entry.served
        reason = model.reason or (entries[-1].reason if entries else "") or "loading"
        raise UnavailableError(f"model '{name}' is not ready: {reason}")

    async def _serve(self, config: ImageModelConfig, version: str) -> ServedVersion:
        instances, proven = await asyncio.to_thread(self._start_instances, config, version)

        def on_batch(record: BatchRecord) -> None:
            self._on_batch(config.name, version, record)

        batcher = DynamicBatcher[Pixels, Logits](
            instances,
            max_batch_size=config.max_batch_size,
            max_queue_size=config.max_queue_size or self._max_queue_size,
            max_queue_delay_s=config.max_queue_delay_s,
            on_batch=on_batch,
        )
        return ServedVersion(config.name, version, config, instances, batcher, proven)

    def _start_instances(self, config: ImageModelConfig, version: str) -> tuple[list[OnnxRuntimeInstance], bool]:
        """Open, warm up and check the sessions."""
        folder = self._folder / config.name / version
        on_gpu = self._provider == "CUDAExecutionProvider"
        batch_sizes = _powers_of_two(config.max_batch_size) if on_gpu else []
        count = config.instance_count or (1 if on_gpu else available_cores())
        instances: list[OnnxRuntimeInstance] = []
        try:
            for _ in range(count):
                instance = OnnxRuntimeInstance(
                    folder / "model.onnx", config.output_name, self._provider, self._device_id, batch_sizes
                )
                instances.append(instance)
            for instance in instances:
                _warm_up(instance, config, batch_sizes or [1, config.max_batch_size])
            proven = check_golden(folder, config.preprocessing, lambda pixels: instances[0].run([pixels]).results[0])
        except BaseException:
            for instance in instances:
                instance.close()
            raise
        return instances, proven


def _warm_up(instance: OnnxRuntimeInstance, config: ImageModelConfig, batch_sizes: Sequence[int]) -> None:
    if list(instance.inputs) != [config.input_name] or config.output_name not in instance.outputs:
        raise ModelError(
            f"config.pbtxt names input {config.input_name!r} and output {config.output_name!r}; "
            f"the graph has {', '.join(instance.inputs)} and {', '.join(instance.outputs)}"
        )
    pixels = np.zeros((config.preprocessing.height, config.preprocessing.width, 3), np.uint8)
    for size in batch_sizes:
        try:
            output = instance.run([pixels] * size)
        except Exception as error:
            raise ModelError(f"warm-up with batch size {size} failed: {error}") from error
        shape = np.shape(output.results)
        if shape != (size, len(config.labels)):
            raise ModelError(f"a batch of {size} gives {shape}, not ({size}, {len(config.labels)})")
        if not np.isfinite(output.results).all():
            raise ModelError("logits of a black image are not finite")


def _shown(name: str) -> str:
    """A caller's word, fit for a message: on one line, and short enough for gRPC's metadata."""
    return repr(name if len(name) <= MAX_SHOWN_LENGTH else name[:MAX_SHOWN_LENGTH] + "…")


def _model_names(folder: Path) -> list[str]:
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise StartError(f"FOVEA_MODEL_REPOSITORY={folder}: {error.strerror}") from error
    if not names:
        raise StartError(f"FOVEA_MODEL_REPOSITORY={folder}: holds no models (layout: <name>/<version>/model.onnx)")
    return names


def _version_numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and (path / "model.onnx").is_file()]


def _powers_of_two(limit: int) -> list[int]:
    return [2**n for n in range((limit - 1).bit_length())] + [limit]
