"""What a request costs the service beside inference."""

from __future__ import annotations

import http.client
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psutil
from PIL import Image

from loadtests.machine import cores
from loadtests.metrics import mean_between, read_metrics
from loadtests.plan.curve import Front
from loadtests.target import Target

TIMEOUT_S = 60.0
IN_FLIGHT = 16
ALONE = 200
"""Requests that are sent one at a time."""
SMALL_BYTES = 16 * 2**10
SMALL_PIXELS = 128 * 128
"""Images of up to so many bytes and pixels are decoded on the service's event loop, larger ones in threads."""


def measure_front(target: Target, model: str, image: bytes, requests: int) -> Front:
    """Send the image over HTTP again and again to a service that this process has started.

    Decoding and postprocessing are the means of the service's own stage histograms while it answers one request at a
    time, so that a stage takes as much processor time as time. Transport is the rest of the processor time of the event
    loop's thread while it answers several at a time: a loop that has nothing else to do is woken up for every single
    step of a request, which costs a multiple of what it costs where the capacity is decided.

    Args:
        requests: to send several at a time.

    Ends the program where a request fails, or the system does not tell a thread's processor time.
    """
    if sys.platform != "linux":
        raise SystemExit("error: the processor time of a thread is known on Linux only: give --front-ms")
    before = read_metrics(target.metrics)
    _send(target, model, image, ALONE)
    after = read_metrics(target.metrics)
    decode_s, postprocessing_s = (
        mean_between(before, after, "fovea_stage_duration_seconds", stage=stage, model=model) or 0.0
        for stage in ("decode", "postprocessing")
    )
    service = _listening(target)
    start_s = _loop_s(service)
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        each = -(-requests // IN_FLIGHT)
        for sent in [threads.submit(_send, target, model, image, each) for _ in range(IN_FLIGHT)]:
            sent.result()
    loop_s = (_loop_s(service) - start_s) / (each * IN_FLIGHT)
    small = _small(image)
    return Front(
        transport_ms=round(1e3 * max(0.0, loop_s - postprocessing_s - (decode_s if small else 0.0)), 4),
        decode_ms=round(1e3 * decode_s, 4),
        postprocessing_ms=round(1e3 * postprocessing_s, 4),
        decode_threads=0 if small else cores(),
        source=f"measured over {each * IN_FLIGHT:,} requests over HTTP, {IN_FLIGHT} in flight",
    )


def _listening(target: Target) -> psutil.Process:
    """The child that serves the metrics."""
    port = urlsplit(target.metrics).port
    (service,) = (
        child
        for child in psutil.Process().children()
        if port in {connection.laddr.port for connection in child.net_connections("tcp") if connection.laddr}
    )
    return service


def _loop_s(service: psutil.Process) -> float:
    """Processor time so far of the thread that the event loop is in: the main one."""
    (thread,) = (thread for thread in service.threads() if thread.id == service.pid)
    return thread.user_time + thread.system_time


def _send(target: Target, model: str, image: bytes, requests: int) -> None:
    """One request after the other, on one connection."""
    connection = http.client.HTTPConnection(urlsplit(target.http).netloc, timeout=TIMEOUT_S)
    try:
        for _ in range(requests):
            connection.request("POST", f"/v1/classify?model={model}", image, {"content-type": "image/jpeg"})
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise SystemExit(f"error: the service answers {response.status}: {answer.decode()}")
    except (OSError, http.client.HTTPException) as error:
        raise SystemExit(f"error: the service does not answer: {error}") from None
    finally:
        connection.close()


def _small(image: bytes) -> bool:
    with Image.open(io.BytesIO(image)) as opened:
        return len(image) <= SMALL_BYTES and opened.width * opened.height <= SMALL_PIXELS
