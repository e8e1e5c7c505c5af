from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from loadtests.inprocess import Arrangement
from loadtests.peers import __main__ as command
from loadtests.peers.__main__ import PEERS, main
from loadtests.peers.environment import pinned_version
from loadtests.peers.figures import Figures
from loadtests.peers.peer import Peer
from loadtests.peers.result import Ceiling, Measurement, NotMeasured, Outcome, Result, Start, Subject
from loadtests.peers.table import page


def measured(number: int, peer: str, connections: int, requests_per_s: float, wire: str = "HTTP") -> Measurement:
    return Measurement(
        Subject("tiny", number, peer, wire),
        connections,
        requests_per_s,
        failed=0,
        p50_ms=1.5,
        p99_ms=2.5,
        server_cpu_us=100.0,
        generator_busy=0.25,
    )


OUTCOMES: list[Outcome] = [
    Ceiling("tiny", 1, 2, 1, 1000.0),
    Ceiling("tiny", 1, 3, 8, 4000.0),
    Ceiling("tiny", 2, 2, 1, 5000.0),
    Ceiling("tiny", 2, 3, 8, 3000.0),
    Ceiling("tiny", 3, 2, 1, 1000.0),
    Ceiling("tiny", 3, 3, 8, 2000.0),
    measured(1, "mosec", 64, 500.0),
    measured(1, "Fovea", 64, 1000.0),
    measured(2, "Fovea", 64, 2700.0),
    measured(2, "mosec", 64, 900.0),
    measured(3, "Fovea", 64, 1200.0),
    measured(3, "Fovea", 1, 100.0),
    measured(1, "Fovea", 64, 800.0, "gRPC"),
    measured(1, "Fovea native", 64, 1600.0, "gRPC"),
    measured(1, "Triton", 64, 400.0, "gRPC"),
    Start(Subject("tiny", 1, "Fovea", "HTTP"), 0.5, 150_000_000),
    Start(Subject("tiny", 2, "Fovea", "HTTP"), 0.75, 160_000_000),
    NotMeasured(Subject("tiny", 3, "mosec", "HTTP"), "it ended with SIGSEGV: no log"),
    NotMeasured(Subject("tiny", 0, "LitServe", "HTTP"), "no environment: no such version"),
]
PEERS_IN_WORDS = dict.fromkeys(("Fovea", "Fovea native", "Triton", "mosec", "LitServe"), "as it says")
RESULT = Result.of(OUTCOMES, {"Rounds": "3"}, PEERS_IN_WORDS)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "peers.json")
    assert Result.read(tmp_path / "peers.json") == RESULT


def test_the_ceiling_is_the_arrangement_that_is_best_in_the_median() -> None:
    figures = Figures(RESULT, "tiny")
    assert figures.ceiling == Arrangement(sessions=3, batch_size=8)


def test_shares_and_ratios_are_of_rates_of_the_same_round() -> None:
    figures = Figures(RESULT, "tiny")
    share = figures.best_share(("Fovea", "HTTP"))
    assert share is not None
    assert (share.least, share.median, share.most) == (0.25, 0.6, 0.9)
    ratio = figures.ratio(("Fovea", "HTTP"), ("mosec", "HTTP"), 64)
    assert ratio is not None
    assert (ratio.least, ratio.most, ratio.rounds) == (2.0, 3.0, 2)
    assert figures.ratio(("Fovea", "HTTP"), ("mosec", "HTTP"), 1) is None


def test_a_server_that_answered_nothing_has_no_ratio() -> None:
    silent = [measured(1, "Fovea", 64, 500.0), replace(measured(1, "mosec", 64, 0.0), p50_ms=None, server_cpu_us=None)]
    result = Result.of([*OUTCOMES[:2], *silent], {}, RESULT.peers)
    assert Figures(result, "tiny").ratio(("Fovea", "HTTP"), ("mosec", "HTTP"), 64) is None
    assert "| mosec, HTTP | 0 | 0 |" in page(result)
    assert "| mosec, HTTP | – |" in page(result)


def test_the_page() -> None:
    lines = page(RESULT).splitlines()
    for line in (
        "- Rounds: 3",
        "- mosec: as it says",
        "| Requests per second | 1 connection | 64 connections |",
        "| Fovea / mosec, HTTP | – | 2.50 (2.00 – 3.00) |",
        "| Fovea / Triton, gRPC | – | 2.00 |",
        "| Fovea native / Triton, gRPC | – | 4.00 |",
        "| Fovea, HTTP | 100 | 1,200 (1,000 – 2,700) | 0.600 (0.250 – 0.900) |",
        "| Fovea, gRPC | – | 800 | 0.200 |",
        "| 3 sessions of one thread, batch size 8: the ceiling | 3,000 (2,000 – 4,000) |",
        "| Fovea, HTTP | 0.625 (0.500 – 0.750) | 155 (150 – 160) | 0 | 0.250 |",
        "- mosec, HTTP, tiny, round 3: it ended with SIGSEGV: no log",
        "- LitServe, HTTP, tiny, every round: no environment: no such version",
    ):
        assert line in lines, line


@pytest.mark.parametrize(("peer", "exit_code"), [("Fovea", 1), ("Fovea native", 1), ("Fovea fronts", 1), ("Triton", 0)])
@pytest.mark.parametrize("measured_at_all", [True, False])
def test_a_failure_of_any_of_our_servers_shows_in_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: str, exit_code: int, measured_at_all: bool
) -> None:
    lost = NotMeasured(Subject("tiny", 1, peer, "gRPC"), "it ended")
    outcome = replace(measured(1, peer, 64, 100.0, "gRPC"), failed=1) if measured_at_all else lost
    for name, found in (
        ("require_h2load", None), ("opened_model", nullcontext()), ("new_results_folder", tmp_path),
        ("describe", {}), ("describe_peer", ""), ("measure", [*OUTCOMES[:2], outcome]),
    ):  # fmt: skip
        monkeypatch.setattr(command, name, lambda *_, found=found, **__: found)
    assert main(["--peers", peer.lower().replace(" ", "-")]) == exit_code


def test_the_json_holds_everything(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "peers.json")
    written = json.loads((tmp_path / "peers.json").read_text())
    assert len(written["measurements"]) == 9
    assert written["measurements"][0]["subject"] == {"model": "tiny", "round": 1, "peer": "mosec", "wire": "HTTP"}
    assert written["not_measured"][0]["reason"] == "it ended with SIGSEGV: no log"
    assert written["starts"][0]["pss_bytes"] == 150_000_000


@pytest.mark.parametrize("peer", [peer for peer in PEERS.values() if peer.requirements], ids=lambda peer: peer.name)
def test_every_peer_runs_the_same_onnx_runtime_as_fovea(peer: Peer) -> None:
    assert peer.requirements
    assert pinned_version(peer.requirements, "onnxruntime") == version("onnxruntime")
    assert pinned_version(peer.requirements, peer.package)


def test_an_unknown_model_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.peers.__main__.require_h2load", lambda: None)
    with pytest.raises(SystemExit):
        main(["--models", "nosuch"])
    assert "nosuch" in capsys.readouterr().err
