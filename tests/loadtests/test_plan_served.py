from __future__ import annotations

from pathlib import Path

from loadtests.plan.served import read_served
from loadtests.target import Target
from service.backends.onnx_runtime import ROWS_AT_ONCE
from tests.repositories import write_model
from tests.service.launch import running


def test_batches_are_as_large_as_the_batchers_and_not_as_the_config_allows(tmp_path: Path) -> None:
    write_model(tmp_path / "models", max_batch_size=64)
    write_model(tmp_path / "models", "small", max_batch_size=4)
    write_model(tmp_path / "models", "alone", extra="")
    with running(tmp_path / "models", default_model="colours") as service:
        target = Target(service.http, service.grpc, service.metrics)
        sizes = [read_served(target, model).max_batch_size for model in ("", "small", "alone")]
    assert sizes == [ROWS_AT_ONCE, 4, 1]
