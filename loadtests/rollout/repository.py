"""A model repository with two versions of one model, and the steps that are taken in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

CURRENT, CANDIDATE = "1", "2"
SERVE_ALL = "\nversion_policy { all { } }\n"


@contextmanager
def two_versions(model: Path, current: Path, candidate: Path) -> Iterator[Path]:
    """A copy of a model whose version 1 is the one folder and whose version 2 is the other, for as long as the block
    runs; version 1 is pinned.

    Args:
        model: the model's folder: its config and labels are for both.
        current, candidate: version folders, each with a `model.onnx`.
    """
    with TemporaryDirectory(prefix="fovea-rollout-") as scratch:
        copy = Path(scratch) / model.name
        copy.mkdir()
        for file in model.iterdir():
            if file.is_file():
                shutil.copy(file, copy)
        shutil.copytree(current, copy / CURRENT)
        shutil.copytree(candidate, copy / CANDIDATE)
        config = copy / "config.pbtxt"
        text = config.read_text()
        if "version_policy" not in text:
            config.write_text(text + SERVE_ALL)
        take_step(copy, "pin", CURRENT)
        yield copy


def take_step(model: Path, *words: str) -> None:
    """`fovea rollout` with these words."""
    command = [sys.executable, "-m", "service", "rollout", str(model), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
