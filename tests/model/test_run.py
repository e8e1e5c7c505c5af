from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.run import Run, RunError, load_run, read_info, save


def test_a_run_is_loaded_for_evaluation(fastcnn_run: Run) -> None:
    run = load_run(fastcnn_run.folder)
    assert not run.net.training
    logits = run.net(run.preprocess(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)))
    assert logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "0.0 s"), (4.21, "4.2 s"), (59.94, "59.9 s"), (119.6, "2 min 0 s"), (1390.2, "23 min 10 s")],
)
def test_how_long_a_run_was_trained(seconds: float | None, told: str, fastcnn_run: Run, tmp_path: Path) -> None:
    if seconds is not None:
        (tmp_path / "metrics.jsonl").write_text(json.dumps({"seconds": 1.0}) + "\n" + json.dumps({"seconds": seconds}))
    assert replace(fastcnn_run, folder=tmp_path).training_time() == told


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"recipe": {"net": "fastcnn"}}', "{}"])
def test_a_folder_that_is_no_run_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"not a run folder|run\.json: not the record of a run"):
        read_info(tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04", None])
def test_a_damaged_checkpoint_is_named(content: bytes | None, fastcnn_run: Run, tmp_path: Path) -> None:
    shutil.copy(fastcnn_run.folder / "run.json", tmp_path)
    if content is not None:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(RunError, match=r"checkpoint\.pt: cannot be loaded"):
        load_run(tmp_path)


def test_a_checkpoint_of_another_network_is_named(fastcnn_run: Run, tmp_path: Path) -> None:
    shutil.copytree(fastcnn_run.folder, tmp_path, dirs_exist_ok=True)
    info = read_info(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(info | {"classes": ["a", "b"]}))
    with pytest.raises(RunError, match=r"checkpoint\.pt: cannot be loaded: .*head\.weight"):
        load_run(tmp_path)


def test_a_crash_while_saving_leaves_the_last_checkpoint(
    fastcnn_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(fastcnn_run.folder, tmp_path, dirs_exist_ok=True)

    def crash(_state: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, {}, 1, 1.0, fastcnn_run.net, fastcnn_run.net, [])
    assert load_run(tmp_path).info == fastcnn_run.info
