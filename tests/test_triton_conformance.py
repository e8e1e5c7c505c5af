"""The conformance suite, put to the server whose protocol it is.

What is a clause here must be what Triton does; where Triton does not do what its own documents say, DIFFERS has why.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.models import write_repository
from tests.triton import install
from tests.triton.launch import running

ROOT = Path(__file__).resolve().parent.parent
SUITE_TIMEOUT_S = 1500
PARSER = "Triton's JSON parser answers 500 for requests that are malformed"
DIFFERS = {
    "errors/malformed_request_is_the_clients_fault[{nothing]": PARSER,
    "errors/malformed_request_is_the_clients_fault[{}]": PARSER,
    'errors/malformed_request_is_the_clients_fault[{"inputs": {}}]': PARSER,
    "errors/data_that_the_datatype_cannot_hold[UINT8 above]": "Triton lets integers wrap around",
    "binary_tensors/listed_outputs_are_as_the_whole_request_says": (
        "Triton passes over binary_data_output where outputs are listed"
    ),
    "core_grpc/more_raw_contents_than_inputs_are_refused": "Triton passes over the rest",
    "parameters/own_parameter_over_grpc[uint64_param-1]": "Triton 24.10 knows uint64_param for priority only",
    "statistics/a_failed_inference_counts_as_failed": "a backend written in Python reports such a request as a success",
}
NOT_PUT = {
    "test_classification.py::test_classes_of_bytes_are_refused": "Triton 24.10 ends with a segmentation fault",
    "test_shared_memory.py::test_an_offset_of_the_region": "Triton adds the offset twice and reads what is beyond",
}
"""What would end Triton, or might."""


@pytest.mark.system
@pytest.mark.timeout(SUITE_TIMEOUT_S + 300)
def test_triton_does_what_the_suite_says(tmp_path: Path) -> None:
    if reason := install.missing():
        pytest.skip(reason)
    write_repository(tmp_path / "repository")
    with running(tmp_path / "repository", explicit_control=True) as triton:
        suite = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "tests/conformance", "-q", "--tb=short", "-p", "no:cacheprovider"),
                *("--http", triton.http, "--grpc", triton.grpc, "--table", str(tmp_path / "table.json")),
                *(f"--deselect=tests/conformance/{clause}" for clause in NOT_PUT),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SUITE_TIMEOUT_S,
            check=False,
        )
    outcomes: dict[str, str] = json.loads((tmp_path / "table.json").read_text())
    failed = {clause for clause, outcome in outcomes.items() if outcome == "failed"}
    assert failed == DIFFERS.keys(), suite.stdout
    assert "passed" in outcomes.values()
