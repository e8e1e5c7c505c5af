"""`python -m loadtests.accuracy FOLDER`: whether what is served is as accurate as what was exported."""

from __future__ import annotations

import argparse
import base64
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from loadtests.command import run
from loadtests.fetch import fetch
from loadtests.target import Target, started_service
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc

IN_FLIGHT = 8
MOST_IMAGES = 20
TIMEOUT_S = 60.0

Send = Callable[[list[bytes]], list[str]]
"""Encoded images to the label of each, or what kept it from having one."""


def main(arguments: list[str] | None = None) -> int:
    """Send every image over both protocols; 1 when an answer was not a label."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.accuracy",
        description="Classify every image of a folder over HTTP and over gRPC, in requests of 1 to 20 images, by a "
        "service that it starts with the model repository FOVEA_MODEL_REPOSITORY or the bundled one.",
    )
    parser.add_argument("folder", type=Path, help="<class>/<image>, as the test split of an image folder")
    options = parser.parse_args(arguments)
    labelled = [(path.parent.name, path) for path in sorted(options.folder.glob("*/*")) if path.is_file()]
    if not labelled:
        parser.error(f"{options.folder}: holds no images (layout: <class>/<image>)")
    random.Random(0).shuffle(labelled)

    answered = set()
    with started_service() as target, grpc.insecure_channel(target.grpc) as channel:
        stub = classifier_pb2_grpc.ClassifierStub(channel)
        for protocol, send in (("HTTP", _over_http(target)), ("gRPC", _over_grpc(stub))):
            labels = _classify([path for _, path in labelled], send)
            correct = sum(label == name for label, (name, _) in zip(labels, labelled, strict=True))
            print(f"{protocol}: accuracy {correct / len(labelled):.4f} on {len(labelled):,} images")
            answered.update(labels)
    strange = answered - {name for name, _ in labelled}
    if strange:
        print(f"answers that are no class of the folder: {', '.join(sorted(strange)[:5])}")
    return 1 if strange else 0


def _classify(paths: list[Path], send: Send) -> list[str]:
    sizes = random.Random(1)
    requests = []
    while paths:
        count = sizes.randint(1, MOST_IMAGES)
        requests.append([path.read_bytes() for path in paths[:count]])
        paths = paths[count:]
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        return [label for labels in threads.map(send, requests) for label in labels]


def _over_http(target: Target) -> Send:
    def send(images: list[bytes]) -> list[str]:
        body = json.dumps({"images": [base64.b64encode(image).decode() for image in images], "top_k": 1}).encode()
        results = json.loads(fetch(f"{target.http}/v1/classify", body, "application/json"))["results"]
        return [result["predictions"][0]["label"] if "predictions" in result else result["error"] for result in results]

    return send


def _over_grpc(stub: classifier_pb2_grpc.ClassifierStub) -> Send:
    def send(images: list[bytes]) -> list[str]:
        response: pb.ClassifyResponse = stub.Classify(pb.ClassifyRequest(images=images, top_k=1), timeout=TIMEOUT_S)
        return [
            result.classification.predictions[0].label if result.HasField("classification") else result.error.message
            for result in response.results
        ]

    return send


if __name__ == "__main__":
    run(main)
