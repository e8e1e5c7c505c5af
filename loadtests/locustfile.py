"""Locust users that send encoded images without a pause, over HTTP and over gRPC."""

from __future__ import annotations

import time
from itertools import cycle
from typing import Any

import grpc
import locust.stats
from grpc.experimental import gevent as grpc_gevent
from locust import FastHttpUser, User, constant, task

from loadtests.images import encoded_images
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc

grpc_gevent.init_gevent()

# Locust keeps whole milliseconds, and only two digits of those.
locust.stats.bucket_response_time = lambda response_time: round(response_time, 1)  # type: ignore[assignment, return-value]

IMAGES = cycle(encoded_images())
TIMEOUT_S = 60.0

# Gevent's clock stands still until something waits: without this the run's time would have begun with the process.
time.sleep(0.01)


class HttpUser(FastHttpUser):
    """One raw image in each request's body."""

    wait_time = constant(0)
    connection_timeout = TIMEOUT_S
    network_timeout = TIMEOUT_S

    @task
    def classify(self) -> None:
        body: Any = next(IMAGES)  # Locust declares text only.
        self.client.post("/v1/classify", data=body, headers={"content-type": "image/jpeg"})


class GrpcUser(User):
    """One image in each call, every user on a connection of its own. The host is `host:port`."""

    wait_time = constant(0)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        assert self.host is not None
        self.channel = grpc.insecure_channel(self.host, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = classifier_pb2_grpc.ClassifierStub(self.channel)

    def on_stop(self) -> None:
        self.channel.close()

    @task
    def classify(self) -> None:
        request = pb.ClassifyRequest(images=[next(IMAGES)])
        exception, length = None, 0
        start = time.perf_counter()
        try:
            length = self.stub.Classify(request, timeout=TIMEOUT_S).ByteSize()
        except grpc.RpcError as error:
            exception = f"{error.code().name}: {error.details()}"
        self.environment.events.request.fire(
            request_type="gRPC",
            name="fovea.v1.Classifier/Classify",
            response_time=1e3 * (time.perf_counter() - start),
            response_length=length,
            exception=exception,
            context={},
        )
