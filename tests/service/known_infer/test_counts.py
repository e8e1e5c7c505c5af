"""What is counted, logged and traced of known requests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.models import write_lookup
from tests.service.inside import ORDINARY, Client, Inside, infer, inside
from tests.service.known_infer.knowing import ONE, know
from tests.service.launch import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_known_requests_are_counted_as_others(tmp_path: Path) -> None:
    write_lookup(tmp_path)
    good, bad = ({"INDEX": np.array([[index]], "<i8")} for index in (1, 99))

    async def counts(service: Inside, *headers: str) -> dict[str, float]:
        before = await counted(service)
        async with await service.connect() as client:
            for values in (good, good, bad, good):
                await client.ask(infer("lookup", values, *headers))
        after = await counted(service)
        return {name: after[name] - before[name] for name in after}

    async def counted(service: Inside) -> dict[str, float]:
        found = service.statistics("lookup")
        names = ("fovea_requests_total", "fovea_batch_size_count", "fovea_batches_failed_total", "fovea_batch_size_sum")
        return {
            "success": found.success.count,
            "fail": found.fail.count,
            "queue": found.queue.count,
            "compute": found.requests.compute_infer.count,
            "inferences": found.inference_count,
            "executions": found.execution_count,
            "ok": await service.metric("fovea_requests_total", protocol="http", model="lookup", code="200"),
            "500": await service.metric("fovea_requests_total", protocol="http", model="lookup", code="500"),
            **{name: await service.metric(name, model="lookup") for name in names},
        }

    async with inside(tmp_path) as service, await service.connect() as client:
        await know(service, client, infer("lookup", good))
        start = service.statistics("lookup")
        known = await counts(service)
        assert len(service.known) == 4
        ordinary = await counts(service, ORDINARY)
        assert len(service.known) == 4
        assert known == ordinary
        assert (known["success"], known["ok"], known["500"], known["fail"]) == (3, 3, 1, 1)
        assert start.last_inference_ms > 0
        assert start.success.ns > start.requests.compute_infer.ns > 0


async def test_requests_are_traced_as_soon_as_any_are(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    for level in ("TIMESTAMPS", "OFF"):
        content = json.dumps({"trace_level": [level], "trace_rate": "1"}).encode()
        head = f"POST /v2/trace/setting HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
        assert (await client.ask(head.encode(), content)).status == 200
        for number in range(2):
            answer = await client.ask(infer("pair", ONE, f"x-request-id: {level} {number}"))
            assert answer.status == 200
        assert len(service.known) == (0 if level == "TIMESTAMPS" else 2)
    trace = service.folder.parent / "trace.json"
    await until(lambda: trace.exists() and trace.read_text().endswith("]\n"))
    traced = [entry["request_id"] for entry in json.loads(trace.read_text()) if "request_id" in entry]
    assert traced == ["TIMESTAMPS 0", "TIMESTAMPS 1"]
