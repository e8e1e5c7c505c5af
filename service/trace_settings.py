"""Triton's extension "trace": the settings of tracing, as clients read and change them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from service.catalogue import Catalogue
from service.errors import ForbiddenError, InvalidInputError, UnsupportedError
from service.tracing import MAX_WAITING, Tracing

LEVELS = ("OFF", "TIMESTAMPS")
RANGES = {"trace_rate": (1, 2**32 - 1), "trace_count": (-1, 2**31 - 1), "log_frequency": (0, MAX_WAITING)}


class TraceSettings:
    """What both protocols do of it; every setting is a list of words, most of them of one.

    Args:
        changes_allowed: whether clients may change any.
    """

    def __init__(self, tracing: Tracing, catalogue: Catalogue, *, changes_allowed: bool) -> None:
        self._tracing = tracing
        self._catalogue = catalogue
        self._changes_allowed = changes_allowed

    def current(self, model: str) -> dict[str, list[str]]:
        """The settings in force for a model; empty: the common ones.

        Raises:
            NotFoundError: there is no such model.
        """
        if model:
            self._catalogue.find(model)
        settings = self._tracing.settings(model)
        return {
            "trace_level": [LEVELS[settings["trace_level"]]],
            **{name: [str(settings[name])] for name in RANGES},
            "trace_file": [str(self._tracing.file or "")],
            "trace_mode": ["triton"],
        }

    def change(self, model: str, changes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Change a model's own settings (empty: the common ones), all or none; the settings that are then in force.

        Args:
            changes: an empty list clears a setting.

        Raises:
            FoveaError: it is not allowed, there is no such model, or a setting cannot be.
        """
        current = self.current(model)
        if not changes:
            return current
        if not self._changes_allowed:
            raise ForbiddenError(
                "trace settings cannot be changed by request: FOVEA_LOG_AND_TRACE_CHANGES must be true"
            )
        self._tracing.change(model, {name: self._parsed(name, words) for name, words in changes.items()})
        return self.current(model)

    def _parsed(self, name: str, words: Sequence[str]) -> int | None:
        if name == "trace_file":
            raise UnsupportedError(
                "trace file location can not be updated through network protocol: FOVEA_TRACE_FILE names it"
            )
        if name == "trace_level":
            return self._level(words) if words else None
        if name not in ("trace_mode", *RANGES):
            known = ", ".join(self.current(""))
            raise InvalidInputError(f"there is no trace setting {name[:100]!r}: must be one of {known}")
        if not words:
            return None
        if len(words) > 1:
            raise InvalidInputError(f"expect only 1 value for '{name}'")
        (word,) = words
        if name == "trace_mode":
            if word != "triton":
                raise UnsupportedError(f"trace_mode is {word[:100]!r}: must be triton")
            return None
        least, most = RANGES[name]
        if not (re.fullmatch(r"-?[0-9]{1,10}", word) and least <= int(word) <= most):
            raise InvalidInputError(f"{name} is {word[:100]!r}: must be a whole number from {least} to {most}")
        return int(word)

    def _level(self, words: Sequence[str]) -> int:
        if "TENSORS" in words:
            raise UnsupportedError("trace_level TENSORS is not supported: must be OFF or TIMESTAMPS")
        if len(words) > 1 or words[0] not in LEVELS:
            raise InvalidInputError(f"trace_level is {', '.join(words)[:100]!r}: must be one of OFF and TIMESTAMPS")
        level = LEVELS.index(words[0])
        if level and not self._tracing.file:
            raise InvalidInputError(
                "trace file name is not given: FOVEA_TRACE_FILE must name one for any level but OFF"
            )
        return level
