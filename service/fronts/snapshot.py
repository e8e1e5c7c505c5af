"""What a front knows of the models, as the engine tells it: all of it, whenever something has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2 as pb

from service.catalogue import Catalogue, ModelEntry, State, VersionEntry
from service.fronts.remote_batcher import RemoteBatcher, RemoteRequests
from service.image_contract import ImageContract, NoImagesError
from service.loading import ServedVersion
from service.model_config import ModelConfig
from service.rollout import Rollout
from service.statistics import VersionStatistics
from service.tensors import TensorSpec
from service.traffic import Traffic
from service.trial import Observe, TakenUp


@dataclass(frozen=True)
class RemoteInstance:
    """One of the engine's."""

    provider: str

    def close(self) -> None:
        """Nothing of it is here."""


@dataclass(frozen=True)
class ServedSnapshot:
    """A version at work; `number` is its name between the engine and its fronts."""

    number: int
    proto: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: Mapping[str, tuple[str, ...]]
    images: ImageContract | NoImagesError
    instances: tuple[RemoteInstance, ...]
    proven: bool
    largest_batch: int
    max_queue_size: int


@dataclass(frozen=True)
class VersionSnapshot:
    version: str
    state: State
    reason: str
    served: ServedSnapshot | None


@dataclass(frozen=True)
class ModelSnapshot:
    name: str
    reason: str
    wanted: bool
    gives_features: bool
    rollout: Rollout | None
    versions: tuple[VersionSnapshot, ...]


@dataclass(frozen=True)
class Snapshot:
    """Attributes:
    blocking: why the service is not ready; None: it is starting.
    """

    models: tuple[ModelSnapshot, ...]
    default_model: str | None
    blocking: tuple[str, ...] | None


def snapshot_of(catalogue: Catalogue, numbers: Mapping[ServedVersion, int], blocking: list[str] | None) -> Snapshot:
    """Args:
    numbers: of every version that is served.
    """

    def version_snapshot(entry: VersionEntry) -> VersionSnapshot:
        served = entry.served
        if served is None:
            return VersionSnapshot(entry.version, entry.state, entry.reason, None)
        config = served.config
        told = ServedSnapshot(
            number=numbers[served],
            proto=config.proto.SerializeToString(),
            inputs=tuple(config.inputs),
            outputs=tuple(config.outputs),
            labels=dict(config.labels),
            images=served.images,
            instances=tuple(RemoteInstance(instance.provider) for instance in served.instances),
            proven=served.proven,
            largest_batch=served.largest_batch,
            max_queue_size=served.batcher.max_queue_size,
        )
        return VersionSnapshot(entry.version, entry.state, entry.reason, told)

    models = tuple(
        ModelSnapshot(
            model.name,
            model.reason,
            model.wanted,
            model.gives_features,
            model.traffic.rollout if model.traffic else None,
            tuple(map(version_snapshot, model.versions.values())),
        )
        for model in catalogue.models.values()
    )
    return Snapshot(models, catalogue.default_model, None if blocking is None else tuple(blocking))


class Mirror:
    """A front's catalogue, as the last snapshot said.

    Args:
        on_trial: told what comes of versions on trial.

    Attributes:
        blocking: why the service is not ready.
    """

    def __init__(self, requests: RemoteRequests, on_trial: Observe) -> None:
        self._requests = requests
        self._on_trial = on_trial
        self._served: dict[int, ServedVersion] = {}
        self.catalogue = Catalogue({}, None)
        self.blocking: tuple[str, ...] | None = None

    def take(self, snapshot: Snapshot) -> list[ServedVersion]:
        """Become what a snapshot says; the versions that are no longer served, which are to be closed."""
        before, self._served = self._served, {}
        for model in snapshot.models:
            for version in model.versions:
                if told := version.served:
                    known = before.pop(told.number) if told.number in before else self._serve(version.version, told)
                    # What is declared of a rollout changes while the sessions stay open.
                    known.config.proto.ParseFromString(told.proto)
                    self._served[told.number] = known
        models = self.catalogue.models
        for name in models.keys() - {model.name for model in snapshot.models}:
            self._direct(models.pop(name), None)
        for model in snapshot.models:
            self._update(models.setdefault(model.name, ModelEntry(model.name)), model)
        self.catalogue.default_model = snapshot.default_model
        self.blocking = snapshot.blocking
        for served in before.values():
            served.withdrawn = True
        return list(before.values())

    def _update(self, entry: ModelEntry, told: ModelSnapshot) -> None:
        entry.reason, entry.wanted, entry.gives_features = told.reason, told.wanted, told.gives_features
        entry.versions = {
            version.version: VersionEntry(
                version.version,
                "",
                "",
                version.state,
                version.reason,
                self._served[version.served.number] if version.served else None,
            )
            for version in told.versions
        }
        self._direct(entry, told.rollout)

    def _direct(self, entry: ModelEntry, rollout: Rollout | None) -> None:
        """Where requests go that name no version; an unchanged rollout's shares are counted on."""
        if rollout == (entry.traffic.rollout if entry.traffic else None):
            return
        if rollout:
            entry.traffic = Traffic(entry.name, rollout, entry.ready, self._on_trial)
        else:
            entry.traffic = None
            self._on_trial(TakenUp(entry.name, ()))

    def _serve(self, version: str, told: ServedSnapshot) -> ServedVersion:
        batcher = RemoteBatcher(
            self._requests, told.number, max_batch_size=told.largest_batch, max_queue_size=told.max_queue_size
        )
        config = ModelConfig(pb.ModelConfig.FromString(told.proto), told.inputs, told.outputs, told.labels)
        # The engine counts; what this front counts nobody reads.
        statistics = VersionStatistics()
        return ServedVersion(config, version, told.images, told.instances, batcher, told.proven, statistics)
