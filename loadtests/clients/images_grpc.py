"""Images over gRPC, a call for each."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from loadtests.clients.client import TIMEOUT_S, RequestError
from loadtests.refusals import reason
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
"""Otherwise every channel of a process to one address is the same connection."""


class ImagesGrpc:
    """One image in each call, all on one connection.

    Args:
        address: `host:port`.
        images: encoded as JPEG.
    """

    def __init__(self, address: str, images: Iterator[bytes]) -> None:
        self._images = images
        self._channel = grpc.insecure_channel(address, OWN_CONNECTION)
        self._stub = classifier_pb2_grpc.ClassifierStub(self._channel)

    def send(self) -> int:
        request = pb.ClassifyRequest(images=[next(self._images)])
        try:
            answer: pb.ClassifyResponse = self._stub.Classify(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise RequestError(reason(error)) from None
        return answer.ByteSize()

    def close(self) -> None:
        self._channel.close()
