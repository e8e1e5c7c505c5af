from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from loadtests import ceiling
from loadtests.ceiling import main
from loadtests.ceiling_table import Round, Served, ceiling_table
from loadtests.h2load import Counts, Load, parse_h2load, require_h2load
from loadtests.inprocess import Arrangement
from loadtests.metrics import parse_metrics
from loadtests.target import Target
from tests.repositories import picture, write_model

OUTPUT = """\
finished in 2.01s, 1238.00 req/s, 546.07KB/s
requests: 2476 total, 2540 started, 2476 done, 2470 succeeded, 3 failed, 2 errored, 1 timeout
status codes: 2470 2xx, 0 3xx, 0 4xx, 6 5xx
"""


ONE, EIGHT = Arrangement(2, 1), Arrangement(2, 8)


def found(alone: float, decoding: float, served: float, *, bare_us: float = 100.0, decode_us: float | None) -> Round:
    return Round(
        {ONE: alone, EIGHT: alone / 2},
        {ONE: decoding / 2, EIGHT: decoding},
        bare_us,
        {"gRPC": Served(served, 0, decode_us)},
    )


def test_ratios_are_of_the_same_round_and_its_best_arrangement() -> None:
    rounds = [
        found(1000.0, 900.0, 900.0, decode_us=105.0),
        found(2000.0, 1250.0, 1000.0, bare_us=200.0, decode_us=240.0),
        found(1250.0, 2000.0, 1000.0, decode_us=110.0),
    ]
    lines = ceiling_table(rounds, {"Served": "colours"}).splitlines()
    assert "- Served: colours" in lines
    assert (
        "| ONNX Runtime, 2 sessions, batch size 8, decoding too | 1,250 (900 – 2,000) | 0.900 (0.625 – 1.60) "
        "| 1.00 (1.00 – 1.00) |" in lines
    )
    assert "| Fovea, gRPC | 1,000 (900 – 1,000) | 0.800 (0.500 – 0.900) | 0.800 (0.500 – 1.00) |" in lines
    assert "| the decoder in a bare loop | 100 (100 – 200) | |" in lines
    assert "| Fovea, gRPC | 110 (105 – 240) | 1.10 (1.05 – 1.20) |" in lines


def test_what_decoded_nothing_has_no_time() -> None:
    assert "| Fovea, gRPC | – | – |" in ceiling_table([found(1.0, 1.0, 0.0, decode_us=None)], {}).splitlines()


def test_h2load_counts() -> None:
    assert parse_h2load(OUTPUT) == Counts(succeeded=2470, failed=6)


def test_absent_h2load_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="nghttp2-client"):
        require_h2load()


def test_calls_that_failed_are_no_part_of_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered_us = np.arange(0, 2_000_000, 1000)
    load = Load(Counts(2000, 1), 0, answered_us, answered_us, 0.0)
    pages = [f'fovea_requests_total{{protocol="grpc",code="OK"}} {count}\n' for count in (7, 507)]
    metrics = map(parse_metrics, pages)
    monkeypatch.setattr(ceiling, "time_h2load", lambda *_: load)
    monkeypatch.setattr(ceiling, "read_metrics", lambda _: next(metrics))
    found = ceiling._grpc(Target("", "", ""), tmp_path, 2)
    assert found.images_per_s == pytest.approx(250)
    assert found.failed == 1501


@pytest.mark.system
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed (package nghttp2-client)")
@pytest.mark.parametrize("sent", [["--image", "green.jpg", "--model", "colours"], ["--size", "500x375"]])
def test_a_round(
    sent: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "models")
    (tmp_path / "green.jpg").write_bytes(picture("green"))
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    monkeypatch.chdir(tmp_path)

    assert main(["--rounds", "1", "--duration-s", "2", *sent]) == 0

    (table,) = (tmp_path / "results").glob("*/ceiling.md")
    assert table.read_text() in capsys.readouterr().out
    assert "- Failures: 0" in table.read_text()
    rows = ["batch size 1, already decoded", "batch size 8, decoding too", "bare loop", "HTTP/1.1", "gRPC"]
    for row in [*rows, "one request at a time"]:
        assert f"{row} | 0 |" not in table.read_text()
        assert f"{row} | – |" not in table.read_text()
        assert f"{row} | " in table.read_text()
