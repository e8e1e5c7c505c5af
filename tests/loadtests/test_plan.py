"""The command line from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.machine import cores
from loadtests.plan.__main__ import main
from loadtests.plan.curve import Curve, Point, read_curve
from tests.repositories import picture, write_model


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def curve(tmp_path: Path) -> str:
    points = (Point(batch_size=1, median_ms=3, likely_ms=(2.5, 3, 4)), Point(batch_size=8, median_ms=20))
    path = tmp_path / "curve.json"
    path.write_text(Curve(model="colours", max_batch_size=8, instances=2, cores=2, points=points).model_dump_json())
    return str(path)


def test_a_plan(results: Path, curve: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "--curve", curve, "--rate", "2000", "--p99-ms", "40", "--price-per-hour", "0.5"]
    assert main([*arguments, "--requests", "2000", "--seeds", "2"]) == 0

    (folder,) = results.iterdir()
    page = (folder / "plan.md").read_text()
    assert page in capsys.readouterr().out
    found = json.loads((folder / "plan.json").read_text())
    answer = found["answer"]
    assert f"**{answer['replicas']} replicas** on {answer['replicas']} machines, {2 * answer['replicas']} cores" in page
    assert answer["per_hour"] == 0.5 * answer["replicas"]
    assert answer["with_headroom"]["rate_per_s"] == pytest.approx(2400)
    assert answer["with_headroom"]["p99_ms"]["high"] <= 40
    few, same, many = found["others"]
    assert [few["factor"], same["factor"], many["factor"]] == [0.5, 1, 2]
    assert few["replicas"] < same["replicas"] < many["replicas"]
    assert same["replicas"] == answer["replicas"]


def test_a_plan_for_a_trace_with_other_settings_of_the_batcher(
    results: Path, curve: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("".join(f"{number / 100}\n" for number in range(300)))
    arguments = ["plan", "--curve", curve, "--trace", str(trace), "--p99-ms", "50", "--seeds", "1"]
    settings = ["--max-batch-size", "4", "--queue-delay-ms", "2", "--max-queue-size", "64", "--instances", "1"]
    assert main([*arguments, *settings, "--balancer", "least-outstanding", "--images", "3", "--tensors"]) == 0
    printed = capsys.readouterr().out
    assert "measured with 2 instances" in printed
    assert "1 instances, 2 cores, max batch size 4, queue delay 2 ms, max queue size 64" in printed
    assert "a trace of 300 arrivals, each with 3 images in one tensor" in printed
    assert "least-outstanding: " in printed


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--p99-ms", "1"], "hardly loaded"),
        (["--p99-ms", "40", "--max-batch-size", "16"], "the curve ends at 8"),
        (["--p99-ms", "40", "--images", "9", "--tensors"], "tensor of 9 images"),
    ],
)
def test_what_cannot_be_planned_is_an_error(results: Path, curve: str, arguments: list[str], what: str) -> None:
    with pytest.raises(SystemExit, match=f"error: .*{what}"):
        main(["plan", "--curve", curve, "--rate", "10", "--requests", "500", "--seeds", "1", *arguments])
    assert not results.exists()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "COMMAND"),
        (["plan", "--curve", "curve.json", "--p99-ms", "1"], "--rate --trace"),
        (["plan", "--curve", "curve.json", "--rate", "0", "--p99-ms", "1"], "0 is not a number above 0"),
        (
            ["plan", "--curve", "curve.json", "--rate", "1", "--p99-ms", "1", "--headroom", "-1"],
            "-1 is not a number from 0 on",
        ),
    ],
)
def test_wrong_arguments(arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert what in capsys.readouterr().err


def test_a_curve_from_a_file_with_a_front_given_as_a_number(
    curve: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "other.json"
    assert main(["curve", "--from", curve, "--front-ms", "0.75", "--output", str(output)]) == 0
    written = read_curve(output)
    assert written.points == read_curve(Path(curve)).points
    assert written.front.request_ms == 0.75
    assert "| 8 | 20.000 | " in capsys.readouterr().out


@pytest.mark.system
def test_a_curve_is_measured_and_held_against_the_service(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(
        tmp_path / "models",
        max_batch_size=6,
        slow_rounds=1,
        extra="dynamic_batching { max_queue_delay_microseconds: 500 default_queue_policy { max_queue_size: 99 } } "
        "instance_group [ { count: 1 } ]",
    )
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    # Too large to be decoded on the event loop.
    (tmp_path / "red.jpg").write_bytes(picture("red", size=(300, 200)))
    image = ["--image", str(tmp_path / "red.jpg")]
    path = tmp_path / "curve.json"
    assert main(["curve", "--repeats", "2", "--front-requests", "20", *image, "--output", str(path)]) == 0
    curve = read_curve(path)
    assert curve.model == "colours version 1"
    assert [point.batch_size for point in curve.points] == [1, 2, 4, 6]
    assert all(point.median_ms > 0 and len(point.likely_ms) == 50 for point in curve.points)
    assert (curve.instances, curve.padded, curve.max_batch_size) == (1, False, 6)
    assert (curve.max_queue_size, curve.max_queue_delay_ms) == (99, 0.5)
    assert curve.front.decode_ms > 0
    assert curve.front.decode_threads == cores()
    assert "32 requests" in curve.front.source
    assert not results.exists()

    # A slower one, so that few requests are sent.
    slow = tuple(point.model_copy(update={"median_ms": 100.0, "likely_ms": ()}) for point in curve.points)
    path.write_text(curve.model_copy(update={"points": slow}).model_dump_json())
    assert main(["validate", "--curve", str(path), "--duration-s", "0.4", "--seeds", "2", *image]) == 0
    (folder,) = results.iterdir()
    page = (folder / "validation.md").read_text()
    assert page in capsys.readouterr().out
    found = json.loads((folder / "validation.json").read_text())
    assert [load["fraction"] for load in found["loads"]] == [0.3, 0.5, 0.7, 0.85, 0.95]
    for load in found["loads"]:
        assert load["client_ms"] > 0
        assert load["measured"]["failed"] == 0
        assert load["ratios"]["p99 ms"] == pytest.approx(
            load["measured"]["p99_ms"] / load["predicted"]["p99_ms"]["median"]
        )
