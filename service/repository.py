"""The model repository: a folder of models in Triton's layout, loaded, swapped and unloaded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from service.backends.engine import Engine
from service.batching import BatchRecord, DynamicBatcher
from service.catalogue import Catalogue, ModelEntry, State, VersionEntry
from service.errors import FoveaError, InvalidInputError, ModelError, NotFoundError, StartError
from service.loading import OpenedVersion, ServedVersion, open_version
from service.model_config import read_proto, served_versions
from service.model_folder import (
    check_files,
    content_of,
    files_folder,
    is_folder_name,
    model_names,
    shown,
    version_numbers,
)
from service.rollout import Rollout, declared, opened_by, require_served, show_rollout
from service.statistics import VersionStatistics
from service.tensors import Tensors
from service.traffic import Traffic
from service.trial import Observe, TakenUp

log = logging.getLogger("fovea.repository")

MAX_ROWS = 2**31 - 1
UNLOADED = "unloaded"

OnBatch = Callable[[str, str, BatchRecord], None]


class Repository:
    """Loads a folder of models, and what changes in it.

    Args:
        folder: `<name>/{config.pbtxt, labels.txt, <version>/model.onnx}`.
        max_queue_size: rows that may wait, for models whose config does not say.
        default_model: what a request that names no model gets; None: the only model, or the only one that gives no
            features.
        wanted: the models to be loaded at start; None: all.
        on_batch: told model, version and record of every batch.
        on_served, on_withdrawn: told of every version that begins or ends to take requests.
        on_change: told after every load and unload.
        on_trial: told what comes of versions on trial.

    Attributes:
        catalogue: finds what is loaded.

    Raises:
        StartError: the folder or the default model is not there.
    """

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        *,
        max_queue_size: int,
        default_model: str | None,
        wanted: Sequence[str] | None = None,
        on_batch: OnBatch,
        on_served: Callable[[ServedVersion], None] = lambda served: None,
        on_withdrawn: Callable[[ServedVersion], None] = lambda served: None,
        on_change: Callable[[], None] = lambda: None,
        on_trial: Observe = lambda event: None,
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._max_queue_size = max_queue_size
        self._on_batch = on_batch
        self._on_served = on_served
        self._on_withdrawn = on_withdrawn
        self._on_change = on_change
        self._on_trial = on_trial
        self._changing = asyncio.Lock()
        self._blocking: set[str] = set()
        self._draining: set[asyncio.Task[None]] = set()
        self.models = {name: ModelEntry(name) for name in model_names(folder)}
        if not self.models:
            raise StartError(f"FOVEA_MODEL_REPOSITORY={folder}: holds no models (layout: <name>/<version>/model.onnx)")
        for name in wanted or ():
            if name not in self.models:
                raise StartError(f"FOVEA_LOAD_MODELS names {name}: {folder} holds {', '.join(self.models)}")
        if default_model is not None and default_model not in self.models:
            raise StartError(f"FOVEA_DEFAULT_MODEL={default_model}: {folder} holds {', '.join(self.models)}")
        for name, model in self.models.items():
            model.wanted = wanted is None or name in wanted
        self.catalogue = Catalogue(self.models, default_model)

    async def start(self) -> None:
        """Load every model that is wanted.

        What cannot be served keeps the service from being ready, until it can.
        """
        await asyncio.to_thread(self._engine.refresh)
        await self._load_each([name for name, model in self.models.items() if model.wanted])
        self._blocking = {model.name for model in self.models.values() if self.catalogue.problems_of(model)}
        self._on_change()

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
        if files:
            check_files(name, files, override)
        elif not self._is_model(name):
            raise NotFoundError(f"failed to load {shown(name)}, failed to poll from model repository")
        async with self._changing:
            await self._load(name, override, files or {}, again=True)

    async def unload(self, name: str) -> None:
        """Take a model's versions out of service; the requests that they have are answered. Unknown: nothing to do."""
        async with self._changing:
            self._unload(name)

    async def poll(self) -> None:
        """Bring what is served in line with the folder and the engine. What failed is tried again once they change."""
        await asyncio.to_thread(self._engine.refresh)
        present = model_names(self._folder)
        async with self._changing:
            for name in self.models.keys() - set(present):
                self._unload(name)
            for model in self.models.values():
                self._withdraw_lost(model)
        await self._load_each(present)

    async def close(self) -> None:
        """Finish what waits and release the sessions; what is being loaded is to be cancelled before."""
        async with self._changing:
            for model in self.models.values():
                for entry in model.versions.values():
                    self._withdraw(entry)
        await asyncio.gather(*self._draining)

    def blocking(self) -> list[str]:
        """Why the service is not ready: the problems that it started with, and still has."""
        return [problem for name in sorted(self._blocking) for problem in self.catalogue.problems_of(self.models[name])]

    def _is_model(self, name: str) -> bool:
        return is_folder_name(name) and (self._folder / name).is_dir()

    async def _load_each(self, names: Sequence[str]) -> None:
        """One that cannot be served leaves the others alone."""
        for name in names:
            with suppress(FoveaError):
                async with self._changing:
                    await self._load(name, None, {}, again=False)

    async def _load(self, name: str, override: str | None, files: Mapping[str, bytes], *, again: bool) -> None:
        """Args:
        again: whether to try what has failed, and has not changed since.
        """
        model = self.models.setdefault(name, ModelEntry(name))
        before = model.reason
        was_wanted, model.wanted, model.reason = model.wanted, True, ""
        try:
            with files_folder(name, files) as given:
                failed = await self._load_versions(given or self._folder / name, model, override, again=again)
        except Exception as error:
            model.reason = _reason(error)
            if model.reason != before and any(entry.served for entry in model.versions.values()):
                log.error("%s: stays as it was: %s", name, model.reason)
            raise InvalidInputError(f"failed to load {shown(name)}: {model.reason}") from None
        except BaseException:
            # Cancelled: as if it had not been tried, but for the versions that are ready by now.
            ready = any(entry.served for entry in model.versions.values())
            model.wanted, model.reason = was_wanted or ready, before
            if not ready:
                self._end_rollout(model)
            raise
        finally:
            if not self._is_model(name) and not any(entry.served for entry in model.versions.values()):
                del self.models[name]
            if name not in self.models or not self.catalogue.problems_of(model):
                self._blocking.discard(name)
            self._on_change()
        if failed:
            reasons = "; ".join(f"version {entry.version} is at UNAVAILABLE state: {entry.reason}" for entry in failed)
            raise InvalidInputError(f"load failed for model '{name}': {reasons}")

    async def _load_versions(
        self, folder: Path, model: ModelEntry, override: str | None, *, again: bool
    ) -> list[VersionEntry]:
        """Load a model's versions; those that could not be."""
        proto = read_proto(folder, override)
        rollout = declared(proto)
        numbers = served_versions(proto, version_numbers(folder, proto.default_model_filename))
        if not numbers:
            raise ModelError(f"no version folder (1, 2, …) with a {proto.default_model_filename}")
        require_served(rollout, [str(number) for number in numbers])
        # Not by its rollout: sessions stay open when that changes.
        config = opened_by(proto).SerializeToString(deterministic=True).hex()
        contents = {
            str(number): content_of(folder, str(number)) + config + self._engine.lacks(model.name, str(number))
            for number in numbers
        }
        before_it = any(entry.served for entry in model.versions.values())
        self._take_up(model, rollout, unless_current_is_missing=before_it)
        failed = []
        # The current one first: nothing stands in for it.
        for version, content in sorted(contents.items(), key=lambda item: item[0] != rollout.current):
            entry = model.versions.get(version)
            if entry and entry.served and entry.content == content:
                entry.tried, entry.reason = content, ""
            elif entry is None or again or entry.tried != content:
                entry = await self._load_version(model, folder, version, content, proto)
            if not entry.served or entry.content != content:
                failed.append(entry)
            elif entry.served:
                show_rollout(proto, entry.served.config.proto)
        model.versions = dict(sorted(model.versions.items(), key=lambda item: int(item[0])))
        self._take_up(model, rollout, unless_current_is_missing=before_it)
        if not failed:
            # Only now: until what is wanted is there, what was there before is better than nothing.
            for version in model.versions.keys() - contents.keys():
                self._withdraw(model.versions.pop(version))
        return failed

    def _take_up(self, model: ModelEntry, rollout: Rollout, *, unless_current_is_missing: bool) -> None:
        """Direct a model's requests as its rollout says; as before where that is what they are already."""
        if rollout == (model.traffic.rollout if model.traffic else Rollout()):
            return
        if unless_current_is_missing and rollout.current and not model.ready(rollout.current):
            return
        if rollout.current:
            model.traffic = Traffic(model.name, rollout, model.ready, self._on_trial)
        else:
            self._end_rollout(model)
        log.info("%s: requests that name no version get %s", model.name, rollout)

    def _end_rollout(self, model: ModelEntry) -> None:
        if model.traffic:
            model.traffic = None
            self._on_trial(TakenUp(model.name, ()))

    async def _load_version(
        self, model: ModelEntry, folder: Path, version: str, content: str, proto: pb.ModelConfig
    ) -> VersionEntry:
        """Open a version, and put it in the place of the one before it. A failure is the entry's reason."""
        old = model.versions.get(version)
        entry = VersionEntry(version, content, content)
        if old is None or not old.served:
            model.versions[version] = entry
        opening = asyncio.create_task(asyncio.to_thread(open_version, folder, version, proto, self._engine))
        try:
            opened = await asyncio.shield(opening)
        except Exception as error:
            if old and old.served:
                log.error("%s version %s: stays as it was: %s", model.name, version, _reason(error))
                entry = old
            else:
                entry.state = State.UNAVAILABLE
                if any(each.served for each in model.versions.values()):
                    log.error("%s version %s: is not served, others are: %s", model.name, version, _reason(error))
            entry.reason, entry.tried = _reason(error), content
            return entry
        except BaseException:
            # Cancelled: as if it had not been tried. A thread cannot be: what it opens is waited for, and closed.
            if old:
                model.versions[version] = old
            else:
                del model.versions[version]
            with suppress(Exception):
                await asyncio.to_thread((await opening).close)
            raise
        entry.served, entry.state = self._serve(opened), State.READY
        model.gives_features = entry.served.gives_features
        model.versions[version] = entry
        if old:
            self._withdraw(old)
        self._on_served(entry.served)
        if not opened.proven:
            log.info("%s version %s: not proven: it has no golden sample", model.name, version)
        for name in opened.config.without_effect():
            log.warning("%s: config.pbtxt: %s has no effect here", model.name, name)
        return entry

    def _unload(self, name: str) -> None:
        model = self.models.get(name)
        if model is None:
            return
        model.wanted, model.reason = False, ""
        self._end_rollout(model)
        for entry in model.versions.values():
            self._withdraw(entry)
            entry.state, entry.reason, entry.tried = State.UNAVAILABLE, UNLOADED, ""
        if not self._is_model(name):
            del self.models[name]
        self._blocking.discard(name)
        self._on_change()

    def _serve(self, opened: OpenedVersion) -> ServedVersion:
        config, statistics = opened.config, VersionStatistics()

        def on_batch(record: BatchRecord) -> None:
            statistics.on_batch(record)
            self._on_batch(config.name, opened.version, record)

        batcher = DynamicBatcher[Tensors, Tensors](
            [instance.run for instance in opened.instances],
            max_batch_size=_largest_batch(opened),
            max_queue_size=config.max_queue_size or self._max_queue_size,
            max_queue_delay_s=config.max_queue_delay_s,
            priority_levels=config.priority_levels,
            on_batch=on_batch,
        )
        return ServedVersion(
            config, opened.version, opened.images, opened.instances, batcher, opened.proven, statistics
        )

    def _withdraw_lost(self, model: ModelEntry) -> None:
        """Take out of service what the engine no longer has; the service is not ready until it is back."""
        for entry in model.versions.values():
            if entry.served and (reason := self._engine.lacks(model.name, entry.version)):
                log.error("%s version %s: %s", model.name, entry.version, reason)
                self._withdraw(entry)
                entry.state, entry.reason = State.UNAVAILABLE, reason
                self._blocking.add(model.name)

    def _withdraw(self, entry: VersionEntry) -> None:
        """Take no more requests; those that it has are answered first."""
        if entry.served:
            self._on_withdrawn(entry.served)
            entry.served.withdrawn = True
            task = asyncio.create_task(entry.served.close())
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
            entry.served = None


def _reason(error: Exception) -> str:
    if isinstance(error, ModelError | StartError):
        return str(error)
    log.error("a model cannot be loaded", exc_info=error)
    return str(ModelError(f"{type(error).__name__}: {error}"))


def _largest_batch(opened: OpenedVersion) -> int:
    """The most rows that requests share an instance with. What would be run in parts waits in the queue instead, where
    it is seen, counted and given up."""
    if not opened.config.batches_requests:
        return 1
    at_once = [instance.rows_at_once or MAX_ROWS for instance in opened.instances]
    return min(opened.config.max_batch_size, max(at_once))
