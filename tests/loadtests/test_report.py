from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from loadtests.report.__main__ import main
from loadtests.report.result import read_result
from tests.repositories import picture, write_model


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the results go; a tiny model is served."""
    write_model(tmp_path / "models")
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.setenv("FOVEA_MAX_QUEUE_SIZE", "512")
    monkeypatch.delenv("FOVEA_LOADTEST_IMAGES", raising=False)
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_a_sweep_end_to_end(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--in-flight", "1", "4", "--duration-s", "0.2", "--rounds", "2"]) == 0

    (folder,) = results.iterdir()
    assert (folder / "report.html").read_text().count("<svg") >= 8
    assert (folder / "report.md").read_text() in capsys.readouterr().out
    result = read_result(folder)
    assert [(run.protocol, run.load.value, run.round) for run in result.runs] == [
        (protocol, in_flight, number) for protocol in ("HTTP", "gRPC") for in_flight in (1, 4) for number in (1, 2)
    ]
    for run in result.runs:
        assert run.failures == 0
        assert run.requests > 0
        assert run.images_per_s == pytest.approx(run.requests / run.duration_s)
        assert 0 < run.latency_ms[1.0] <= run.latency_ms[50.0] <= run.latency_ms[100.0]
        assert set(run.stage_ms) == {"decode", "queue", "batch_assembly", "inference", "postprocessing", "total"}
        assert sum(run.batch_sizes.values()) > 0
        assert 0 < run.generator_busy <= 1.01
        assert run.readings
        assert run.readings["duration_s"] > 0
        assert run.efficiency
        assert run.efficiency.service_cpu_us_per_image is not None
    environment = result.environment
    assert (environment.model, environment.model_version) == ("colours", "1")
    model = tmp_path / "models" / "colours" / "1" / "model.onnx"
    assert environment.model_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert environment.settings
    assert environment.settings["FOVEA_MAX_QUEUE_SIZE"] == "512"
    assert environment.execution_provider == "CPUExecutionProvider"


def test_requests_that_fail_are_told(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "0.jpg").write_bytes(picture("green"))
    (images / "1.jpg").write_bytes(b"no image")
    monkeypatch.setenv("FOVEA_LOADTEST_IMAGES", str(images))

    assert main(["--rates", "100", "--duration-s", "0.2", "--rounds", "1"]) == 1

    (folder,) = results.iterdir()
    for run in read_result(folder).runs:
        assert run.load.kind == "open"
        assert 0 < run.failures < run.requests
        assert all("not an image" in error for error in run.errors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--in-flight", "1.5"], "1.5 is not a whole number above 0"),
        (["--rates", "0"], "0 is not a number above 0"),
        (["--in-flight", "4", "--rates", "10"], "not allowed with"),
        (["--target", "http://127.0.0.1:1"], "go together"),
    ],
)
def test_arguments_that_are_none_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
