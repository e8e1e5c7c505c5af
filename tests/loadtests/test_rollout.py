"""A rollout under load, small: a real service, two versions."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from loadtests.rollout import __main__ as command
from loadtests.rollout.measure import Round
from loadtests.rollout.page import ratios
from tests.repositories import graph, write_model


def test_a_canary_gets_its_share_and_nothing_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FOVEA_LOADTEST_IMAGES", raising=False)
    monkeypatch.setattr(command, "new_results_folder", lambda: tmp_path)
    model = write_model(tmp_path / "repository", golden=False)
    (tmp_path / "2").mkdir()
    onnx.save(graph(8, scale=5 / 255), tmp_path / "2" / "model.onnx")
    small = ["--requests", "200", "--share", "0.25", "--rounds", "1", "--round-s", "0.3"]
    assert command.main([str(tmp_path / "2"), "--current", str(model / "1"), *small]) == 0
    page = (tmp_path / "rollout.md").read_text()
    assert "| version 1, current | 150 |" in page
    assert "| version 2, canary | 50 |" in page
    assert "on 100.0% of them the same class" in page
    assert page.endswith("requests, 0 failed.\n")
    assert page in capsys.readouterr().out


def test_ratios_are_of_rounds_side_by_side() -> None:
    rounds = [
        Round(False, 100, 10, 20, 1),
        Round(True, 90, 11, 30, 2),
        Round(True, 50, 10, 20, 1),
        Round(False, 100, 10, 20, 1),
    ]
    assert ratios(rounds)[0] == "0.70 (0.50 to 0.90)"
    assert ratios(rounds)[3] == "1.50 (1.00 to 2.00)"
