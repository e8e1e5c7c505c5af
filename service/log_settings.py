"""What is logged, and how: at first as the settings say, then as clients do by Triton's extension "logging"."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping

from pythonjsonlogger.json import JsonFormatter

from service.errors import ForbiddenError, InvalidInputError, UnsupportedError
from service.telemetry import log, request_id
from service.trace_context import trace_context

LEVELS = ("debug", "info", "warning", "error")
TIME_FORMATS = {"default": (None, time.localtime), "ISO8601": ("%Y-%m-%dT%H:%M:%SZ", time.gmtime)}

LogValue = bool | int | str


class LogSettings:
    """Logs to standard error from here on.

    Args:
        log_format: "text" for people, "json" for one JSON object a line.
        level: the least severe that is logged: "debug", "info", "warning" or "error".
        changes_allowed: whether clients may change any.
    """

    def __init__(self, log_format: str, level: str, *, changes_allowed: bool) -> None:
        least = LEVELS.index(level)
        self._settings: dict[str, LogValue] = {
            "log_file": "",
            "log_info": least <= LEVELS.index("info"),
            "log_warning": least <= LEVELS.index("warning"),
            "log_error": True,
            "log_verbose_level": int(least == LEVELS.index("debug")),
            "log_format": "default",
        }
        self._changes_allowed = changes_allowed
        self._in_json = log_format == "json"
        if self._in_json:
            names = {"asctime": "time", "levelname": "level", "name": "logger"}
            line = "%(asctime)s %(levelname)s %(name)s %(request_id)s %(message)s"
            self._formatter: logging.Formatter = JsonFormatter(line, rename_fields=names)
        else:
            self._formatter = logging.Formatter(
                "%(asctime)s %(levelname)s %(name)s [%(request_id)s%(trace)s] %(message)s", defaults={"trace": ""}
            )
        handler = logging.StreamHandler(sys.stderr)
        handler.addFilter(self._passes)
        handler.setFormatter(self._formatter)
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        logging.captureWarnings(True)
        self._apply()

    def current(self) -> dict[str, LogValue]:
        return dict(self._settings)

    def change(self, changes: Mapping[str, object]) -> dict[str, LogValue]:
        """Change settings, all or none; the settings that are then in force.

        Raises:
            FoveaError: it is not allowed, or a setting cannot be.
        """
        if changes:
            if not self._changes_allowed:
                raise ForbiddenError(
                    "log settings cannot be changed by request: FOVEA_LOG_AND_TRACE_CHANGES must be true"
                )
            self._settings |= {name: self._checked(name, value) for name, value in changes.items()}
            self._apply()
        return self.current()

    def _checked(self, name: str, value: object) -> LogValue:
        if name == "log_file":
            raise UnsupportedError("log file location can not be updated through network protocol")
        if name == "log_verbose_level":
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
                return value
            raise InvalidInputError(f"{name} must be a whole number from 0 to {2**32 - 1}")
        if name == "log_format":
            if isinstance(value, str) and value in TIME_FORMATS:
                return value
            raise InvalidInputError(f"{name} must be one of {', '.join(TIME_FORMATS)}")
        if name not in self._settings:
            known = ", ".join(self._settings)
            raise InvalidInputError(f"there is no log setting {name[:100]!r}: must be one of {known}")
        if isinstance(value, bool):
            return value
        raise InvalidInputError(f"{name} must be true or false")

    def _apply(self) -> None:
        # Records below this cost nothing; the others are for `_passes` to judge.
        levels = (logging.DEBUG, logging.INFO, logging.WARNING)
        log.setLevel(next((level for level in levels if self._settings[_switch(level)]), logging.ERROR))
        self._formatter.datefmt, self._formatter.converter = TIME_FORMATS[str(self._settings["log_format"])]

    def _passes(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        if context := trace_context.get():
            if self._in_json:
                record.trace_id, record.span_id = context.trace_id, context.span_id
            else:
                record.trace = f" trace_id={context.trace_id} span_id={context.span_id}"
        return bool(self._settings[_switch(record.levelno)])


def _switch(level: int) -> str:
    """The setting that a record of this level is subject to."""
    if level < logging.INFO:
        return "log_verbose_level"
    if level < logging.WARNING:
        return "log_info"
    return "log_warning" if level < logging.ERROR else "log_error"
