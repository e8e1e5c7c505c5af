"""`fovea classify`: send image files to a running service over gRPC and show what it answers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.json_format import MessageToDict
from tqdm import tqdm

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
IN_FLIGHT = 32
TIMEOUT_S = 60.0
NO_LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
"""On messages: a picture may be large."""


@dataclass(frozen=True)
class Server:
    """A service, and what it wants of a client.

    Attributes:
        address: host and port of its gRPC.
        key: an API key; empty: none.
        ca: PEM certificates, one of which has signed the service's; None: no TLS.
    """

    address: str
    key: str = ""
    ca: bytes | None = None

    def connect(self) -> grpc.aio.Channel:
        """Context manager: a channel to it."""
        interceptors = [_Authorization(self.key)] if self.key else []
        if self.ca is None:
            return grpc.aio.insecure_channel(self.address, options=NO_LIMITS, interceptors=interceptors)
        credentials = grpc.ssl_channel_credentials(self.ca)
        return grpc.aio.secure_channel(self.address, credentials, options=NO_LIMITS, interceptors=interceptors)


class _Authorization(grpc.aio.UnaryUnaryClientInterceptor):
    """Gives every call the key."""

    def __init__(self, key: str) -> None:
        self._key = key

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        metadata = grpc.aio.Metadata(("authorization", f"Bearer {self._key}"))
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            client_call_details.timeout,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


Outcome = pb.ClassifyResponse | str
"""An answer, or why there is none."""


def classify_paths(
    paths: Sequence[Path], *, server: Server, model: str, version: str, top_k: int, as_json: bool
) -> int:
    """Classify files, and the image files below folders; 1 when any of them failed."""
    files = list(image_files(paths))
    if not files:
        print(f"error: no image files in {', '.join(map(str, paths))}", file=sys.stderr)
        return 1
    width = max(len(str(file)) for file in files)
    options = pb.ClassifyRequest(model=model, version=version, top_k=top_k)
    failures = asyncio.run(_classify(files, server, options, as_json, width))
    return 1 if failures else 0


def image_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files themselves, and the image files below the folders."""
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        else:
            yield path


async def _classify(files: list[Path], server: Server, options: pb.ClassifyRequest, as_json: bool, width: int) -> int:
    failures = 0
    async with server.connect() as channel:
        stub = classifier_pb2_grpc.ClassifierStub(channel)
        with tqdm(total=len(files), unit="images", disable=len(files) == 1 or not sys.stderr.isatty()) as bar:
            async for file, outcome in _outcomes(files, stub, options):
                failures += isinstance(outcome, str)
                tqdm.write(_json(file, outcome) if as_json else _row(file, outcome, width))
                bar.update()
    return failures


async def _outcomes(
    files: list[Path], stub: classifier_pb2_grpc.ClassifierStub, options: pb.ClassifyRequest
) -> AsyncIterator[tuple[Path, Outcome]]:
    """Every file's outcome in the files' order, some of them on their way at a time."""
    pending: list[tuple[Path, asyncio.Task[Outcome]]] = []
    remaining = iter(files)
    while True:
        while len(pending) < IN_FLIGHT and (file := next(remaining, None)) is not None:
            pending.append((file, asyncio.create_task(classify_file(file, stub, options))))
        if not pending:
            return
        file, task = pending.pop(0)
        yield file, await task


async def classify_file(file: Path, stub: classifier_pb2_grpc.ClassifierStub, options: pb.ClassifyRequest) -> Outcome:
    """Ask about one file, with the request's other fields from `options`."""
    request = pb.ClassifyRequest()
    request.CopyFrom(options)
    try:
        request.images.append(await asyncio.to_thread(file.read_bytes))
        response: pb.ClassifyResponse = await stub.Classify(request, timeout=TIMEOUT_S)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return response


def _row(file: Path, outcome: Outcome, width: int) -> str:
    if isinstance(outcome, str):
        return f"{file!s:<{width}}  error  {outcome}"
    predictions = outcome.results[0].classification.predictions
    return f"{file!s:<{width}}  " + "  ".join(f"{p.label} {100 * p.probability:.1f} %" for p in predictions)


def _json(file: Path, outcome: Outcome) -> str:
    if isinstance(outcome, str):
        return json.dumps({"file": str(file), "error": outcome})
    classification = MessageToDict(
        outcome.results[0].classification, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    timings = {name: int(value) for name, value in classification["timings"].items()}
    return json.dumps(
        {
            "file": str(file),
            "model": outcome.model,
            "version": outcome.version,
            "predictions": classification["predictions"],
            "timings": timings,
        }
    )
