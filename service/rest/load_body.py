"""The body of a load request: JSON with a configuration and, in base64, files."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from service.control import require_load_parameter
from service.errors import InvalidInputError


class LoadBody(BaseModel):
    model_config = ConfigDict(strict=True)

    parameters: dict[str, str] = {}


@dataclass(frozen=True)
class LoadRequest:
    """`files` by their parameters' names."""

    config: str | None
    files: dict[str, bytes]


def parse_load(content: bytes) -> LoadRequest:
    """Read a load request's body, which may be empty.

    Raises:
        InvalidInputError: it is not as the extension has it.
    """
    try:
        parameters = dict(LoadBody.model_validate_json(content or b"{}").parameters)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInputError(f"load request: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    config = parameters.pop("config", None)
    files = {}
    for key, text in parameters.items():
        require_load_parameter(key)
        try:
            files[key] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInputError(f"load parameter '{key}' is not base64: {error}") from None
    return LoadRequest(config, files)
