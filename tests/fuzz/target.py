"""The service under attack: what is sent to it, and what must hold of every answer."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.conformance.wire import model_path, simple_inputs, simple_request
from tests.fuzz.mutations import to_json
from tests.service.launch import RunningService

TIMEOUT_S = 60.0
MAX_ERROR_BYTES = 8 * 2**10
"""Of an error, whatever a client's own words in it."""

SERVERS_FAULT = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
NOT_AT_ALL = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
GRPCIOS_OWN = re.compile(r"^[ |]*(?:UnicodeDecodeError|\S+\.ExecuteBatchError|ExceptionGroup):", re.MULTILINE)
"""How a traceback ends that grpcio logs: a path that is no text, nobody there to be told."""

INFER = "/inference.GRPCInferenceService/ModelInfer"
TO_LOAD = ("controlled", "nothing")
"""The models that are loaded and unloaded, whatever becomes of them: the others must go on answering."""
GOOD = {"inputs": simple_inputs()}


class Target:
    """One client's connections to the service, kept open as long as it lets them."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.address = service.http.removeprefix("http://")
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self.channel = grpc.insecure_channel(service.grpc, options=options)
        # Bytes as they are.
        self._unary: Any = self.channel.unary_unary
        self._stream: Any = self.channel.stream_stream
        self._inference: Any = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self._connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT_S)

    def close(self) -> None:
        self._connection.close()
        self.channel.close()

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None, *, others: tuple[int, ...] = ()
    ) -> int:
        return self.request("POST", path, body, headers, others=others)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        others: tuple[int, ...] = (),
    ) -> int:
        """Send a request that may be wrong in any way, and say how it was answered.

        Args:
            others: statuses that may come besides those of the client's mistakes.
        """
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            response = self._connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            # It had been closed since the last answer: idle, or after an error.
            self._connection.close()
            self._connection.request(method, path, body, dict(headers or {}))
            response = self._connection.getresponse()
        content = response.read()
        said = (method, path, response.status, content[:300])
        assert response.status < 500 or response.status in others, said
        if response.status >= 400 and method != "HEAD":
            assert response.headers["content-type"] == "application/json", said
            assert len(content) <= MAX_ERROR_BYTES, said
            error = json.loads(content)
            assert error.keys() == {"error"}, said
            assert isinstance(error["error"], str), said
            assert error["error"], said
        return response.status

    def call(self, method: str, messages: Sequence[bytes], *others: grpc.StatusCode) -> grpc.StatusCode:
        """Send bytes as a gRPC method's requests, and say how it ended.

        Args:
            others: codes that may come besides those of the client's mistakes.
        """
        try:
            if len(messages) == 1:
                self._unary(method)(messages[0], timeout=TIMEOUT_S)
            else:
                for _ in self._stream(method)(iter(messages), timeout=TIMEOUT_S):
                    pass
        except grpc.RpcError as raised:
            error: Any = raised
        else:
            return grpc.StatusCode.OK
        code: grpc.StatusCode = error.code()
        said = (method, code, error.details())
        assert code not in (*SERVERS_FAULT, *NOT_AT_ALL) or code in others, said
        assert len(error.details()) <= MAX_ERROR_BYTES, said
        return code

    def not_to_load(self) -> frozenset[str]:
        """The models that a request to load or unload must not name."""
        index = self._inference.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=TIMEOUT_S)
        return frozenset(model.name for model in index.models) - {*TO_LOAD}

    def register(self, region: str, key: str, byte_size: int) -> None:
        """Have a region of shared memory, whatever was done to it."""
        self.request("POST", f"/v2/systemsharedmemory/region/{region}/unregister")
        body = to_json({"key": key, "byte_size": byte_size})
        assert self.post(f"/v2/systemsharedmemory/region/{region}/register", body) == 200

    def must_be_unharmed(self) -> None:
        """A good request is answered as ever on both protocols."""
        assert self.service.process.poll() is None
        assert self.post(model_path("simple") + "/infer", to_json(GOOD)) == 200
        answer = self._inference.ModelInfer(simple_request(), timeout=TIMEOUT_S)
        assert [output.name for output in answer.outputs] == ["OUTPUT0", "OUTPUT1"]
        log = self.service.stderr()
        assert log.count("Traceback") == len(GRPCIOS_OWN.findall(log)), log[-5000:]
