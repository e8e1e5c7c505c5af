from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtests.compare import Comparison, compare, judge, main
from loadtests.report.levels import Spread
from loadtests.report.result import Load, Result, Search, to_json
from tests.loadtests.made_up import READINGS, made_up_result, made_up_run, made_up_sweep


def spread(*values: float) -> Spread:
    found = Spread.of(values)
    assert found
    return found


def rated(rates: Sequence[float], **other: Any) -> Result:
    """One load in as many rounds as there are rates."""
    runs = [made_up_run(number=number, images_per_s=rate, **other) for number, rate in enumerate(rates, 1)]
    return made_up_result(*(replace(run, latency_ms={50.0: 1e3 / run.images_per_s}) for run in runs))


def by_figure(comparisons: Sequence[Comparison]) -> dict[str, Comparison]:
    return {each.subject[2]: each for each in comparisons}


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ((100, 102, 104), (110, 112, 114), "improvement"),
        ((110, 112, 114), (100, 102, 104), "regression"),
        ((100, 102, 104), (104, 112, 114), "within noise"),  # the ranges meet
        ((100, 100.5, 101), (101.5, 102, 103), "within noise"),  # apart, but by less than 3 %
        ((100, 102), (200, 202), "not judged"),  # two rounds
        ((0, 0, 0), (1, 1, 1), "improvement"),
    ],
)
def test_the_rule(before: tuple[float, ...], after: tuple[float, ...], change: str) -> None:
    assert judge(spread(*before), spread(*after), more_is_better=True) == change
    assert judge(spread(*before), spread(*after), more_is_better=None) == "not judged"
    opposite = {"improvement": "regression", "regression": "improvement"}
    assert judge(spread(*before), spread(*after), more_is_better=False) == opposite.get(change, change)


def test_ratios_are_of_the_medians() -> None:
    found = by_figure(compare(rated([90, 100, 130]), rated([160, 150, 140])))
    assert found["images/s"].ratio == pytest.approx(1.5)
    assert found["images/s"].change == "improvement"
    assert found["p50 ms"].ratio == pytest.approx(10 / 15)
    assert found["p50 ms"].change == "improvement"
    assert found["inference, mean ms"].change == "not judged"
    assert found["failed, share"].ratio is None
    assert found["failed, share"].change == "within noise"
    assert "p99 ms" not in found
    assert "J for an image" not in found


def test_energy_is_compared_where_both_have_it() -> None:
    before = rated([100, 100, 100], readings=READINGS)
    after = rated([100, 100, 100], readings={**READINGS, "energy_j": 750.0})
    found = by_figure(compare(before, after))["J for an image"]
    assert found.ratio == pytest.approx(1.5)
    assert found.change == "regression"


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ((0, 0, 0), (0, 1, 0), "regression"),
        ((0, 1, 0), (0, 0, 0), "improvement"),
        ((5, 6, 7), (6, 7, 8), "within noise"),
        ((5, 6, 7), (60, 70, 80), "regression"),
    ],
)
def test_the_first_failure_is_a_regression(before: tuple[int, ...], after: tuple[int, ...], change: str) -> None:
    results = [
        made_up_result(*(made_up_run(number=number, failures=count) for number, count in enumerate(counts, 1)))
        for counts in (before, after)
    ]
    assert by_figure(compare(*results))["failed, share"].change == change


def test_unchanged_services_rarely_seem_to_have_changed() -> None:
    noise = random.Random(0)
    changes = []
    for _ in range(1000):
        before, after = (spread(*(noise.lognormvariate(0, 0.1) for _ in range(5))) for _ in range(2))
        changes.append(judge(before, after, more_is_better=True))
    # Two of the 252 ways to deal ten rounds to two results keep them apart.
    assert changes.count("improvement") + changes.count("regression") < 3 * 1000 * 2 / 252


def write(result: Result, folder: Path) -> str:
    folder.mkdir()
    (folder / "result.json").write_text(to_json(result))
    return str(folder)


def test_nothing_changed_from_a_result_to_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(made_up_sweep(), tmp_path / "a")
    assert main([folder, folder]) == 0
    text = capsys.readouterr().out
    assert "| HTTP | 16 in flight | p99 ms |" in text
    assert " 1.000 | within noise |" in text
    assert "regression |" not in text
    assert "DIFFERENT" not in text
    assert "do not overlap and the medians differ by at least 3%" in text
    assert "once in 10 times with 3 and 3 rounds; 48 figures were judged" in text


def test_a_slower_service_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = write(made_up_sweep(), tmp_path / "a"), write(made_up_sweep(scale=1.5), tmp_path / "b")
    assert main([before, f"{after}/result.json"]) == 1
    assert "| 1.500 | regression |" in capsys.readouterr().out
    assert main([after, before]) == 0
    assert "| 0.667 | improvement |" in capsys.readouterr().out


def test_another_environment_is_said_at_the_top(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rated([100, 101, 102])
    other = replace(before.environment, hardware="64 cores", model_sha256="cd" * 32, fovea="0.2.0")
    after = replace(before, environment=other, duration_s=5.0)
    main([write(before, tmp_path / "a"), write(after, tmp_path / "b")])
    top, _ = capsys.readouterr().out.split("| protocol |")
    assert "DIFFERENT hardware: 2 cores, Example 3000 → 64 cores" in top
    assert f"DIFFERENT model (SHA-256 of model.onnx): {'ab' * 32} → {'cd' * 32}" in top
    assert "DIFFERENT duration of a run: 10 s → 5 s" in top
    assert top.count("DIFFERENT") == 3


def test_another_target_is_said_at_the_top(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slower = {**READINGS, "hardware": {"device": "Example T1", "power limit": "50 W"}}
    before, after = rated([100, 101, 102], readings=READINGS), rated([100, 101, 102], readings=slower)
    main([write(before, tmp_path / "a"), write(after, tmp_path / "b")])
    top, _ = capsys.readouterr().out.split("| protocol |")
    assert "DIFFERENT target's power limit: 70 W → 50 W" in top
    assert "DIFFERENT target's driver: 999.1 → not known" in top
    assert top.count("DIFFERENT") == 2


def test_loads_of_one_result_only_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared, more = made_up_run(load=Load("closed", 4)), made_up_run("gRPC", Load("closed", 16))
    before, after = made_up_result(shared, more), made_up_result(shared)
    main([write(before, tmp_path / "a"), write(after, tmp_path / "b")])
    assert "Only in A: gRPC 16 in flight." in capsys.readouterr().out


def searched(rate: float | None, low: float | None, high: float | None, p99_ms: float = 20.0) -> Result:
    search = Search("HTTP", p99_ms, rate, low, high, 0.75, 0.05, "no number, as it is made up", "by trying")
    runs = [made_up_run(load=Load("open", 100.0), number=number) for number in (1, 2, 3)]
    return made_up_result(*runs, search=search)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ((300, 290, 310), (400, 380, 420), "improvement"),
        ((300, 290, 310), (250, 240, 280), "regression"),
        ((300, 290, 310), (320, 305, 330), "within noise"),
        ((300, None, 310), (250, 240, 280), "within noise"),
        ((300, 290, None), (400, 380, 420), "within noise"),
    ],
)
def test_searches_are_compared_by_their_intervals(
    before: tuple[float, float | None, float | None], after: tuple[float, float | None, float | None], change: str
) -> None:
    (found,) = compare(searched(*before), searched(*after))
    assert found.subject == ("HTTP", "p99 within 20 ms", "rate held, requests/s")
    assert found.change == change


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (searched(300, 290, 310), searched(300, 290, 310, p99_ms=50.0), "HTTP within 20 ms, HTTP within 50 ms"),
        (searched(300, 290, 310), searched(None, None, 20), "B found no rate: no number, as it is made up"),
        (searched(300, 290, 310), made_up_sweep(rounds=1), "no protocol and load in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    before: Result, after: Result, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([write(before, tmp_path / "a"), write(after, tmp_path / "b")])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
