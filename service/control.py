"""Loading and unloading of models by request: Triton's extension "model repository"."""

from __future__ import annotations

from collections.abc import Mapping

from service.errors import ForbiddenError, InvalidInputError
from service.repository import Repository

FILE = "file:"


class Control:
    """What both protocols do of it.

    Args:
        allowed: whether clients may.
    """

    def __init__(self, repository: Repository, *, allowed: bool) -> None:
        self._repository = repository
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
        await self._repository.load(model, override=config, files=paths)

    async def unload(self, model: str) -> None:
        """Unload a model. Its requests are answered first.

        Raises:
            ForbiddenError: it is not allowed.
        """
        self._require_allowed()
        await self._repository.unload(model)

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
