"""KServe's Python client, as it is, against Fovea."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from tests.conformance.models import write_classifier, write_identity
from tests.kserve.install import ENVIRONMENT
from tests.service.launch import ROOT, running

CIFAR10 = ROOT / "model_repository" / "cifar10"
CLIENT_TIMEOUT_S = 120

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The client's answers over each protocol."""
    if reason := ENVIRONMENT.missing():
        pytest.skip(reason)
    repository = tmp_path_factory.mktemp("kserve")
    shutil.copytree(CIFAR10, repository / "cifar10")
    write_identity(repository, "identity_fp32", "FP32", (-1,))
    write_identity(repository, "identity_uint8", "UINT8", (-1,))
    write_identity(repository, "identity_bytes", "BYTES", (1,))
    write_classifier(repository)
    with running(repository) as service:
        client = [str(ENVIRONMENT.program("python")), str(ROOT / "tests" / "kserve" / "client.py")]
        result = subprocess.run(
            [*client, service.http, service.grpc, str(CIFAR10 / "1" / "golden.jpg")],
            capture_output=True,
            text=True,
            timeout=CLIENT_TIMEOUT_S,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(params=["http", "grpc"])
def answers(both: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    return both[request.param]


def test_health(answers: dict[str, Any]) -> None:
    assert answers["live"] is True
    assert answers["ready"] is True
    assert answers["models"] == {"cifar10": True, "unknown": False}


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("datatype", "shape", "values"),
    [
        ("FP32", [2, 2], np.array([1.5, -2.25, 3e-8, 1e30], np.float32).tolist()),
        ("UINT8", [2, 2], [0, 1, 254, 255]),
        ("BYTES", [2, 1], ["lynx", "\N{TIGER} and puma"]),
    ],
)
def test_a_tensor_comes_back_as_it_went(
    answers: dict[str, Any], datatype: str, shape: list[int], values: list[object], binary: bool
) -> None:
    assert answers[f"{datatype} {binary=}"] == {
        "id": "7",
        "model": f"identity_{datatype.lower()}",
        "name": "OUTPUT0",
        "datatype": datatype,
        "shape": shape,
        "values": values,
    }


def test_the_bundled_model_takes_an_image(answers: dict[str, Any]) -> None:
    golden = np.load(CIFAR10 / "1" / "golden.npz")
    answer = answers["image"]
    assert (answer["name"], answer["datatype"], answer["shape"]) == ("logits", "FP32", [1, 10])
    np.testing.assert_allclose(answer["values"], golden["logits"], rtol=0, atol=golden["logit_tolerance"])


def test_classes(answers: dict[str, Any]) -> None:
    labels = (CIFAR10 / "labels.txt").read_text().split()
    best = sorted(range(10), key=lambda index: -answers["image"]["values"][index])[:3]
    classes = [value.split(":") for value in answers["image's classes"]["values"]]
    assert [(int(index), label) for _, index, label in classes] == [(index, labels[index]) for index in best]
    # Version 2 of this model, the one that serves who names none, doubles the scores.
    assert answers["scores' classes"]["values"] == ["8.000000:1:tiger", "4.000000:3:puma"]


@pytest.mark.parametrize(
    ("case", "status", "message"),
    [
        ("unknown model", (404, "NOT_FOUND"), "Request for unknown model: 'unknown' is not found"),
        ("wrong shape", (400, "INVALID_ARGUMENT"), "Expected [-1,4], got [1,3]"),
        ("wrong datatype", (400, "INVALID_ARGUMENT"), "data-type is 'UINT8', but model 'classifier' expects 'FP32'"),
        ("no image", (400, "INVALID_ARGUMENT"), "image 1 of 1: not an image"),
    ],
)
def test_an_error_is_the_clients_own(both: dict[str, Any], case: str, status: tuple[int, str], message: str) -> None:
    for protocol, exception, code in zip(("http", "grpc"), ("HTTPStatusError", "AioRpcError"), status, strict=True):
        error = both[protocol][case]
        assert (error["raised"], error["status"]) == (exception, code)
        assert message in error["message"]
