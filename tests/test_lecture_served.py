"""What docs/lecture.md shows of the networks served together: trained, served and compared, as it is written there."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

import model.data
import model.speed
from model.command_line import main
from model.data import synthetic
from tests.service.launch import ROOT, run_to_end, running

(BLOCK,) = re.findall(r"```sh\n([^`]*fovea serve[^`]*)```", (ROOT / "docs" / "lecture.md").read_text())
TABLE, SERVE, COMPARE = (shlex.split(line) for line in BLOCK.splitlines())


def write_photos(folder: Path) -> None:
    """The synthetic test split as files, a folder for each class."""
    drawn = synthetic("test", count=9)
    for number, (image, label) in enumerate(zip(drawn.images, drawn.labels, strict=True)):
        file = folder / drawn.classes[label] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)


@pytest.mark.system
@pytest.mark.timeout(900)
def test_the_networks_are_asked_about_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)  # beside other work, two wait for each other
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model.data, "synthetic", partial(synthetic, count=48))
    monkeypatch.setattr(model.speed, "ROUND_S", 0.0)
    write_photos(tmp_path / "photos" / "test")

    assert TABLE[0] == ".venv/bin/fovea-model"
    assert main(TABLE[1:]) == 0
    assert SERVE[:3] == [".venv/bin/fovea", "serve", "--model-repository"]
    repository = tmp_path / SERVE[3]
    names = sorted(entry.name for entry in repository.iterdir())
    assert len(names) >= 8
    with running(repository) as service:
        assert COMPARE[:2] == [".venv/bin/fovea", "compare"]
        ended = run_to_end("compare", "--server", service.grpc, *(str(tmp_path / path) for path in COMPARE[2:]))
    assert (ended.returncode, ended.stderr) == (0, "")
    header, *rows, last = ended.stdout.splitlines()
    assert header.split() == names
    assert len(rows) == 9
    shares = [100 * sum(row.split()[1 + 2 * column] == "+" for row in rows) / 9 for column in range(len(names))]
    assert last.split() == ["right", *(part for share in shares for part in (f"{share:.1f}", "%"))]
