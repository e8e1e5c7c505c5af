"""Images over gRPC, all on one stream."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import count
from queue import SimpleQueue
from threading import Lock, Thread

import grpc

from loadtests.clients.client import TIMEOUT_S, RequestError
from loadtests.clients.images_grpc import OWN_CONNECTION
from loadtests.refusals import reason
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc

CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class ImagesStream:
    """One image in each request of a `ClassifyStream`; one that ends is followed by another.

    Args:
        address: `host:port`.
        images: encoded as JPEG.
    """

    def __init__(self, address: str, images: Iterator[bytes]) -> None:
        self._images = images
        self._channel = grpc.insecure_channel(address, OWN_CONNECTION)
        self._stub = classifier_pb2_grpc.ClassifierStub(self._channel)
        self._stream: _Stream | None = None
        self._one_at_a_time = Lock()

    def send(self) -> int:
        with self._one_at_a_time:
            if self._stream is None or self._stream.ended:
                self._stream = _Stream(self._stub)
            stream = self._stream
        answer = stream.ask(next(self._images))
        if answer.HasField("error"):
            raise RequestError(f"{CODES[answer.error.code]}: {answer.error.message}")
        return answer.ByteSize()

    def close(self) -> None:
        self._channel.close()
        if self._stream:
            self._stream.reader.join()


class _Stream:
    """Requests and their answers, which come in any order and are told apart by the requests' ids.

    Attributes:
        ended: why there are no more answers.
    """

    def __init__(self, stub: classifier_pb2_grpc.ClassifierStub) -> None:
        self.ended: str | None = None
        self._ids = map(str, count(1))
        self._waiting: dict[str, Future[pb.ClassifyStreamResponse]] = {}
        self._ending = Lock()
        self._requests: SimpleQueue[pb.ClassifyRequest | None] = SimpleQueue()
        self._answers = stub.ClassifyStream(iter(self._requests.get, None))
        self.reader = Thread(target=self._read, daemon=True)
        self.reader.start()

    def ask(self, image: bytes) -> pb.ClassifyStreamResponse:
        identity, answer = next(self._ids), Future[pb.ClassifyStreamResponse]()
        with self._ending:
            if self.ended:
                raise RequestError(self.ended)
            self._waiting[identity] = answer
        self._requests.put(pb.ClassifyRequest(images=[image], id=identity))
        try:
            return answer.result(TIMEOUT_S)
        except TimeoutError:
            raise RequestError(f"no answer within {TIMEOUT_S:g} s") from None
        finally:
            self._waiting.pop(identity, None)

    def _read(self) -> None:
        why = "the service ended the stream"
        try:
            for answer in self._answers:
                # One that came too late is waited for no more.
                if waiting := self._waiting.pop(answer.id, None):
                    waiting.set_result(answer)
        except grpc.RpcError as error:
            why = reason(error)
        with self._ending:
            self.ended = why
        self._requests.put(None)
        for waiting in list(self._waiting.values()):
            waiting.set_exception(RequestError(why))
