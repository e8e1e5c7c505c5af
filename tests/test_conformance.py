"""The conformance suite, put to Fovea."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.models import write_repository
from tests.service.launch import GRPC_TRANSPORT, ROOT, running

SUITE_TIMEOUT_S = 300
DEFLATE = "pygrpc-native 0.5.0 takes requests that are compressed by gzip, and by nothing else"
DIFFERS: dict[str, dict[str, str]] = {
    "grpcio": {},
    "native": {
        "core_grpc/compressed_message[1]": DEFLATE,
        "clients/method[grpc-infer]": DEFLATE,
        "clients/method[grpc.aio-infer]": DEFLATE,
    },
}
"""Clauses that do not hold, by transport."""


@pytest.mark.timeout(SUITE_TIMEOUT_S + 60)
def test_fovea_does_what_the_suite_says(tmp_path: Path) -> None:
    write_repository(tmp_path / "repository")
    table = tmp_path / "table.json"
    with running(
        tmp_path / "repository", model_control_mode="explicit", system_shared_memory=True, log_and_trace_changes=True
    ) as service:
        suite = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "tests/conformance", "-q", "--tb=short", "-p", "no:cacheprovider"),
                *("--http", service.http, "--grpc", service.grpc, "--table", str(table)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SUITE_TIMEOUT_S,
            check=False,
        )
    outcomes: dict[str, str] = json.loads(table.read_text())
    failed = {clause for clause, outcome in outcomes.items() if outcome == "failed"}
    assert failed == DIFFERS[GRPC_TRANSPORT].keys(), suite.stdout
    assert sum(outcome == "passed" for outcome in outcomes.values()) > 580
