"""Real servers under real loads, as short as can be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as oip

from loadtests.h2load import connections, grpc_frame, time_h2load
from loadtests.peers.__main__ import PEERS, main
from loadtests.peers.environment import EnvironmentMissingError, environment
from tests.repositories import write_model
from tests.service.launch import running

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed (package nghttp2-client)"),
]

ONE_ROUND = ["--rounds", "1", "--duration-s", "1", "--connections", "1", "4"]


def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: str, model: str) -> dict[str, Any]:
    """The one result of a peer, with exit code 0."""
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    assert main(["--peers", peer, "--models", model, *ONE_ROUND]) == 0
    (file,) = (tmp_path / "results").glob("*/peers.json")
    assert "cold start" in file.with_suffix(".md").read_text()
    result: dict[str, Any] = json.loads(file.read_text())
    return result


def test_fovea_and_the_ceiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "models")
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    result = measured(tmp_path, monkeypatch, "fovea", "colours")
    assert result["not_measured"] == []
    assert {(each["subject"]["wire"], each["connections"]) for each in result["measurements"]} == {
        ("HTTP", 1), ("HTTP", 4), ("gRPC", 1), ("gRPC", 4),
    }  # fmt: skip
    for each in result["measurements"]:
        assert each["requests_per_s"] > 0
        assert each["failed"] == 0
        assert 0 < each["p50_ms"] <= each["p99_ms"]
        assert each["server_cpu_us"] > 0
    assert all(each["images_per_s"] > 0 for each in result["ceilings"])
    assert all(each["cold_start_s"] > 0 and each["pss_bytes"] > 2**20 for each in result["starts"])


def test_grpc_calls_that_fail_have_status_200_and_no_message(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    (tmp_path / "body").write_bytes(grpc_frame(oip.ModelInferRequest(model_name="other").SerializeToString()))
    headers = {"content-type": "application/grpc", "te": "trailers"}
    with running(tmp_path / "models") as service:
        url = f"http://{service.grpc}/inference.GRPCInferenceService/ModelInfer"
        load = time_h2load(connections(2, http1=False), url, tmp_path / "body", headers, 0.5)
    assert load.counts.succeeded == len(load.latencies_us) > 0
    assert load.body_bytes == 0


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.requirements])
def test_a_peer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = PEERS[name]
    assert peer.requirements
    try:
        environment(peer.requirements)
    except EnvironmentMissingError as error:
        pytest.skip(f"{peer.name} cannot be installed: {error}")
    result = measured(tmp_path, monkeypatch, name, "tiny")
    # Triton's gRPC front ends now and then when connections break off, as h2load's do at the end; the result says so.
    assert all("it ended with SIG" in each["reason"] for each in result["not_measured"])
    wires = {each["subject"]["wire"] for each in (*result["measurements"], *result["not_measured"])}
    assert wires == {protocol.wire for protocol in peer.protocols}
    assert all(each["requests_per_s"] > 0 and each["failed"] == 0 for each in result["measurements"])


def test_an_environment_that_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mosec.txt").write_text("no requirement\n")
    monkeypatch.setattr("loadtests.peers.environment.REQUIREMENTS", tmp_path)
    monkeypatch.setattr("loadtests.peers.environment.FOLDER", tmp_path / "environments")
    with pytest.raises(EnvironmentMissingError, match="Invalid requirement: 'no requirement'"):
        environment("mosec")
