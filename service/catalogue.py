"""The models that a service has, and the version that a request means."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from service.errors import InvalidInputError, NotFoundError, UnavailableError
from service.loading import ServedVersion
from service.model_folder import shown
from service.traffic import Chosen, Traffic


class State(Enum):
    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass
class VersionEntry:
    """A version and how it fares.

    Attributes:
        content: stands for what its files held when it was opened.
        tried: the same, of the last try.
        reason: why it is not ready, or why the last try left it as it was.
    """

    version: str
    content: str
    tried: str
    state: State = State.LOADING
    reason: str = ""
    served: ServedVersion | None = None


@dataclass
class ModelEntry:
    """A model; `reason` says why its versions could not be tried, the last time they were to be.

    `wanted` is False of a model that nobody has asked to be loaded, or that was unloaded. `gives_features` says whether
    the version that was opened last gives features, and no classes. `traffic` is None where its highest version that is
    ready answers, as nothing is declared of a rollout.
    """

    name: str
    versions: dict[str, VersionEntry] = field(default_factory=dict)
    reason: str = ""
    wanted: bool = True
    gives_features: bool = False
    traffic: Traffic | None = None

    def ready(self, version: str) -> ServedVersion | None:
        entry = self.versions.get(version)
        return entry.served if entry else None


class Catalogue:
    """Finds models by their names.

    Args:
        models: by name; whoever loads and unloads them changes this.
        default_model: what a request that names no model gets; None: the only model, or the only one that gives no
            features.
    """

    def __init__(self, models: dict[str, ModelEntry], default_model: str | None) -> None:
        self.models = models
        self.default_model = default_model

    def served(self) -> list[ServedVersion]:
        # Metrics ask in a thread, while models come and go.
        models = list(self.models.values())
        return [entry.served for model in models for entry in list(model.versions.values()) if entry.served]

    def problems(self) -> list[str]:
        """Why the repository is not all ready: one sentence for each model or version."""
        return [problem for model in self.models.values() for problem in self.problems_of(model)]

    def problems_of(self, model: ModelEntry) -> list[str]:
        """Why a model is not all ready."""
        if not model.wanted:
            return []
        found = [f"{model.name}: {model.reason}"] if model.reason else []
        return found + [
            f"{model.name} version {entry.version}: {entry.reason or 'loading'}"
            for entry in list(model.versions.values())
            if entry.state is not State.READY
        ]

    def find(self, name: str) -> ModelEntry:
        """Look a model up by name.

        Raises:
            NotFoundError: there is none.
        """
        if name not in self.models:
            raise NotFoundError(f"Request for unknown model: {shown(name)} is not found")
        return self.models[name]

    def known(self, name: str, *, features: bool = False) -> str:
        """The model that a name stands for (empty: as `resolve`); empty where there is none."""
        if not name:
            names = self._meant(features)
            name = names[0] if len(names) == 1 else ""
        return name if name in self.models else ""

    def resolve(self, name: str, version: str, *, features: bool = False) -> ServedVersion:
        """The version that a name means; empty strings: the default model, its current version.

        Args:
            features: whether features are asked for: then the default is the only model that gives some.

        Raises:
            InvalidInputError: no model named, and there is no default.
            NotFoundError: no such model or version.
            UnavailableError: it is not ready.
        """
        model = self.find(name or self._default(features))
        return self._named(model, version or (model.traffic.rollout.current if model.traffic else ""))

    def next(self, name: str, version: str, *, features: bool = False) -> Chosen:
        """What the next request gets, as `resolve` but that one without a version may be the canary's. Its part in a
        trial, where it has one, is to be told that it begins.

        Raises:
            FoveaError: as `resolve`.
        """
        model = self.find(name or self._default(features))
        if model.traffic and not version:
            if chosen := model.traffic.next():
                return chosen
            version = model.traffic.rollout.current
        return Chosen(self._named(model, version), None)

    def choose(self, name: str, version: str, *, features: bool = False) -> Chosen:
        """What a request gets that has come, as `next`."""
        chosen = self.next(name, version, features=features)
        if chosen.part:
            chosen.part.begin()
        return chosen

    def _default(self, features: bool) -> str:
        """The model that a request means that names none."""
        names = self._meant(features)
        if not names:
            raise InvalidInputError(
                "no model named, and none that is ready gives " + ("features" if features else "classes")
            )
        if len(names) > 1:
            raise InvalidInputError(f"no model named: must be one of {', '.join(names)}")
        return names[0]

    def _named(self, model: ModelEntry, version: str) -> ServedVersion:
        """A version by its number; empty: the highest that is ready."""
        name = model.name
        if not model.wanted:
            raise NotFoundError(f"Request for unknown model: '{name}' has no available versions")
        if version:
            if version not in model.versions and not model.reason:
                named = version if version.isdecimal() else shown(version)
                raise NotFoundError(f"Request for unknown model: '{name}' version {named} is not found")
            entries = [model.versions[version]] if version in model.versions else []
        else:
            entries = list(model.versions.values())
        ready = [entry.served for entry in entries if entry.served]
        if ready:
            # Asked for with every request, and mostly there is one.
            return ready[0] if len(ready) == 1 else max(ready, key=lambda served: int(served.version))
        reason = model.reason or (entries[-1].reason if entries else "") or "loading"
        raise UnavailableError(f"model '{name}' is not ready: {reason}")

    def _meant(self, features: bool) -> list[str]:
        """The models that a request without a name may mean."""
        if self.default_model is not None and not features:
            return [self.default_model]
        if len(self.models) == 1 and not features:
            return [*self.models]
        return [model.name for model in self.models.values() if model.gives_features is features]

    def ready_versions(self, name: str) -> list[str]:
        """The versions of a model that take requests, ascending."""
        return sorted((entry.version for entry in self.find(name).versions.values() if entry.served), key=int)
