"""Triton's metrics, of the real service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.statistics import VersionStatistics
from service.triton_metrics import COUNTERS
from tests.conformance.models import write_simple
from tests.conformance.wire import simple_inputs
from tests.repositories import picture, write_model
from tests.service.conftest import ONE_INSTANCE
from tests.service.inside import inside
from tests.service.launch import RunningService, running
from tests.triton import install
from tests.triton.launch import running as running_triton


@pytest.fixture(scope="module")
def own_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """ "colours" and "simple"."""
    repository = tmp_path_factory.mktemp("triton_metrics")
    write_model(repository)
    write_simple(repository)
    with running(repository) as service:
        yield service


def test_they_are_what_the_statistics_tell(own_service: RunningService) -> None:
    jpeg = {"content-type": "image/jpeg"}
    with httpx.Client(base_url=own_service.http, timeout=60) as http:
        for _ in range(3):
            assert http.post("/v1/classify?model=colours", content=picture("red"), headers=jpeg).status_code == 200
            assert http.post("/v2/models/simple/infer", json={"inputs": simple_inputs()}).status_code == 200
        for model in ("colours", "simple"):
            (told,) = http.get(f"/v2/models/{model}/stats").json()["model_stats"]
            times = told["inference_stats"]

            def value(name: str, model: str = model, **labels: str) -> float:
                return own_service.metric(f"nv_inference_{name}", model=model, version="1", **labels)

            assert value("request_success") == times["success"]["count"] == 3
            assert value("count") == told["inference_count"] == 3
            assert value("exec_count") == told["execution_count"]
            assert value("request_duration_us") == times["success"]["ns"] // 1000 > 0
            assert value("queue_duration_us") == times["queue"]["ns"] // 1000 > 0
            for part in ("compute_input", "compute_infer", "compute_output"):
                assert value(f"{part}_duration_us") == times[part]["ns"] // 1000
            assert value("pending_request_count") == value("request_failure") == 0


def test_the_time_of_those_that_failed_is_none_of_the_requests() -> None:
    """As in Triton's, which counts failures alone."""
    statistics = VersionStatistics()
    statistics.success.add(0.5)
    statistics.fail.add(30)
    assert COUNTERS["nv_inference_request_duration_us"][1](statistics) == 500_000


async def test_what_waits_and_what_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, max_batch_size=1, extra=ONE_INSTANCE)
    async with (
        inside(tmp_path, max_queue_size=2) as service,
        httpx.AsyncClient(base_url=f"http://{service.running.http_address}", timeout=60) as http,
    ):

        def ask() -> asyncio.Task[httpx.Response]:
            headers = {"content-type": "image/jpeg"}
            return asyncio.create_task(http.post("/v1/classify", content=picture("red"), headers=headers))

        assert await service.metric("fovea_queue_limit", model="colours") == 2
        service.gate.shut()
        working = ask()
        await service.gate.reached()
        waiting = [ask() for _ in range(2)]
        await service.waits("colours", 2)
        assert await service.metric("nv_inference_pending_request_count", model="colours") == 2
        assert [answer.status_code for answer in await asyncio.gather(*[ask() for _ in range(3)])] == [503] * 3
        assert await service.metric("nv_inference_request_failure", model="colours", reason="REJECTED") == 3
        for leaver in waiting:
            leaver.cancel()
        await service.wait_for_metric(2, "nv_inference_request_failure", model="colours", reason="CANCELED")
        service.gate.open()
        assert (await working).status_code == 200
        assert await service.metric("nv_inference_request_success", model="colours") == 1
        assert await service.metric("nv_inference_pending_request_count", model="colours") == 0


def test_a_refused_version_is_withdrawn_with_its_series(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(tmp_path, model_control_mode="explicit") as service:
        assert 'nv_inference_count{model="colours",version="1"}' in service.metrics_page()
        httpx.post(f"{service.http}/v2/repository/models/colours/unload", timeout=60)
        # What was counted stays; what is no more is not told of.
        page = service.metrics_page()
        assert 'nv_inference_count{model="colours"' not in page
        assert 'fovea_queue_depth{model="colours"' not in page


@pytest.mark.system
@pytest.mark.skipif(bool(install.missing()), reason=install.missing())
def test_a_real_triton_has_the_same_names_and_labels(own_service: RunningService, tmp_path: Path) -> None:
    write_simple(tmp_path)
    with running_triton(tmp_path) as triton:
        httpx.post(f"{triton.http}/v2/models/simple/infer", json={"inputs": simple_inputs()}, timeout=60)
        theirs = labels_of(httpx.get(triton.metrics, timeout=60).text)
    ours = labels_of(own_service.metrics_page())
    assert ours
    assert ours.items() <= theirs.items()


def labels_of(page: str) -> dict[str, set[str]]:
    """The labels of each of Triton's metrics of inference."""
    return {
        # The parser adds what counters should end in.
        sample.name.removesuffix("_total"): set(sample.labels)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("nv_inference_")
    }
