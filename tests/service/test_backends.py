"""ONNX Runtime keeps a device id and a queue of reports below the home folder, unless it is told not to report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repositories import write_model


@pytest.mark.parametrize(
    "load",
    ["service.backends.onnx_runtime", "model.evaluate", "loadtests.inprocess"],
)
def test_onnx_runtime_reports_nothing(load: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "models") / "1" / "model.onnx"
    home = tmp_path / "home"
    home.mkdir()
    program = (
        f"import {load}, onnxruntime; onnxruntime.InferenceSession({str(path)!r}, providers=['CPUExecutionProvider'])"
    )
    inherited = {
        key: value for key, value in os.environ.items() if key not in {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    }
    subprocess.run([sys.executable, "-c", program], env=inherited | {"HOME": str(home)}, check=True)
    assert not [file for file in home.rglob("*") if "onnxruntime" in file.name]
