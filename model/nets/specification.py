"""Specifications of one line, `kind:key=value,key=value`: what `pattern` and `layers` are built from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from model.nets.arithmetic import NetError, Window


def parse(text: str, *, required: tuple[str, ...], defaults: Mapping[str, str]) -> dict[str, str]:
    """Split a specification into its values by key, with the defaults of those that it leaves out.

    Raises:
        NetError: a key is missing, unknown or there twice, or something is not `key=value`.
    """
    kind, _, rest = text.partition(":")
    known = (*required, *defaults)
    values: dict[str, str] = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = part.partition("=")
        if not equals or key not in known:
            raise NetError(f"{text}: {part!r} is none of {', '.join(f'{name}=…' for name in known)}")
        if key in values:
            raise NetError(f"{text}: {key} is given twice")
        values[key] = value
    missing = [f"{key}=…" for key in required if key not in values]
    if missing:
        raise NetError(f"{text}: {kind} needs {', '.join(missing)}")
    return {**defaults, **values}


def whole(text: str, key: str, value: str, minimum: int) -> int:
    """The value of a key as a whole number.

    Raises:
        NetError: it is none, or below the minimum.
    """
    if not re.fullmatch(r"[0-9]{1,6}", value) or int(value) < minimum:
        raise NetError(f"{text}: {key}={value} must be a whole number, {minimum} or more")
    return int(value)


def window(text: str, values: Mapping[str, str]) -> Window:
    """The window of the keys F, S and P, and of D where there is one.

    Raises:
        NetError: one of them is no whole number, or too small.
    """
    size, stride = whole(text, "F", values["F"], 1), whole(text, "S", values["S"], 1)
    return Window(size, stride, whole(text, "P", values["P"], 0), whole(text, "D", values.get("D", "1"), 1))
