from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc  # type: ignore[import-untyped]

from tests.service.compatibility import baseline, breaks, live
from tests.service.launch import ROOT

CONTRACT = (ROOT / "proto" / "fovea" / "v1" / "classifier.proto").read_text()
GENERATED = ("classifier_pb2.py", "classifier_pb2.pyi", "classifier_pb2_grpc.py")


def test_the_stubs_are_those_of_the_contract(tmp_path: Path) -> None:
    """As `make proto` makes them."""
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iservice/pb=proto", *outputs]
    subprocess.run([*command, "service/pb/fovea/v1/classifier.proto"], cwd=ROOT, check=True)
    for name in GENERATED:
        made = (tmp_path / "service" / "pb" / "fovea" / "v1" / name).read_text()
        assert made == (ROOT / "service" / "pb" / "fovea" / "v1" / name).read_text(), "run make proto"


def test_nothing_else_lies_among_the_stubs() -> None:
    found = {path.name for path in (ROOT / "service" / "pb").rglob("*.py*") if "__pycache__" not in path.parts}
    assert found == {*GENERATED, "__init__.py"}


def test_callers_miss_nothing() -> None:
    assert [*breaks(baseline(), live())] == []


def compiled(contract: str, folder: Path) -> FileDescriptorProto:
    (folder / "altered.proto").write_text(contract)
    assert protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={folder / 'set'}", "altered.proto"]) == 0
    (file,) = FileDescriptorSet.FromString((folder / "set").read_bytes()).file
    return file


def altered(edits: dict[str, str], folder: Path) -> FileDescriptorProto:
    """The contract with each of these texts replaced."""
    contract = CONTRACT
    for old, new in edits.items():
        assert old in contract
        contract = contract.replace(old, new)
    return compiled(contract, folder)


@pytest.mark.parametrize(
    "edits",
    [
        {},
        {"syntax = ": "// More to say.\nsyntax = "},
        {"uint32 top_k = 4;": "uint32 top_k = 4;\n  bool mirrored = 6;"},
        {"message Error {": "message Box {}\n\nmessage Error {"},
        {"// Why this image has no classification.": "string later = 3;"},
        {"MODEL_STATE_UNAVAILABLE = 3;": "MODEL_STATE_UNAVAILABLE = 3;\n  MODEL_STATE_UNLOADED = 4;"},
        {"  rpc GetModel(": "  rpc Explain(ClassifyRequest) returns (ClassifyResponse);\n  rpc GetModel("},
        {"service Classifier {": "service Trainer {}\n\nservice Classifier {"},
    ],
)
def test_additions_break_nothing(tmp_path: Path, edits: dict[str, str]) -> None:
    assert [*breaks(baseline(), altered(edits, tmp_path))] == []


@pytest.mark.parametrize(
    ("edits", "sentences"),
    [
        ({"package fovea.v1;": "package fovea.v2;"}, ["package fovea.v1 is fovea.v2 now"]),
        ({"service Classifier {": "service Classifiers {"}, ["service fovea.v1.Classifier is gone"]),
        (
            {"  rpc GetModel(GetModelRequest) returns (GetModelResponse);": ""},
            ["rpc fovea.v1.Classifier.GetModel is gone"],
        ),
        (
            {"GetModel(GetModelRequest)": "GetModel(Model)"},
            ["rpc fovea.v1.Classifier.GetModel takes fovea.v1.Model now, was fovea.v1.GetModelRequest"],
        ),
        (
            {"returns (GetModelResponse)": "returns (stream GetModelResponse)"},
            [
                "rpc fovea.v1.Classifier.GetModel returns stream fovea.v1.GetModelResponse now, "
                "was fovea.v1.GetModelResponse"
            ],
        ),
        (
            {"(stream ClassifyRequest)": "(ClassifyRequest)"},
            [
                "rpc fovea.v1.Classifier.ClassifyStream takes fovea.v1.ClassifyRequest now, "
                "was stream fovea.v1.ClassifyRequest"
            ],
        ),
        (
            {"Timings": "Times"},
            [
                "field fovea.v1.Classification.timings = 2 has type fovea.v1.Times now, was fovea.v1.Timings",
                "message fovea.v1.Timings is gone",
            ],
        ),
        ({"  uint32 top_k = 4;\n": ""}, ["field fovea.v1.ClassifyRequest.top_k = 4 is gone"]),
        ({"uint32 top_k = 4;": "reserved 4;"}, ["field fovea.v1.ClassifyRequest.top_k = 4 is gone"]),
        ({"top_k = 4;": "top_k = 6;"}, ["field fovea.v1.ClassifyRequest.top_k has number 6 now, was 4"]),
        ({"top_k = 4;": "best = 4;"}, ["field fovea.v1.ClassifyRequest.top_k = 4 has name best now, was top_k"]),
        (
            {"uint32 top_k": "sint32 top_k"},
            ["field fovea.v1.ClassifyRequest.top_k = 4 has type sint32 now, was uint32"],
        ),
        (
            {"uint32 top_k": "repeated uint32 top_k"},
            ["field fovea.v1.ClassifyRequest.top_k = 4 has label repeated now, was single"],
        ),
        (
            {"uint32 top_k": "optional uint32 top_k"},
            ["field fovea.v1.ClassifyRequest.top_k = 4 has label optional now, was single"],
        ),
        (
            {"uint32 top_k = 4;": "oneof how_many { uint32 top_k = 4; }"},
            ["field fovea.v1.ClassifyRequest.top_k = 4 has oneof how_many now, was none"],
        ),
        ({"  MODEL_STATE_LOADING = 1;\n": ""}, ["value fovea.v1.ModelState.MODEL_STATE_LOADING = 1 is gone"]),
        (
            {"MODEL_STATE_LOADING = 1": "MODEL_STATE_LOADING = 7"},
            ["value fovea.v1.ModelState.MODEL_STATE_LOADING has number 7 now, was 1"],
        ),
        (
            {"MODEL_STATE_LOADING": "MODEL_STATE_OPENING"},
            ["value fovea.v1.ModelState.MODEL_STATE_LOADING = 1 has name MODEL_STATE_OPENING now"],
        ),
        (
            {"enum ModelState": "enum State", "ModelState state": "State state"},
            [
                "field fovea.v1.ModelVersion.state = 2 has type fovea.v1.State now, was fovea.v1.ModelState",
                "enum fovea.v1.ModelState is gone",
            ],
        ),
    ],
)
def test_what_callers_would_miss_is_named(tmp_path: Path, edits: dict[str, str], sentences: list[str]) -> None:
    assert [*breaks(baseline(), altered(edits, tmp_path))] == sentences


def test_types_within_messages_count_too(tmp_path: Path) -> None:
    contract = 'syntax = "proto3"; package p; message Outer { message Inner { bool a = 1; } enum Kind { NONE = 0; } }'
    before = compiled(contract, tmp_path)
    assert [*breaks(before, compiled(contract.replace("bool a = 1;", ""), tmp_path))] == [
        "field p.Outer.Inner.a = 1 is gone"
    ]
    assert [*breaks(before, compiled(contract.replace("Kind", "Sort"), tmp_path))] == ["enum p.Outer.Kind is gone"]
