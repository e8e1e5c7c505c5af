from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

pytest.importorskip("mlperf_loadgen", reason="LoadGen is not installed (package mlcommons-loadgen)")

from loadtests.scenarios.__main__ import main
from loadtests.scenarios.run import Job, run_loadgen
from loadtests.scenarios.samples import find_samples
from loadtests.scenarios.settings import Demand, Protocol, Scenario
from loadtests.target import Target, started_service
from tests.repositories import picture, write_model

TINY = ["--min-duration-s", "0.5", "--min-query-count", "10", "--target-qps", "50", "--offline-qps", "50"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    models = tmp_path_factory.mktemp("models")
    write_model(models)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOVEA_MODEL_REPOSITORY", str(models))
        with started_service() as target:
            yield target


@pytest.fixture
def running(service: Target) -> list[str]:
    return ["--target", service.http, "--grpc", service.grpc, "--metrics", service.metrics]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures, in folders of their colours; one is in the wrong one."""
    for colour, count in (("red", 4), ("green", 3), ("blue", 3)):
        (tmp_path / "test" / colour).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "test" / colour / f"{number}.jpg").write_bytes(picture(colour, size=(16 + number, 16)))
    (tmp_path / "test" / "red" / "0.jpg").write_bytes(picture("blue"))
    return tmp_path / "test"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.system
@pytest.mark.parametrize("protocol", get_args(Protocol))
@pytest.mark.parametrize("scenario", get_args(Scenario))
def test_every_scenario_over_every_protocol(
    scenario: Scenario,
    protocol: Protocol,
    running: list[str],
    pictures: Path,
    results: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(pictures), "--scenario", scenario, "--protocol", protocol, *TINY, *running]) == 0

    (folder,) = results.iterdir()
    page = (folder / "scenarios.md").read_text()
    assert page in capsys.readouterr().out
    assert "colours version 1 (CPUExecutionProvider, " in page
    assert "- Not an MLPerf submission: at least 0.5 s a run (MLPerf: 600 s) and 10 queries" in page
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {scenario} "))
    _, _, _, verdict, metric, accuracy, queries, images, failed, in_flight, batch_size, _ = (
        cell.strip() for cell in row.split("|")
    )
    assert verdict in {"VALID", "INVALID"}
    assert metric != "–"
    assert accuracy == "0.9000 of 10"
    assert int(queries) * int(images) >= 10
    assert failed == "0"
    assert int(in_flight) >= 1
    assert float(batch_size) >= 1

    performance, answers = (folder / f"{scenario}-{protocol}-{mode}" for mode in ("performance", "accuracy"))
    assert f"Scenario : {scenario}" in (performance / "mlperf_log_summary.txt").read_text()
    for logs in (performance, answers):
        assert (logs / "mlperf_log_detail.txt").stat().st_size > 0
    asked = {entry["qsl_idx"] for entry in json.loads((answers / "mlperf_log_accuracy.json").read_text())}
    assert asked == set(range(10))


@pytest.mark.parametrize("protocol", get_args(Protocol))
def test_a_request_that_fails_is_no_answer(
    protocol: Protocol, running: list[str], pictures: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "red" / "1.jpg").write_bytes(b"no image")
    arguments = ["--scenario", "Offline", "--protocol", protocol, "--mode", "accuracy", "--images-per-request", "3"]
    assert main([str(pictures), *arguments, *running]) == 1
    (row, failure) = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith(("| Offline ", "- Offline over "))
    )
    assert " of 10 " not in row
    assert ", accuracy: 1 of 4 requests; the first: " in failure
    assert "not an image" in failure


def test_what_a_lone_image_lacks_is_said(
    running: list[str], pictures: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "red" / "1.jpg").write_bytes(b"no image")
    assert main([str(pictures), "--scenario", "SingleStream", "--mode", "accuracy", *running]) == 1
    output = capsys.readouterr().out
    assert "over HTTP, accuracy: 1 of 10 requests; the first: HTTP 400: " in output
    assert "over gRPC, accuracy: 1 of 10 requests; the first: INVALID_ARGUMENT: " in output


def test_without_a_folder_the_images_are_those_of_every_load_test(
    running: list[str],
    pictures: Path,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FOVEA_LOADTEST_IMAGES", str(pictures))
    assert main(["--scenario", "SingleStream", "--protocol", "grpc", *TINY, *running]) == 0
    assert "- Images: 10" in capsys.readouterr().out
    (folder,) = results.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["SingleStream-grpc-performance", "scenarios.md"]


def test_a_run_whose_process_ends_is_an_error(service: Target, tmp_path: Path) -> None:
    demand = Demand(0.5, 10, target_qps=50.0, p99_ms=15.0, offline_qps=50.0, images_per_request=8)
    job = Job("SingleStream", "grpc", "accuracy", demand, service, tmp_path / "nothing", tmp_path)
    with pytest.raises(SystemExit, match="ended before"):
        run_loadgen(job)


def test_samples_are_read_only_when_they_are_asked_for(pictures: Path) -> None:
    samples = find_samples(pictures)
    assert [sample.label for sample in samples] == ["blue"] * 3 + ["green"] * 3 + ["red"] * 4
    assert samples[0].read() == picture("blue", size=(16, 16))
    (pictures / "green" / "0.jpg").write_bytes(b"other")
    assert samples[3].read() == b"other"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "http://127.0.0.1:1"], "go together"),
        (["--mode", "accuracy"], "needs a folder"),
        (["--min-duration-s", "0"], "0 is not a number above 0"),
        (["--min-query-count", "-1"], "-1 is not a whole number above 0"),
        (["."], "holds no images"),
    ],
)
def test_arguments_that_cannot_be(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
