from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.service.launch import ROOT

GENERATED = ("classifier_pb2.py", "classifier_pb2.pyi", "classifier_pb2_grpc.py")


def test_the_stubs_are_those_of_the_contract(tmp_path: Path) -> None:
    """As `make proto` makes them."""
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-Iservice/pb=proto", *outputs]
    subprocess.run([*protoc, "service/pb/fovea/v1/classifier.proto"], cwd=ROOT, check=True)
    for name in GENERATED:
        made = (tmp_path / "service" / "pb" / "fovea" / "v1" / name).read_text()
        assert made == (ROOT / "service" / "pb" / "fovea" / "v1" / name).read_text(), "run make proto"


def test_nothing_else_lies_among_the_stubs() -> None:
    found = {path.name for path in (ROOT / "service" / "pb").rglob("*.py*") if "__pycache__" not in path.parts}
    assert found == {*GENERATED, "__init__.py"}
