"""The model repository: a folder of models in Triton's layout, loaded, swapped, unloaded and looked up."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from service.batching import BatchRecord, DynamicBatcher
from service.errors import FoveaError, InvalidInputError, ModelError, NotFoundError, StartError, UnavailableError
from service.loading import Engine, OpenedVersion, ServedVersion, open_version
from service.model_config import read_proto, served_versions
from service.statistics import VersionStatistics
from service.tensors import Tensors

log = logging.getLogger("fovea.repository")

MAX_SHOWN_LENGTH = 100
UNLOADED = "unloaded"

OnBatch = Callable[[str, str, BatchRecord], None]


class State(Enum):
    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass
class VersionEntry:
    """A version and how it fares; `reason` says why it is not ready.

    `content` stands for what its files held when they were read.
    """

    version: str
    content: str
    state: State = State.LOADING
    reason: str = ""
    served: ServedVersion | None = None


@dataclass
class ModelEntry:
    """A model; `reason` says why its versions could not be tried, the last time they were to be.

    `wanted` is False of a model that nobody has asked to be loaded, or that was unloaded.
    """

    name: str
    versions: dict[str, VersionEntry] = field(default_factory=dict)
    reason: str = ""
    wanted: bool = True
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Repository:
    """Loads a folder of models and finds the version that a request means.

    Args:
        folder: `<name>/{config.pbtxt, labels.txt, <version>/model.onnx}`.
        default_model: what a request that names no model gets; None: the only model.
        wanted: the models to be loaded at start; None: all.
        on_batch: told model, version and record of every batch.
        on_served, on_withdrawn: told of every version that begins or ends to take requests.

    Raises:
        StartError: the folder or the default model is not there.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        *,
        default_model: str | None,
        wanted: Sequence[str] | None = None,
        on_batch: OnBatch,
        on_served: Callable[[ServedVersion], None] = lambda served: None,
        on_withdrawn: Callable[[ServedVersion], None] = lambda served: None,
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._on_batch = on_batch
        self._on_served = on_served
        self._on_withdrawn = on_withdrawn
        self._draining: set[asyncio.Task[None]] = set()
        self.models = {name: ModelEntry(name) for name in _model_names(folder)}
        if default_model is not None and default_model not in self.models:
            raise StartError(f"FOVEA_DEFAULT_MODEL={default_model}: {folder} holds {', '.join(self.models)}")
        for name, model in self.models.items():
            model.wanted = wanted is None or name in wanted
        self._default_model = default_model or (next(iter(self.models)) if len(self.models) == 1 else None)

    async def load_all(self, names: Iterable[str] | None = None) -> None:
        """Load these models, or all that are wanted.

        One that cannot be served keeps its reason and leaves the others alone.
        """
        wanted = [name for name, model in self.models.items() if model.wanted]
        for name in wanted if names is None else names:
            with suppress(FoveaError):
                await self.load(name)

    async def load(self, name: str, *, override: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Load a model, or what has changed of it: new versions take over from old ones once they are ready.

        What cannot be loaded keeps its reason, and leaves what is served as it is.

        Args:
            override: a configuration as JSON, in place of the model's own.
            files: by their paths in the model's folder, in place of all that it has; needs an override.

        Raises:
            NotFoundError: there is no such model.
            InvalidInputError: it, or one of its versions, cannot be served.
        """
        if name not in self.models and not files and not self._is_model(name):
            raise NotFoundError(f"failed to load {_shown(name)}, failed to poll from model repository")
        if files and override is None:
            raise InvalidInputError(f"failed to load {_shown(name)}: files need a config beside them")
        if name.startswith(".") or Path(name).name != name:
            raise InvalidInputError(f"failed to load {_shown(name)}: a model's name is that of a folder")
        model = self.models.setdefault(name, ModelEntry(name))
        async with model.loading:
            model.wanted = True
            with _files_folder(name, files) as given:
                try:
                    failed = await self._load_from(given or self._folder / name, model, override)
                except ModelError as error:
                    model.reason = str(error)
                    self._forget_if_nothing(model)
                    raise InvalidInputError(f"failed to load '{name}': {error}") from error
        if failed:
            reasons = "; ".join(f"version {entry.version} is at UNAVAILABLE state: {entry.reason}" for entry in failed)
            raise InvalidInputError(f"load failed for model '{name}': {reasons}")

    async def unload(self, name: str) -> None:
        """Take a model's versions out of service; the requests that they have are answered. Unknown: nothing to do."""
        if model := self.models.get(name):
            async with model.loading:
                model.wanted, model.reason = False, ""
                for entry in model.versions.values():
                    self._withdraw(entry)
                    entry.state, entry.reason, entry.content = State.UNAVAILABLE, UNLOADED, ""
                if not self._is_model(name):
                    del self.models[name]

    async def poll(self) -> None:
        """Bring what is served in line with the folder."""
        present = _model_names(self._folder)
        await self.load_all(present)
        for name in self.models.keys() - set(present):
            await self.unload(name)

    async def close(self) -> None:
        """Finish what waits and release the sessions."""
        for model in self.models.values():
            for entry in model.versions.values():
                self._withdraw(entry)
        await asyncio.gather(*self._draining)

    def served(self) -> list[ServedVersion]:
        return [entry.served for model in self.models.values() for entry in model.versions.values() if entry.served]

    def problems(self) -> list[str]:
        """Why the repository is not all ready: one sentence for each model or version."""
        found = [f"{model.name}: {model.reason}" for model in self.models.values() if model.reason]
        for model in self.models.values():
            found += (
                []
                if not model.wanted
                else [
                    f"{model.name} version {entry.version}: {entry.reason or 'loading'}"
                    for entry in model.versions.values()
                    if entry.state is not State.READY
                ]
            )
        return found

    def find(self, name: str) -> ModelEntry:
        """Look a model up by name.

        Raises:
            NotFoundError: there is none.
        """
        if name not in self.models:
            raise NotFoundError(f"Request for unknown model: {_shown(name)} is not found")
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
        if not model.wanted:
            raise NotFoundError(f"Request for unknown model: '{name}' has no available versions")
        if version:
            if version not in model.versions and not model.reason:
                shown = version if version.isdecimal() else _shown(version)
                raise NotFoundError(f"Request for unknown model: '{name}' version {shown} is not found")
            entries = [model.versions[version]] if version in model.versions else []
        else:
            entries = list(model.versions.values())
        for entry in reversed(entries):
            if entry.served:
                return entry.served
        reason = model.reason or (entries[-1].reason if entries else "") or "loading"
        raise UnavailableError(f"model '{name}' is not ready: {reason}")

    def ready_versions(self, name: str) -> list[str]:
        """The versions of a model that take requests, ascending."""
        return [entry.version for entry in self.find(name).versions.values() if entry.served]

    def _is_model(self, name: str) -> bool:
        return Path(name).name == name and not name.startswith(".") and (self._folder / name).is_dir()

    def _forget_if_nothing(self, model: ModelEntry) -> None:
        if not model.versions and not self._is_model(model.name):
            del self.models[model.name]

    async def _load_from(self, folder: Path, model: ModelEntry, override: str | None) -> list[VersionEntry]:
        """Load a model's versions; those that could not be."""
        proto = read_proto(folder, override)
        numbers = served_versions(proto, _version_numbers(folder, proto.default_model_filename))
        if not numbers:
            raise ModelError(f"no version folder (1, 2, …) with a {proto.default_model_filename}")
        model.reason = ""
        contents = {str(number): _content(folder, str(number)) + (override or "") for number in numbers}
        failed = []
        for version, content in contents.items():
            entry = await self._load_version(model, folder, version, content, proto)
            if entry.served is None:
                failed.append(entry)
        for version in model.versions.keys() - contents.keys():
            self._withdraw(model.versions.pop(version))
        model.versions = dict(sorted(model.versions.items(), key=lambda item: int(item[0])))
        return failed

    async def _load_version(
        self, model: ModelEntry, folder: Path, version: str, content: str, proto: pb.ModelConfig
    ) -> VersionEntry:
        old = model.versions.get(version)
        if old and old.content == content:
            return old
        entry = VersionEntry(version, content)
        if old is None or old.served is None:
            model.versions[version] = entry
        try:
            opened = await asyncio.to_thread(open_version, folder, version, proto, self._engine)
        except ModelError as error:
            entry.state, entry.reason = State.UNAVAILABLE, str(error)
            if old and old.served:
                log.error("%s version %s: stays as it was: %s", model.name, version, error)
            return entry
        entry.served, entry.state = self._serve(opened), State.READY
        model.versions[version] = entry
        if old:
            self._withdraw(old)
        self._on_served(entry.served)
        for name in opened.config.without_effect():
            log.warning("%s: config.pbtxt: %s has no effect here", model.name, name)
        return entry

    def _serve(self, opened: OpenedVersion) -> ServedVersion:
        config, statistics = opened.config, VersionStatistics()

        def on_batch(record: BatchRecord) -> None:
            statistics.on_batch(record)
            self._on_batch(config.name, opened.version, record)

        batcher = DynamicBatcher[Tensors, Tensors](
            opened.instances,
            max_batch_size=config.max_batch_size if config.batches_requests else 1,
            max_queue_size=config.queue_policy(0).max_queue_size or self._engine.max_queue_size,
            max_queue_delay_s=config.max_queue_delay_s,
            priority_levels=max(1, config.proto.dynamic_batching.priority_levels),
            on_batch=on_batch,
        )
        return ServedVersion(
            config, opened.version, opened.images, opened.instances, batcher, opened.proven, statistics
        )

    def _withdraw(self, entry: VersionEntry) -> None:
        """Take no more requests; those that it has are answered first."""
        if entry.served:
            self._on_withdrawn(entry.served)
            task = asyncio.create_task(entry.served.close())
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
            entry.served = None


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


@contextmanager
def _files_folder(name: str, files: Mapping[str, bytes] | None) -> Iterator[Path | None]:
    """A model's folder made of these files, for as long as it takes to load it."""
    if not files:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="fovea-") as scratch:
        folder = Path(scratch, name)
        for path, content in files.items():
            target = folder / path
            if not target.resolve().is_relative_to(folder.resolve()) or target.resolve() == folder.resolve():
                raise InvalidInputError(f"failed to load '{name}': {path!r} is not a path in the model's folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield folder


def _version_numbers(folder: Path, filename: str) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and (path / filename).is_file()]


def _content(folder: Path, version: str) -> str:
    """What stands for the content of a version's files, and of the model's own."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*"), *folder.joinpath(version).rglob("*")]):
        if path.is_file():
            status = path.stat()
            digest.update(f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
