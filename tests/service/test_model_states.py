"""Readiness as metrics, of the real service."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.repositories import write_model
from tests.service.launch import RunningService, running


def failed(service: RunningService) -> dict[tuple[str, str], str]:
    """The reason of each model and version that failed."""
    return {
        (sample.labels["model"], sample.labels["version"]): sample.labels["reason"]
        for family in text_string_to_metric_families(service.metrics_page())
        for sample in family.samples
        if sample.name == "fovea_model_failed"
    }


def test_every_failure_has_its_reason(broken_service: RunningService) -> None:
    reasons = failed(broken_service)
    assert ("colours", "1") not in reasons
    assert "preprocessing differs" in reasons["pixels", "1"]
    assert "no version folder" in reasons["no_version", ""]
    assert all(len(reason) <= 201 and "\n" not in reason for reason in reasons.values())
    assert broken_service.metric("fovea_ready") == 0
    assert broken_service.metric("fovea_model_ready", model="colours", version="1") == 1
    assert broken_service.metric("fovea_model_ready", model="pixels", version="1") == 0


def test_a_failed_reload_is_told_beside_what_is_still_served(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    config = (model / "config.pbtxt").read_text()
    with running(tmp_path, model_control_mode="explicit") as service:
        assert service.metric("fovea_ready") == 1
        assert not failed(service)
        (model / "config.pbtxt").write_text("max_batch_size: many")
        load = f"{service.http}/v2/repository/models/colours/load"
        assert httpx.post(load, timeout=60).status_code == 400
        assert "max_batch_size" in failed(service)["colours", ""]
        assert service.metric("fovea_model_ready", model="colours", version="1") == 1
        assert service.metric("fovea_ready") == 1
        (model / "config.pbtxt").write_text(config)
        assert httpx.post(load, timeout=60).status_code == 200
        assert not failed(service)
