"""What docs/lecture.md shows is so."""

from __future__ import annotations

import json
import re
import shlex
from functools import partial
from pathlib import Path

import pytest
import torch

import model.data
from model.command_line import main
from model.data import synthetic
from model.losses import LOSSES
from model.nets import NETS, build
from model.nets.arithmetic import NetError
from model.optimizers import OPTIMIZERS
from model.recipe import RECIPES, USUAL
from model.schedules import SCHEDULES
from model.summary import summarise

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "lecture.md").read_text()
BLOCKS = [block for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) if "fovea serve" not in block]
"""Those with a service are in `tests/test_lecture_served.py`."""
(COSTS,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
ROWS = re.findall(r"^\| `(\w+)` \| .* \| (\S+) \| (\S*) ?\| (\d+)x\d+ \|$", TEXT, re.MULTILINE)
PROGRAM = ".venv/bin/fovea-model"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1].removeprefix(PROGRAM).strip()[:50])
def test_the_commands_work(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model.data, "synthetic", partial(synthetic, count=12))
    (tmp_path / "model_repository").symlink_to(ROOT / "model_repository")
    (tmp_path / "costs.json").write_text(COSTS)
    for command in block.splitlines():
        program, *arguments = shlex.split(command, comments=True)
        assert program == PROGRAM
        assert main(arguments) == 0


def test_the_pictures_are_there() -> None:
    shown = re.findall(r"!\[.+\]\((\S+)\)", TEXT)
    assert shown
    for picture in shown:
        assert 0 < (ROOT / "docs" / picture).stat().st_size < 150_000


def test_the_costs_are_those_of_the_networks() -> None:
    for row in json.loads(COSTS):
        found = summarise([row["name"].partition(",")[0]], 10, (3, 32, 32))
        assert (found.multiply_adds / 1e6, found.parameters) == (row["mflops"], row["parameters"])


def test_the_refusal_is_the_programs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (shown,) = re.findall(r"^error: (conv:\S+): .*$", TEXT, re.MULTILINE)
    assert main(["train", "synthetic", "--run", str(tmp_path / "run"), "--net", shown]) == 1
    assert capsys.readouterr().err in TEXT


def test_the_summaries_are_the_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "convnetjs"]) == 0
    (shown,) = re.findall(r"```\n(layer .*?)```", TEXT, re.DOTALL)
    assert capsys.readouterr().out.startswith(shown)
    assert main(["summary", "conv2d:filters=1,F=3,S=3", "--input", "1x7x7"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] in TEXT


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_table_of_networks(row: tuple[str, str, str, str]) -> None:
    name, small, large, side = row
    smallest = int(side)
    with torch.device("meta"):
        for shown, size, classes in ((small, 32, 10), (large, 224, 1000)):
            if shown == "refused":
                with pytest.raises(NetError):
                    build(name, classes, (3, size, size))
            elif shown:
                parameters = sum(p.numel() for p in build(name, classes, (3, size, size)).parameters())
                assert f"{parameters:,}" == shown
        build(name, 10, (3, smallest, smallest))
        if smallest > 1:
            with pytest.raises(NetError, match=f"3x{smallest}x{smallest} or larger would fit"):
                build(name, 10, (3, smallest - 1, smallest - 1))


def test_the_table_of_recipes() -> None:
    rows = re.findall(
        r"^\| `([\w:]+)` \| ([\w +]+) \| (\d+) \| `(\w+)` \| (.*) \| `(.*)` \| (.*) \| (.*) \|$", TEXT, re.MULTILINE
    )
    assert {name for name, *_ in rows} == set(RECIPES)
    for name, *shown in rows:
        recipe = RECIPES[name]
        averaged = f" + {recipe.averaged_epochs} averaged" if recipe.averaged_epochs else ""
        augmentation = ["flip"] * recipe.flip + [f"shift {recipe.shift}"] * bool(recipe.shift)
        augmentation += [f"cutout {recipe.cutout}"] * bool(recipe.cutout)
        augmentation += [f"cutmix {recipe.cutmix:g}"] * bool(recipe.cutmix)
        assert shown == [
            f"{recipe.epochs}{averaged}",
            str(recipe.batch_size),
            recipe.optimizer,
            f"{recipe.lr:g}",
            recipe.schedule,
            f"{recipe.l2:g}",
            ", ".join(augmentation) or "none",
        ]


def test_the_table_of_optimizers() -> None:
    rows = re.findall(r"^  \| `(\w+)` \| (\S+) \| (\S+) \| (\S+) \|$", TEXT, re.MULTILINE)
    assert rows == [(name, *(f"{usual[key]:g}" for key in ("lr", "momentum", "l2"))) for name, usual in USUAL.items()]


def test_the_choices_are_all_told() -> None:
    for choices in (OPTIMIZERS, SCHEDULES, LOSSES):
        assert all(f"`{choice}`" in TEXT for choice in choices)


def test_the_table_has_every_network() -> None:
    assert [name for name, *_ in ROWS] == list(NETS)
