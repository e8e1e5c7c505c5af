"""What the commands share: what the values on the command line stand for; argparse tells what is wrong with one."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from model.losses import LOSSES
from model.nets import check_name
from model.nets.arithmetic import InputShape, NetError
from model.pictures.figure import SUFFIXES
from model.summary import read_shape

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What a command adds itself to."""

DATA = "image folder, folder of CIFAR-10's own files, or 'synthetic'"


def shape(text: str) -> InputShape:
    try:
        return read_shape(text)
    except NetError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def net(text: str) -> str:
    try:
        return check_name(text)
    except NetError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def row_name(text: str) -> str:
    """`NAME`, or `NAME+LOSS`: a network, trained with its recipe's loss or with another."""
    name, plus, loss = text.partition("+")
    if plus and loss not in LOSSES:
        raise argparse.ArgumentTypeError(f"{text}: no loss {loss!r}: must be one of {', '.join(LOSSES)}")
    net(name)
    return text


def row_epochs(text: str) -> tuple[str, int]:
    """`ROW=N`: the epochs of one row; a specification has `=` in its name, too."""
    name, _, epochs = text.rpartition("=")
    return row_name(name), at_least(0)(epochs)


def picture_file(text: str) -> Path:
    if Path(text).suffix.lower() not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text}: its name must end in {' or '.join(SUFFIXES)}")
    return Path(text)


def not_negative(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is too small: must be 0 or more")
    return value


def positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is too small: must be more than 0")
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: must be from 0 to 1")
    return value


LARGEST_INTEGER = 2**63 - 1
"""Of 64 bits, with a sign."""


def at_least(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is too small: must be {minimum} or more")
        if value > LARGEST_INTEGER:
            raise argparse.ArgumentTypeError(f"{value} is too large: must be {LARGEST_INTEGER} or less")
        return value

    return number
