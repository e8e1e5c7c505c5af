"""What README.md shows of the training package works."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import model.speed
from model.command_line import main
from model.nets import NETS
from model.recipe import RECIPES

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
PROGRAM = ".venv/bin/fovea-model"
COMMANDS = re.findall(rf"^{re.escape(PROGRAM)} .*$", TEXT, re.MULTILINE)
FURTHER = (
    "evaluate checkpoints/mine photos",
    "evaluate my_models/mine/1/model.onnx photos",
    "combine my_models/mine my_models/mine_optimised --repository my_models --name both --data photos",
)
"""Commands that are named there and not shown."""


@pytest.mark.timeout(300)
def test_the_commands_work(write_classes: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model.speed, "ROUND_S", 0.0)
    # In a second, a smaller network knows enough to be quantized.
    monkeypatch.setitem(NETS, "fastcnn", NETS["convnetjs"])
    monkeypatch.setitem(RECIPES, "fastcnn", replace(RECIPES["convnetjs"], epochs=6))
    write_classes(Path("photos", "train"), {"bright": 180, "dark": 60}, 12)
    write_classes(Path("photos", "test"), {"bright": 180, "dark": 60}, 4)
    assert len(COMMANDS) == 5
    for command in COMMANDS:
        assert main(shlex.split(command, comments=True)[1:]) == 0
    assert {path.name for path in Path("my_models").iterdir()} == {
        "mine",
        "mine_int8",
        "mine_float16",
        "mine_optimised",
    }
    for command in FURTHER:
        assert f"`fovea-model {command.split()[0]}`" in TEXT
        assert main(command.split()) == 0
