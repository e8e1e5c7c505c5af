"""tritonclient's four clients, with every public method they have."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import os
import queue
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from tritonclient import grpc as grpc_client
from tritonclient import http as http_client
from tritonclient.grpc import aio as grpc_aio_client
from tritonclient.utils import InferenceServerException

from tests.conformance.models import identity_graph
from tests.conformance.test_model_repository import OVERRIDE, unload
from tests.conformance.wire import TIMEOUT_S, Array, Http, simple_outputs

Result = TypeVar("Result")
Client = Any
EXTENSIONS = {
    "get_model_config": "model_configuration",
    "get_inference_statistics": "statistics",
    "get_model_repository_index": "model_repository",
    "load_model": "model_repository",
    "unload_model": "model_repository",
    "get_trace_settings": "trace",
    "update_trace_settings": "trace",
    "get_log_settings": "logging",
    "update_log_settings": "logging",
    "get_system_shared_memory_status": "system_shared_memory",
    "register_system_shared_memory": "system_shared_memory",
    "unregister_system_shared_memory": "system_shared_memory",
    "get_cuda_shared_memory_status": "cuda_shared_memory",
    "register_cuda_shared_memory": "cuda_shared_memory",
    "unregister_cuda_shared_memory": "cuda_shared_memory",
}
"""What a method needs besides the core protocol."""


class Plugin:
    """Adds a header to every request, as clients' plugins do."""

    def __call__(self, request: Any) -> None:
        request.headers["x-conformance"] = "1"


def inputs(client: Any) -> list[Any]:
    """The inputs of "simple", as the client's module has them."""
    tensors = [client.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for tensor, values in zip(tensors, (np.arange(16), np.ones(16)), strict=True):
        tensor.set_data_from_numpy(values.astype(np.int32).reshape(1, 16))
    return tensors


def outputs(client: Any) -> list[Any]:
    return [client.InferRequestedOutput("OUTPUT0"), client.InferRequestedOutput("OUTPUT1")]


def assert_simple(result: Any) -> None:
    total, difference = simple_outputs()
    assert as_list(result, "OUTPUT0") == total.tolist()
    assert as_list(result, "OUTPUT1") == difference.tolist()


def as_list(result: Any, name: str) -> list[Any]:
    values: Array = result.as_numpy(name)
    return list(values.ravel().tolist())


def member(answer: Any, name: str) -> Any:
    """A member of an answer, which is JSON over HTTP and a message over gRPC."""
    return answer[name] if isinstance(answer, dict) else getattr(answer, name)


class Methods:
    """What each method is called with, and what must come of it; the method's name is the clause's.

    `wait` makes a result of what a method returned: of a coroutine where the client has those.
    """

    def __init__(self, module: Any, client: Client, wait: Callable[[Any], Any], http: Http) -> None:
        self.module = module
        self.client = client
        self.wait = wait
        self.http = http

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return self.wait(getattr(self.client, name)(*arguments, **options))

    def is_server_live(self) -> None:
        assert self.call("is_server_live") is True

    def is_server_ready(self) -> None:
        assert self.call("is_server_ready") is True

    def is_model_ready(self) -> None:
        assert self.call("is_model_ready", "simple") is True
        assert self.call("is_model_ready", "simple", "1") is True
        assert self.call("is_model_ready", "nope") is False

    def get_server_metadata(self) -> None:
        assert member(self.call("get_server_metadata"), "name")

    def get_model_metadata(self) -> None:
        assert member(self.call("get_model_metadata", "simple", "1"), "name") == "simple"
        with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found"):
            self.call("get_model_metadata", "nope")

    def get_model_config(self) -> None:
        answer = self.call("get_model_config", "simple")
        assert member(answer if isinstance(answer, dict) else answer.config, "max_batch_size") == 8

    def get_inference_statistics(self) -> None:
        (entry,) = member(self.call("get_inference_statistics", "simple", "1"), "model_stats")
        assert member(entry, "name") == "simple"
        assert len(member(self.call("get_inference_statistics"), "model_stats")) > 1

    def get_model_repository_index(self) -> None:
        answer = self.call("get_model_repository_index")
        entries = answer if isinstance(answer, list) else answer.models
        assert "simple" in {member(entry, "name") for entry in entries}

    def load_model(self) -> None:
        try:
            self.call("load_model", "controlled")
            self.call("load_model", "controlled", config=json.dumps(OVERRIDE))
            files = {"file:7/model.onnx": identity_graph()}
            self.call("load_model", "sent_by_client", config=json.dumps(OVERRIDE), files=files)
            assert self.call("is_model_ready", "sent_by_client", "7") is True
            with pytest.raises(InferenceServerException, match="failed to load 'nope'"):
                self.call("load_model", "nope")
        finally:
            unload(self.http, "sent_by_client")
            unload(self.http, "controlled")
            self.call("load_model", "controlled")

    def unload_model(self) -> None:
        try:
            self.call("unload_model", "controlled", unload_dependents=True)
            unload(self.http, "controlled")
            assert self.call("is_model_ready", "controlled") is False
        finally:
            self.call("load_model", "controlled")

    def get_trace_settings(self) -> None:
        assert self.call("get_trace_settings")
        assert self.call("get_trace_settings", "simple")

    def update_trace_settings(self) -> None:
        self.call("update_trace_settings", "simple", {"trace_rate": "7"})
        self.call("update_trace_settings", "simple", {"trace_rate": None})

    def get_log_settings(self) -> None:
        assert self.call("get_log_settings")

    def update_log_settings(self) -> None:
        self.call("update_log_settings", {"log_verbose_level": 1, "log_info": True})
        self.call("update_log_settings", {"log_verbose_level": 0})

    def register_system_shared_memory(self) -> None:
        self._with_region()

    def unregister_system_shared_memory(self) -> None:
        self._with_region()
        self.call("unregister_system_shared_memory")

    def get_system_shared_memory_status(self) -> None:
        self._with_region()
        assert not self._regions(self.call("get_system_shared_memory_status"))

    def _with_region(self) -> None:
        """A region with the inputs, from its registration to its end."""
        name = f"conformance_{uuid.uuid4().hex}"
        file = Path("/dev/shm", name)
        file.write_bytes(np.concatenate([np.arange(16), np.ones(16)]).astype(np.int32).tobytes())
        try:
            self.call("register_system_shared_memory", name, f"/{name}", 128)
            assert self._regions(self.call("get_system_shared_memory_status", name))
            shared = inputs(self.module)
            for position, tensor in enumerate(shared):
                tensor.set_shared_memory(name, 64, position * 64)
            assert_simple(self.call("infer", "simple", shared))
            self._unregister(name)
        finally:
            os.unlink(file)

    def _unregister(self, name: str) -> None:
        """Triton may have a region in use for a moment after the answer."""
        until = time.monotonic() + 10
        while True:
            try:
                self.call("unregister_system_shared_memory", name)
                return
            except InferenceServerException as error:
                if "currently in use" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    @staticmethod
    def _regions(status: Any) -> Any:
        return status if isinstance(status, list) else status.regions

    def get_cuda_shared_memory_status(self) -> None:
        assert not self._regions(self.call("get_cuda_shared_memory_status"))

    def register_cuda_shared_memory(self) -> None:
        with pytest.raises(InferenceServerException):
            self.call("register_cuda_shared_memory", "nope", base64.b64encode(bytes(64)), 0, 64)

    def unregister_cuda_shared_memory(self) -> None:
        self.call("unregister_cuda_shared_memory")

    def infer(self) -> None:
        assert_simple(self.call("infer", "simple", inputs(self.module)))
        result = self.call(
            "infer",
            "simple",
            inputs(self.module),
            model_version="1",
            outputs=outputs(self.module),
            request_id="7",
            priority=1,
            timeout=60000000,
            parameters={"mine": "x"},
        )
        assert_simple(result)
        assert member(result.get_response(), "id") == "7"
        with pytest.raises(InferenceServerException, match="unexpected inference input 'INPUT1'"):
            self.call("infer", "identity_fp32", inputs(self.module)[1:])

    def register_plugin(self) -> None:
        self.client.register_plugin(Plugin())
        assert self.client.plugin() is not None
        assert self.call("is_server_live") is True
        self.client.unregister_plugin()

    plugin = unregister_plugin = register_plugin

    def close(self) -> None:
        assert self.call("is_server_live") is True
        self.call("close")


class HttpOnly(Methods):
    def generate_request_body(self) -> None:
        body, length = self.module.InferenceServerClient.generate_request_body(inputs(self.module))
        answer = self.http.infer("simple", body, {"Inference-Header-Content-Length": str(length)})
        assert answer.binary()[0]["model_name"] == "simple"

    def parse_response_body(self) -> None:
        body, length = self.module.InferenceServerClient.generate_request_body(inputs(self.module))
        answer = self.http.infer("simple", body, {"Inference-Header-Content-Length": str(length)})
        header = int(answer.headers["inference-header-content-length"])
        result = self.module.InferenceServerClient.parse_response_body(answer.body, header_length=header)
        assert_simple(result)

    def infer(self) -> None:
        super().infer()
        for algorithm in ("gzip", "deflate"):
            result = self.call(
                "infer",
                "simple",
                inputs(self.module),
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            assert_simple(result)
        classes = [self.module.InferRequestedOutput("OUTPUT0", class_count=1)]
        result = self.call("infer", "simple", inputs(self.module), outputs=classes)
        assert as_list(result, "OUTPUT0") == [b"16:15"]


class SynchronousHttp(HttpOnly):
    def async_infer(self) -> None:
        requests = [self.client.async_infer("simple", inputs(self.module)) for _ in range(4)]
        for request in requests:
            assert_simple(request.get_result())


class GrpcOnly(Methods):
    def infer(self) -> None:
        super().infer()
        for algorithm in ("gzip", "deflate"):
            assert_simple(self.call("infer", "simple", inputs(self.module), compression_algorithm=algorithm))


class SynchronousGrpc(GrpcOnly):
    def async_infer(self) -> None:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        for _ in range(4):
            self.client.async_infer("simple", inputs(self.module), lambda result, error: answers.put((result, error)))
        for _ in range(4):
            result, error = answers.get(timeout=TIMEOUT_S)
            assert error is None
            assert_simple(result)

    def async_stream_infer(self) -> None:
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(4):
            self.client.async_stream_infer("simple", inputs(self.module), request_id=str(number))
        self.client.async_stream_infer("nope", inputs(self.module))
        received = [answers.get(timeout=TIMEOUT_S) for _ in range(5)]
        self.client.stop_stream()
        for result, error in received[:4]:
            assert error is None
            assert_simple(result)
        assert "Request for unknown model: 'nope' is not found" in str(received[4][1])

    start_stream = stop_stream = async_stream_infer


class AsynchronousGrpc(GrpcOnly):
    def stream_infer(self) -> None:
        self.wait(self._stream_infer())

    async def _stream_infer(self) -> None:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            for model in ("simple", "nope"):
                yield {"model_name": model, "inputs": inputs(self.module)}

        answers = [answer async for answer in self.client.stream_infer(requests())]
        assert_simple(answers[0][0])
        assert "Request for unknown model: 'nope' is not found" in str(answers[1][1])


TABLES: dict[str, type[Methods]] = {
    "http": SynchronousHttp,
    "grpc": SynchronousGrpc,
    "http.aio": HttpOnly,
    "grpc.aio": AsynchronousGrpc,
}


def public(of: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(of, callable) if not name.startswith("_")} - {"call"}


def module_of(client: str) -> Any:
    if client == "http.aio":
        pytest.importorskip("aiohttp")
        return pytest.importorskip("tritonclient.http.aio")
    return {"http": http_client, "grpc": grpc_client, "grpc.aio": grpc_aio_client}[client]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.mark.parametrize("client", TABLES)
def test_every_method_is_here(client: str) -> None:
    """The tables have exactly the methods that the clients have."""
    assert public(TABLES[client]) == public(module_of(client).InferenceServerClient)


@pytest.mark.parametrize(
    ("client", "method"), [(client, method) for client, table in TABLES.items() for method in sorted(public(table))]
)
def test_method(
    request: pytest.FixtureRequest,
    loop: asyncio.AbstractEventLoop,
    http: Http,
    extensions: frozenset[str],
    client: str,
    method: str,
) -> None:
    """A client's method works, and what it returns is what the server said."""
    if EXTENSIONS.get(method, "") not in {"", *extensions}:
        pytest.skip(f"the server does not announce the extension {EXTENSIONS[method]!r}")
    module = module_of(client)
    address = http.address + http.base_path if "http" in client else request.config.getoption("grpc")

    def wait(result: Awaitable[Result] | Result) -> Result:
        return loop.run_until_complete(result) if inspect.isawaitable(result) else result

    async def opened() -> Any:
        return module.InferenceServerClient(address)

    # The asynchronous clients want to be made where a loop runs.
    connected = wait(opened()) if "aio" in client else module.InferenceServerClient(address)
    try:
        getattr(TABLES[client](module, connected, wait, http), method)()
    finally:
        if method != "close":
            wait(connected.close())
