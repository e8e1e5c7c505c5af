"""Loading and unloading of models by request: Triton's extension "model repository"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from service.errors import ForbiddenError, InvalidInputError

FILE = "file:"


class Loader(Protocol):
    """A `Repository`, or what stands for one in another process."""

    async def load(
        self, name: str, *, override: str | None = None, files: Mapping[str, bytes] | None = None
    ) -> None: ...

    async def unload(self, name: str) -> None: ...


class Control:
    """What both protocols do of it.

    Args:
        allowed: whether clients may.
    """

    def __init__(self, loader: Loader, *, allowed: bool) -> None:
        self._loader = loader
        self._allowed = allowed

    async def load(self, model: str, config: str | None, files: Mapping[str, bytes]) -> None:
        """Load a model; what there was of it serves on until what is new is ready.

        Args:
            config: a configuration as JSON, in place of the model's own.
            files: "file:<path>" and content, in place of the model's own.

        Raises:
            FoveaError: it is not allowed, or the model cannot be loaded.
        """
        self._require_allowed()
        paths = {key.removeprefix(FILE): content for key, content in files.items()}
        await self._loader.load(model, override=config, files=paths)

    async def unload(self, model: str) -> None:
        """Unload a model. Its requests are answered first.

        Raises:
            ForbiddenError: it is not allowed.
        """
        self._require_allowed()
        await self._loader.unload(model)

    def _require_allowed(self) -> None:
        if not self._allowed:
            raise ForbiddenError(
                "models cannot be loaded and unloaded by request: FOVEA_MODEL_CONTROL_MODE must be explicit"
            )


def require_load_parameter(key: str) -> None:
    """Raises:
    InvalidInputError: a load request has no such parameter.
    """
    if key != "config" and not key.startswith(FILE):
        raise InvalidInputError(f"unrecognized load parameter '{key}': must be 'config' or 'file:<version>/<name>'")
