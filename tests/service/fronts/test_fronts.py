"""The real service with two front processes before one engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio

from service.backends.onnx_runtime import ROWS_AT_ONCE
from tests.repositories import picture, write_model
from tests.service.launch import RunningService, run_to_end, running, until

FRONTS = 2
CONNECTIONS = 24
"""So many that all of them at one of two fronts is out of the question."""
JPEG = {"content-type": "image/jpeg"}
RED = picture("red")


def front_pids(service: RunningService) -> list[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if "service.fronts" in command_of(pid)]


def command_of(pid: str) -> str:
    """Empty of a process that is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def connections_of(pid: int, port: int) -> int:
    """Established connections of a process, on a port of its own."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port}
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
    return sum(f"socket:[{inode}]" in links for inode in inodes)


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    repository = tmp_path_factory.mktemp("fronts")
    write_model(repository)
    write_model(repository, "other")
    with running(repository, front_processes=FRONTS, model_control_mode="explicit", default_model="colours") as started:
        yield started


async def classify(service: RunningService, clients: int, each: int = 1) -> None:
    """So many clients, with a connection each."""

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=service.http, timeout=60) as http:
            for _ in range(each):
                answer = await http.post("/v1/classify", content=RED, headers=JPEG)
                assert answer.json()["predictions"][0]["label"] == "red", answer.text

    await asyncio.gather(*(ask() for _ in range(clients)))


async def infer(service: RunningService, clients: int, each: int = 1) -> None:
    pixels = tritonclient.grpc.aio.InferInput("pixels", [1, 8, 8, 3], "UINT8")
    pixels.set_data_from_numpy(np.full((1, 8, 8, 3), 255, np.uint8))

    async def ask() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with tritonclient.grpc.aio.InferenceServerClient(service.grpc, channel_args=options) as client:
            for _ in range(each):
                answer = await client.infer("colours", [pixels])
                np.testing.assert_allclose(answer.as_numpy("logits"), [[10, 10, 10]], rtol=1e-5)

    await asyncio.gather(*(ask() for _ in range(clients)))


async def test_connections_are_spread_over_the_fronts(fronts: RunningService) -> None:
    port = int(fronts.http.rpartition(":")[2])
    assert len(front_pids(fronts)) == FRONTS
    clients = [httpx.AsyncClient(base_url=fronts.http, timeout=60) for _ in range(CONNECTIONS)]
    try:
        for client in clients:
            assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        counts = [connections_of(pid, port) for pid in front_pids(fronts)]
    finally:
        for client in clients:
            await client.aclose()
    assert sum(counts) == CONNECTIONS
    assert all(counts)


async def test_statistics_and_metrics_are_those_of_the_whole_service(fronts: RunningService) -> None:
    def counted() -> Counter[str]:
        page = Counter[str]()
        for protocol, code in (("http", "200"), ("grpc", "OK")):
            page[protocol] = round(fronts.metric("fovea_requests_total", protocol=protocol, code=code, model="colours"))
        page["images"] = round(fronts.metric("fovea_batch_size_sum", model="colours"))
        page["decoded"] = round(fronts.metric("fovea_stage_duration_seconds_count", model="colours", stage="decode"))
        statistics = httpx.get(f"{fronts.http}/v2/models/colours/stats").json()["model_stats"][0]
        page["success"] = statistics["inference_stats"]["success"]["count"]
        page["inferences"] = statistics["inference_count"]
        page["queue"] = statistics["inference_stats"]["queue"]["count"]
        return page

    before = counted()
    await asyncio.gather(classify(fronts, CONNECTIONS, 3), infer(fronts, CONNECTIONS, 4))
    http, grpc = 3 * CONNECTIONS, 4 * CONNECTIONS
    both = http + grpc
    expected = {"http": http, "grpc": grpc, "images": both, "decoded": http}
    assert counted() - before == Counter(expected | {"success": both, "inferences": both, "queue": both})
    assert fronts.metric("fovea_requests_in_flight") == 0
    # Of one process, the engine's: they would mean nothing as sums.
    assert fronts.metric("process_resident_memory_bytes") < 2 * fronts.resident_bytes()


def test_every_front_knows_of_a_load_and_an_unload_at_once(fronts: RunningService) -> None:
    def ready() -> set[int]:
        """What new connections are told, each of one front or the other."""
        return {httpx.get(f"{fronts.http}/v2/models/other/ready").status_code for _ in range(CONNECTIONS)}

    def change(action: str) -> None:
        httpx.post(f"{fronts.http}/v2/repository/models/other/{action}", json={}, timeout=60).raise_for_status()

    for _ in range(3):
        change("unload")
        assert not ready() & {200}
        change("load")
        assert ready() == {200}
    client = tritonclient.grpc.InferenceServerClient(fronts.grpc)
    client.unload_model("other")
    assert not ready() & {200}
    client.load_model("other", config=json.dumps({"max_batch_size": 64, "dynamic_batching": {}}))
    assert ready() == {200}
    shown = [httpx.get(f"{fronts.http}/v1/models/other").json()["versions"][0] for _ in range(CONNECTIONS)]
    assert {(version["max_batch_size"], version["largest_batch"]) for version in shown} == {(64, ROWS_AT_ONCE)}
    client.close()


async def test_a_canary_gets_its_share_of_every_front(tmp_path: Path) -> None:
    """Each front counts its own: together they are off by less than one request each."""
    rollout = {"rollout.current": "1", "rollout.canary": "2", "rollout.canary_share": "0.25"}
    parameters = "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in rollout.items()
    )
    extra = "dynamic_batching { }\nversion_policy { all { } }\n" + parameters
    write_model(tmp_path, versions=(1, 2), extra=extra)
    with running(tmp_path, front_processes=FRONTS) as service:
        await asyncio.gather(classify(service, CONNECTIONS, 3), infer(service, CONNECTIONS, 2))
        asked = 5 * CONNECTIONS
        canary = service.metric("fovea_rollout_requests_total", role="canary")
        assert canary + service.metric("fovea_rollout_requests_total", role="current") == asked
        assert abs(canary - asked / 4) < FRONTS
        # A setting, and no count: it is not added up.
        assert service.metric("fovea_rollout_share", role="canary") == 0.25
        assert service.metric("nv_inference_request_success", version="2") == canary


def test_what_cannot_be_loaded_says_why(fronts: RunningService) -> None:
    answer = httpx.post(f"{fronts.http}/v2/repository/models/nothing/load", json={}, timeout=60)
    assert answer.status_code == 404
    assert answer.json() == {"error": "failed to load 'nothing', failed to poll from model repository"}


def test_a_port_that_is_taken_is_named_even_by_another_such_service(fronts: RunningService, tmp_path: Path) -> None:
    write_model(tmp_path)
    for what, address in (("http", fronts.http), ("grpc", fronts.grpc)):
        port = address.rpartition(":")[2]
        ended = run_to_end("serve", model_repository=tmp_path, front_processes=FRONTS, **{f"{what}_port": port})
        assert ended.returncode == 1
        assert f"FOVEA_{what.upper()}_PORT={port}: cannot listen on 127.0.0.1:{port}" in ended.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("trace_file", "/tmp/trace.json"), ("log_and_trace_changes", True), ("system_shared_memory", True)],
)
def test_what_needs_one_process_is_refused(tmp_path: Path, name: str, value: object) -> None:
    write_model(tmp_path)
    ended = run_to_end("serve", model_repository=tmp_path, front_processes=FRONTS, **{name: value})
    assert ended.returncode == 1
    assert f"error: FOVEA_FRONT_PROCESSES=2: FOVEA_{name.upper()} is for one process that does all" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_front_that_dies_is_replaced_and_what_was_counted_stays(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(tmp_path, front_processes=FRONTS) as service:
        await classify(service, CONNECTIONS)
        assert service.metric("fovea_requests_total", code="200") == CONNECTIONS
        dying, *others = front_pids(service)
        os.kill(dying, signal.SIGKILL)
        await until(lambda: f"ended with code -{signal.SIGKILL.value}" in service.stderr())
        await until(lambda: len(front_pids(service)) == FRONTS)
        assert set(others) < set(front_pids(service))
        port = int(service.http.rpartition(":")[2])

        async def a_connection_of_each() -> bool:
            clients = [httpx.AsyncClient(base_url=service.http, timeout=60) for _ in range(CONNECTIONS)]
            try:
                for client in clients:
                    assert (await client.get("/v2/health/ready")).json() == {"ready": True}
                return all(connections_of(pid, port) for pid in front_pids(service))
            finally:
                for client in clients:
                    await client.aclose()

        async with asyncio.timeout(60):
            while not await a_connection_of_each():
                pass
        before = service.metric("fovea_requests_total", code="200")
        assert before >= CONNECTIONS
        await classify(service, CONNECTIONS)
        assert service.metric("fovea_requests_total", code="200") == before + CONNECTIONS


async def test_a_stop_does_not_wait_for_a_front_that_is_being_replaced(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(tmp_path, front_processes=FRONTS) as service:
        first = set(front_pids(service))
        os.kill(min(first), signal.SIGKILL)
        await until(lambda: len(set(front_pids(service)) - first) == 1)
        service.terminate()
        assert service.exit_code() == 0


@pytest.mark.system
async def test_a_front_that_hangs_holds_no_load_up(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(tmp_path, front_processes=FRONTS, model_control_mode="explicit") as service:
        hanging, _ = front_pids(service)
        port = int(service.http.rpartition(":")[2])
        async with AsyncExitStack() as stack:
            # Somebody else's connection is not to be waited for: this one is at the front that goes on.
            while True:
                http = await stack.enter_async_context(httpx.AsyncClient(base_url=service.http, timeout=60))
                before = connections_of(hanging, port)
                await http.get("/v2/health/ready")
                if connections_of(hanging, port) == before:
                    break
            os.kill(hanging, signal.SIGSTOP)
            answer = await http.post("/v2/repository/models/colours/load", json={})
            assert answer.status_code == 200
            assert "a front has not answered" in service.stderr()
            await until(lambda: hanging not in front_pids(service) and len(front_pids(service)) == FRONTS)


async def test_a_stop_under_load_answers_all_that_was_accepted(tmp_path: Path) -> None:
    """Clients go on until they are refused; what the fronts have logged as answered is what the clients have got."""
    write_model(tmp_path, slow_rounds=4)
    outcomes, enough = Counter[str](), asyncio.Event()

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            while True:
                try:
                    answer = await http.post("/v1/classify", content=RED, headers=JPEG)
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    return
                outcomes[str(answer.status_code)] += 1
                if outcomes["200"] == 200:
                    enough.set()
                if answer.status_code != 200:
                    return

    with running(tmp_path, front_processes=FRONTS, log_level="debug") as service:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(ask(service.http))
            await asyncio.wait_for(enough.wait(), 60)
            service.terminate()
        assert service.exit_code() == 0
        logged = Counter(re.findall(r" http request: (\S+) in ", service.stderr()))
    assert outcomes.keys() <= {"200", "503"}
    assert logged["200"] == outcomes["200"] >= 200
    assert logged.keys() <= {"200", "503"}


def test_no_front_outlives_its_engine(tmp_path: Path) -> None:
    write_model(tmp_path)
    with suppress(AssertionError), running(tmp_path, front_processes=FRONTS) as service:
        pids = front_pids(service)
        assert len(pids) == FRONTS
        service.process.kill()
        service.process.wait()
    asyncio.run(until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids)))
