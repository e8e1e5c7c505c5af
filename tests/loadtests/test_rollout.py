"""A rollout under load, small: a real service, two versions."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import onnx
import psutil
import pytest

from loadtests.metrics import parse_metrics
from loadtests.openloop import Outcome
from loadtests.rollout import __main__ as command
from loadtests.rollout.measure import Canary, Rollout, RolloutLoad, Round, _shadow_between, _side_between, round_of
from loadtests.rollout.page import page, ratios
from loadtests.target import Target
from tests.loadtests.test_targets import BUSY, process
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
    text = (tmp_path / "rollout.md").read_text()
    assert "| version 1, current | 150 |" in text
    assert "| version 2, canary | 50 |" in text
    assert "on 100.0% of them the same class" in text
    assert text.endswith("requests, 0 failed.\n")
    assert text in capsys.readouterr().out


def test_ratios_are_of_rounds_side_by_side() -> None:
    rounds = [
        Round(False, 100, 10, 20, 1),
        Round(True, 90, 11, 30, 2),
        Round(True, 50, 10, 20, 1),
        Round(False, 100, 10, 20, 1),
    ]
    assert ratios(rounds)[0] == "0.70 (0.50 to 0.90)"
    assert ratios(rounds)[3] == "1.50 (1.00 to 2.00)"


def test_requests_that_failed_are_no_part_of_a_round() -> None:
    outcomes = [Outcome(0.0, 0.0, 0.01), Outcome(0.5, 0.0, 0.02), Outcome(1.0, 0.0, 1.0, "503: full")]
    assert round_of(True, outcomes, 0.004) == Round(True, 1.0, 10.0, 20.0, 2.0)


def test_processor_time_is_that_of_the_services_children_too(tmp_path: Path) -> None:
    async def send() -> str | None:
        raise NotImplementedError

    with process(f"{shlex.quote(sys.executable)} -c {shlex.quote(BUSY)} & wait") as shell:
        (child,) = psutil.Process(shell.pid).children()
        found_s = RolloutLoad(Target("", "", "", shell.pid), tmp_path, send)._cpu_s()
        child.kill()
    assert found_s >= 0.15


def test_where_nothing_was_answered_or_compared_the_page_says_so() -> None:
    nothing = parse_metrics("")
    side, shadow = _side_between(nothing, nothing, "canary"), _shadow_between(nothing, nothing)
    rounds = tuple(round_of(shadowed, [Outcome(0.0, 0.0, 1.0, "503: full")], 0.1) for shadowed in (False, True))
    text = page(Rollout(Canary(0.1, side, side), shadow, rounds, rounds, 10.0, 2, 2))
    assert "| version 2, canary | 0 | – | – ms |" in text
    assert "Shadow: 0 images compared, on – of them the same class; mean confidence – (current) and – (shadow)" in text
    assert "| closed, 8 in flight | – | – | – | – |" in text
