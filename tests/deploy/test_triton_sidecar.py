"""Triton, told what the overlay tells it: probed from outside the pod, asked from inside only."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.deploy.manifests import KUBERNETES, container, pod_of
from tests.repositories import write_model
from tests.triton import install
from tests.triton.launch import running

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SIDECAR = container(pod_of(KUBERNETES / "overlays" / "triton" / "deployment.yaml"), "triton")
CHOSEN_HERE = ("--model-repository=", "--http-port=", "--grpc-port=", "--metrics-port=")


def test_the_probes_port_is_open_and_the_others_are_not(tmp_path: Path) -> None:
    if reason := install.missing():
        pytest.skip(reason)
    write_model(tmp_path / "models")
    options = [flag for flag in SIDECAR["args"] if not flag.startswith(CHOSEN_HERE)]
    path = SIDECAR["startupProbe"]["httpGet"]["path"]
    with running(tmp_path / "models", options=options) as triton:
        # Another address of this machine: who is bound to 127.0.0.1 does not answer there.
        outside = triton.metrics.replace("127.0.0.1", "127.0.0.2").removesuffix("/metrics")
        with urllib.request.urlopen(outside + path, timeout=60) as answer:
            assert b"nv_inference" in answer.read()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(triton.http.replace("127.0.0.1", "127.0.0.2"), timeout=60)
