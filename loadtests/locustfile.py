"""Locust users for each way to ask the service; closed and open loads, and shapes of either."""

from __future__ import annotations

import math
import time
from itertools import cycle
from typing import Any

import gevent  # type: ignore[import-untyped]
import locust.stats
from grpc.experimental import gevent as grpc_gevent
from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests import progress, staged  # Not the class, which locust would find and use unasked.
from loadtests.arguments import positive
from loadtests.clients.client import Client
from loadtests.clients.images_grpc import ImagesGrpc
from loadtests.clients.images_http import ImagesHttp
from loadtests.clients.images_stream import ImagesStream
from loadtests.clients.tensors_grpc import TensorsGrpc
from loadtests.clients.tensors_http import TensorsHttp
from loadtests.images import encoded_images
from loadtests.load_user import MOST_IN_FLIGHT, LoadUser
from loadtests.shapes import SHAPES, stages

grpc_gevent.init_gevent()

# Locust keeps whole milliseconds, and only two digits of those.
locust.stats.bucket_response_time = lambda time_ms: float(f"{time_ms:.3g}")  # type: ignore[assignment, return-value]

IMAGES = cycle(encoded_images())

# Gevent's clock stands still until something waits: without this the run's time would have begun with the process.
time.sleep(0.01)


class HttpUser(LoadUser):
    """Images over HTTP. The host is `http://host:port`, that of gRPC users `host:port`."""

    protocol = "HTTP"

    def connect(self) -> Client:
        return ImagesHttp(self.host or "", IMAGES, MOST_IN_FLIGHT)


class GrpcUser(LoadUser):
    """Images over gRPC, a call for each."""

    protocol = "gRPC"

    def connect(self) -> Client:
        return ImagesGrpc(self.host or "", IMAGES)


class GrpcStreamUser(LoadUser):
    """Images over gRPC, all on one stream."""

    protocol = "gRPC-stream"

    def connect(self) -> Client:
        return ImagesStream(self.host or "", IMAGES)


class TensorsHttpUser(LoadUser):
    """Tensors over HTTP, by the Open Inference Protocol."""

    protocol = "tensors-HTTP"

    def connect(self) -> Client:
        return TensorsHttp(self.host or "", self.environment.parsed_options.model, MOST_IN_FLIGHT)


class TensorsGrpcUser(LoadUser):
    """Tensors over gRPC, by the Open Inference Protocol."""

    protocol = "tensors-gRPC"

    def connect(self) -> Client:
        return TensorsGrpc(self.host or "", self.environment.parsed_options.model)


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """For the command line alone: what is typed into locust's page comes too late for the stages."""
    parser.add_argument("--model", default="", include_in_web_ui=False, help="Model that tensors are for")
    parser.add_argument(
        "--rate-per-user",
        type=positive,
        include_in_web_ui=False,
        help="Requests per second of each user, at random moments, instead of one after another without a pause",
    )
    parser.add_argument(
        "--shape",
        choices=SHAPES,
        include_in_web_ui=False,
        help="How the load goes over --run-time, with --users at most",
    )


@events.init.add_listener  # type: ignore[untyped-decorator]
def _choose_stages(environment: Environment, **_: Any) -> None:
    """A master's options go to its workers, the stages with them."""
    options = environment.parsed_options
    assert options
    if options.shape and not (options.num_users and options.run_time):
        raise ValueError("--shape needs --users and --run-time")
    users, run_time_s = options.num_users or 1, options.run_time or math.inf
    options.stages = stages(options.shape, users, run_time_s, options.rate_per_user)
    if options.shape:
        environment.shape_class = staged.Staged(options.stages, options.spawn_rate or users)
        environment.shape_class.runner = environment.runner


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _tell_progress(environment: Environment, **_: Any) -> None:
    """Where locust is to print its summary alone, a line now and then says that the run goes on."""
    options = environment.parsed_options
    if options and options.only_summary and options.run_time:
        gevent.spawn(progress.tell, environment, options.run_time)


@events.test_stop.add_listener  # type: ignore[untyped-decorator]
def _let_the_files_be_written(environment: Environment, **_: Any) -> None:
    """Locust writes its CSV files once a second, and not at the end."""
    if environment.parsed_options and environment.parsed_options.csv_prefix:
        time.sleep(1.1 * locust.stats.CSV_STATS_INTERVAL_SEC)
