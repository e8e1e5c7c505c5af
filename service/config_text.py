"""A `config.pbtxt` as its author wrote it, edited in its parameters: comments, order and all else stay as they are."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[A-Za-z_][A-Za-z0-9_]*|[^\s]""")
OPENING, CLOSING = "{<[", "}>]"


def with_parameters(text: str, changes: Mapping[str, str | None]) -> str:
    """The text with these parameters.

    Args:
        text: in protobuf's text format.
        changes: string values by their names; None: that parameter is to go.

    Raises:
        ValueError: it is no config, or is written in a way that cannot be edited; the message says which.
    """
    wanted = _parsed(text)
    for name, value in changes.items():
        wanted.parameters.pop(name, None)
        if value is not None:
            wanted.parameters[name].string_value = value
    left = dict(changes)
    line_end = "\r\n" if "\r\n" in text else "\n"
    edited, end = "", 0
    for begin, stop in _parameters(text):
        names = list(_parsed(text[begin:stop]).parameters)
        if not changes.keys() & set(names):
            continue
        if len(names) > 1:
            raise ValueError(f"{', '.join(sorted(names))}: must each be written as `parameters {{ … }}` of its own")
        (name,) = names
        value = left.pop(name, None)
        before, after = text[end:begin], stop
        if value is None:
            # Nor is its line left behind, where it has that for itself.
            if (not before or before.endswith("\n")) and text.startswith(line_end, stop):
                after += len(line_end)
            edited += before
        else:
            edited += before + _block(name, value, line_end)
        end = after
    edited += text[end:]
    for name, value in left.items():
        if value is not None:
            edited += line_end if edited and not edited.endswith("\n") else ""
            edited += _block(name, value, line_end) + line_end
    if _parsed(edited) != wanted:
        raise ValueError(f"{', '.join(changes)}: must each be written as `parameters {{ … }}` of its own")
    return edited


def replace_text(path: Path, text: str) -> None:
    """Write beside, then rename: whoever reads it meanwhile has the old one or the new one, whole, and may do so still.

    Raises:
        OSError: it cannot be, or not with the owner and the group that it has; nothing has changed then.
    """
    path = path.resolve()
    beside = path.with_name(f".{path.name}.partial")
    try:
        # As bytes: line ends stay as they are.
        beside.write_bytes(text.encode())
        if path.exists():
            _take_owner(beside, path)
            shutil.copymode(path, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _take_owner(path: Path, other: Path) -> None:
    own, wanted = path.stat(), other.stat()
    if (own.st_uid, own.st_gid) == (wanted.st_uid, wanted.st_gid):
        return
    try:
        os.chown(path, wanted.st_uid, wanted.st_gid)
    except OSError as error:
        raise OSError(
            f"{other} must go on belonging to user {wanted.st_uid}, group {wanted.st_gid}: {error.strerror}"
        ) from error


def _parsed(text: str) -> pb.ModelConfig:
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from None


def _block(name: str, value: str, line_end: str) -> str:
    return line_end.join(("parameters {", f'  key: "{name}"', f'  value {{ string_value: "{value}" }}', "}"))


def _parameters(text: str) -> Iterator[tuple[int, int]]:
    """Where each top-level `parameters` begins and ends."""
    depth, begin = 0, None
    for token in TOKEN.finditer(text):
        word = token[0]
        if word in OPENING:
            depth += 1
        elif word in CLOSING:
            depth -= 1
            if begin is not None and depth == 0:
                yield begin, token.end()
                begin = None
        elif depth == 0 and word == "parameters":
            begin = token.start()
