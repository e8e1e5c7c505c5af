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
            if (not before or before.endswith("\n")) and text[stop : stop + 1] == "\n":
                after += 1
            edited += before
        else:
            edited += before + _block(name, value)
        end = after
    edited += text[end:]
    for name, value in left.items():
        if value is not None:
            edited += ("\n" if edited and not edited.endswith("\n") else "") + _block(name, value) + "\n"
    if _parsed(edited) != wanted:
        raise ValueError(f"{', '.join(changes)}: must each be written as `parameters {{ … }}` of its own")
    return edited


def replace_text(path: Path, text: str) -> None:
    """Write beside, then rename: whoever reads it meanwhile has the old one or the new one, whole."""
    path = path.resolve()
    beside = path.with_name(f".{path.name}.partial")
    try:
        beside.write_text(text)
        if path.exists():
            shutil.copymode(path, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _parsed(text: str) -> pb.ModelConfig:
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from None


def _block(name: str, value: str) -> str:
    return f'parameters {{\n  key: "{name}"\n  value {{ string_value: "{value}" }}\n}}'


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
