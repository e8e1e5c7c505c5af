"""`python -m loadtests.ceiling`: how much of ONNX Runtime's own rate is left when the model is served."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path

from loadtests.ceiling_table import Round, ceiling_table
from loadtests.command import run
from loadtests.fetch import fetch
from loadtests.h2load import HTTP1, HTTP2, IN_FLIGHT, Counts, grpc_frame, require_h2load, run_h2load
from loadtests.images import SIZES, draw
from loadtests.inprocess import measure_in_process
from loadtests.machine import cores, describe_machine
from loadtests.metrics import read_metrics, total
from loadtests.results import new_results_folder
from loadtests.target import Target, model_repository, started_service
from service.pb.fovea.v1 import classifier_pb2 as pb

CLASSIFY = "/fovea.v1.Classifier/Classify"


def main(arguments: list[str] | None = None) -> int:
    """Measure round by round; 1 when a request failed."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.ceiling",
        description="Compare the rate of the service, under h2load over HTTP/1.1 and over gRPC, with that of ONNX "
        "Runtime alone, in turns. Serves the model repository FOVEA_MODEL_REPOSITORY, or the bundled one.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--duration-s", type=int, default=8, help="seconds of each part of a round, default: 8")
    parser.add_argument("--image", type=Path, metavar="FILE", help="JPEG to send; unset: a drawn one, 32x32")
    options = parser.parse_args(arguments)
    require_h2load()
    content = options.image.read_bytes() if options.image else draw(0, SIZES[0])

    in_process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as scratch, started_service() as target, in_process:
        image, message = Path(scratch, "image.jpg"), Path(scratch, "message")
        image.write_bytes(content)
        message.write_bytes(grpc_frame(pb.ClassifyRequest(images=[content]).SerializeToString()))
        model, version = _serving(target, content)
        path = model_repository() / model / version / "model.onnx"
        facts = {
            "Time": f"{datetime.now():%Y-%m-%d %H:%M}",
            "Machine": f"{describe_machine()}; it also ran the load generator",
            "Served": f"{model} version {version}",
            "Ceiling": f"{cores()} ONNX Runtime sessions of one thread, images already decoded",
            "Load": f"h2load, {IN_FLIGHT} requests in flight, each with one JPEG of {len(content):,} bytes",
            "Rounds": f"{options.rounds}, {options.duration_s} s for each part",
        }
        rounds, failed = [], 0
        for number in range(1, options.rounds + 1):
            print(f"round {number} of {options.rounds} …", flush=True)
            ceiling = in_process.submit(measure_in_process, path, image, options.duration_s).result()
            counts = {
                "HTTP/1.1": _load_http(target, image, options.duration_s),
                "gRPC": _load_grpc(target, message, options.duration_s),
            }
            failed += sum(count.failed for count in counts.values())
            served = {protocol: count.succeeded / options.duration_s for protocol, count in counts.items()}
            rounds.append(Round(ceiling, served))

    table = ceiling_table(rounds, {**facts, "Failures": f"{failed:,}"})
    folder = new_results_folder()
    (folder / "ceiling.md").write_text(table)
    print(f"\n{table}\nIn {folder}")
    return 1 if failed else 0


def _serving(target: Target, image: bytes) -> tuple[str, str]:
    """The model, and its version, that answer a request which names none."""
    answer = json.loads(fetch(f"{target.http}/v1/classify", image, "image/jpeg"))
    return answer["model"], answer["version"]


def _load_http(target: Target, body: Path, duration_s: int) -> Counts:
    return run_h2load(HTTP1, f"{target.http}/v1/classify", body, {"content-type": "image/jpeg"}, duration_s)


def _load_grpc(target: Target, body: Path, duration_s: int) -> Counts:
    """Load over gRPC. A call that fails has HTTP status 200 all the same: what counts is what the service says."""
    headers = {"content-type": "application/grpc", "te": "trailers"}
    before = _answered(target)
    counts = run_h2load(HTTP2, f"http://{target.grpc}{CLASSIFY}", body, headers, duration_s)
    wrong = max(0, counts.succeeded - (_answered(target) - before))
    return Counts(counts.succeeded - wrong, counts.failed + wrong)


def _answered(target: Target) -> int:
    return int(total(read_metrics(target.metrics), "fovea_requests_total", protocol="grpc", code="OK"))


if __name__ == "__main__":
    run(main)
