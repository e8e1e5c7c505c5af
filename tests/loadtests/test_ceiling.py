from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from loadtests.ceiling import main
from loadtests.ceiling_table import Round, ceiling_table
from loadtests.h2load import Counts, parse_h2load, require_h2load
from tests.repositories import picture, write_model

OUTPUT = """\
finished in 2.01s, 1238.00 req/s, 546.07KB/s
requests: 2476 total, 2540 started, 2476 done, 2470 succeeded, 3 failed, 2 errored, 1 timeout
status codes: 2470 2xx, 0 3xx, 0 4xx, 6 5xx
"""


def test_ratios_are_of_the_same_round_and_its_better_batch_size() -> None:
    rounds = [
        Round({1: 1000.0, 8: 500.0}, {"gRPC": 900.0}),
        Round({1: 1000.0, 8: 2000.0}, {"gRPC": 1000.0}),
        Round({1: 1000.0, 8: 1250.0}, {"gRPC": 1000.0}),
    ]
    lines = ceiling_table(rounds, {"Served": "colours"}).splitlines()
    assert "- Served: colours" in lines
    assert "| ONNX Runtime alone, batch size 8 | 1,250 | 500 – 2,000 | | |" in lines
    assert "| gRPC | 1,000 | 900 – 1,000 | 80.0% | 50.0% – 90.0% |" in lines


def test_h2load_counts() -> None:
    assert parse_h2load(OUTPUT) == Counts(succeeded=2470, failed=6)


def test_absent_h2load_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="nghttp2-client"):
        require_h2load()


@pytest.mark.system
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed (package nghttp2-client)")
def test_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "models")
    (tmp_path / "green.jpg").write_bytes(picture("green"))
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")

    assert main(["--rounds", "1", "--duration-s", "2", "--image", str(tmp_path / "green.jpg")]) == 0

    (table,) = (tmp_path / "results").glob("*/ceiling.md")
    assert table.read_text() in capsys.readouterr().out
    assert "- Failures: 0" in table.read_text()
    for row in ("batch size 1", "batch size 8", "HTTP/1.1", "gRPC"):
        assert f"{row} | 0 |" not in table.read_text()
        assert f"{row} | " in table.read_text()
