"""`python -m loadtests.ceiling`: how much of ONNX Runtime's own rate is left when the model is served, JPEGs in."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from itertools import product
from pathlib import Path

from google.protobuf import text_format
from prometheus_client.samples import Sample
from tritonclient.grpc import model_config_pb2

from loadtests.arguments import count
from loadtests.ceiling_table import Round, Served, ceiling_table
from loadtests.command import run
from loadtests.decoder import Decoder
from loadtests.fetch import fetch
from loadtests.h2load import HTTP1, HTTP2, IN_FLIGHT, connections, grpc_frame, require_h2load, time_h2load
from loadtests.images import SIZES, draw
from loadtests.inprocess import Arrangement, measure_arrangements, measure_decoding_too
from loadtests.machine import cores, describe_machine
from loadtests.metrics import mean_between, read_metrics, total
from loadtests.peers.model import WRITTEN, opened_model
from loadtests.results import new_results_folder
from loadtests.target import Target, model_repository, started_service
from service.pb.fovea.v1 import classifier_pb2 as pb

CLASSIFY = "/fovea.v1.Classifier/Classify"
BATCH_SIZES = (1, 8)
DECODE_S = 2.0
"""At most, of the bare loop and of the service alone."""

DRAWN = {f"{width}x{height}": (width, height) for width, height in SIZES}


def main(arguments: list[str] | None = None) -> int:
    """Measure round by round; 1 when a request failed."""
    options = _parser().parse_args(arguments)
    require_h2load()
    contents = [file.read_bytes() for file in options.image] or [draw(0, DRAWN[options.size])]
    with ExitStack() as stack:
        opened = stack.enter_context(opened_model(options.model)) if options.model else None
        repository = opened.repository if opened else model_repository()
        in_process = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        target = stack.enter_context(started_service(repository))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        name, version = _serving(target, contents[0])
        model = repository / name / version / "model.onnx"
        config = (repository / name / "config.pbtxt").read_text()
        decoder = Decoder.of(text_format.Parse(config, model_config_pb2.ModelConfig()))
        facts = _facts(options, contents, f"{name} version {version}", decoder)
        rounds = []
        for number in range(1, options.rounds + 1):
            print(f"round {number} of {options.rounds} …", flush=True)
            content = contents[(number - 1) % len(contents)]
            rounds.append(_round(in_process, target, model, decoder, content, scratch, options.duration_s))

    failed = sum(served.failed for each in rounds for served in each.served.values())
    table = ceiling_table(rounds, {**facts, "Failures": f"{failed:,}"})
    folder = new_results_folder()
    (folder / "ceiling.md").write_text(table)
    print(f"\n{table}\nIn {folder}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.ceiling",
        description="Compare the rate of the service, under h2load over HTTP/1.1 and over gRPC, with that of ONNX "
        "Runtime alone, without and with decoding, in turns; and its time to decode with that of the decoder. Serves "
        "the model repository FOVEA_MODEL_REPOSITORY, or the bundled one.",
    )
    parser.add_argument(
        "--model", metavar="NAME",
        help=f"the only one served, of that repository or made on the spot: {', '.join(WRITTEN)}; unset: all of it, "
        "and the default model is asked",
    )  # fmt: skip
    images = parser.add_mutually_exclusive_group()
    images.add_argument(
        "--image", type=Path, nargs="+", default=[], metavar="FILE", help="JPEGs to send, another in each round"
    )
    images.add_argument("--size", choices=DRAWN, default="32x32", help="instead: of a drawn one, default: %(default)s")
    parser.add_argument("--rounds", type=count, default=3, help="default: %(default)s")
    parser.add_argument("--duration-s", type=count, default=8, help="seconds of each part of a round, default: 8")
    return parser


def _facts(options: argparse.Namespace, contents: list[bytes], served: str, decoder: Decoder) -> dict[str, str]:
    sizes = ", ".join(f"{len(content):,}" for content in contents[: options.rounds])
    images = (
        f"JPEGs of {sizes} bytes, another in each round"
        if options.image
        else f"a drawn {options.size} JPEG of {sizes} bytes"
    )
    settings = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("FOVEA_"))
    return {
        "Time": f"{datetime.now():%Y-%m-%d %H:%M}",
        "Machine": f"{describe_machine()}; it also ran the load generator",
        "Served": served,
        "Variables": ", ".join(settings) or "no FOVEA_ variable is set",
        "Image": f"{images}, for {decoder.width}x{decoder.height} pixels out of a short side of "
        f"{decoder.resize_short_side}",
        "Ceilings": "ONNX Runtime sessions of one thread, with images already decoded, or each decoding its own",
        "Load": f"h2load, {IN_FLIGHT} requests in flight, one image each; its rate is the slope of answers over time",
        "Rounds": f"{options.rounds}, {options.duration_s} s for each part",
    }


def _round(
    in_process: ProcessPoolExecutor,
    target: Target,
    model: Path,
    decoder: Decoder,
    content: bytes,
    scratch: Path,
    duration_s: int,
) -> Round:
    alone = [Arrangement(cores(), size) for size in BATCH_SIZES]
    decoding = [Arrangement(*each) for each in product((cores(), cores() + 1), BATCH_SIZES)]
    decode_s = min(DECODE_S, duration_s)
    image, message = scratch / "image.jpg", scratch / "message"
    image.write_bytes(content)
    message.write_bytes(grpc_frame(pb.ClassifyRequest(images=[content]).SerializeToString()))
    return Round(
        alone=in_process.submit(measure_arrangements, model, decoder.decode(content), alone, duration_s).result(),
        decoding=in_process.submit(measure_decoding_too, model, content, decoder, decoding, duration_s).result(),
        decode_us=in_process.submit(decoder.mean_us, content, decode_s).result(),
        served={
            "HTTP/1.1, one request at a time": _http(target, image, connections(1, http1=True), decode_s),
            "HTTP/1.1": _http(target, image, HTTP1, duration_s),
            "gRPC": _grpc(target, message, duration_s),
        },
    )


def _serving(target: Target, image: bytes) -> tuple[str, str]:
    """The model, and its version, that answer a request which names none."""
    answer = json.loads(fetch(f"{target.http}/v1/classify", image, "image/jpeg"))
    return answer["model"], answer["version"]


def _http(target: Target, body: Path, arguments: tuple[str, ...], duration_s: float) -> Served:
    before = read_metrics(target.metrics)
    load = time_h2load(arguments, f"{target.http}/v1/classify", body, {"content-type": "image/jpeg"}, duration_s)
    return Served(load.per_s(duration_s), load.counts.failed, _decode_us(before, read_metrics(target.metrics)))


def _grpc(target: Target, body: Path, duration_s: float) -> Served:
    """A call that fails has HTTP status 200 all the same: what counts is what the service says."""
    headers = {"content-type": "application/grpc", "te": "trailers"}
    before = read_metrics(target.metrics)
    load = time_h2load(HTTP2, f"http://{target.grpc}{CLASSIFY}", body, headers, duration_s)
    after = read_metrics(target.metrics)
    succeeded = load.counts.succeeded
    answered = min(succeeded, _answered(after) - _answered(before))
    per_s = load.per_s(duration_s) * answered / max(1, succeeded)
    return Served(per_s, load.counts.failed + succeeded - answered, _decode_us(before, after))


def _answered(samples: Sequence[Sample]) -> int:
    return int(total(samples, "fovea_requests_total", protocol="grpc", code="OK"))


def _decode_us(before: Sequence[Sample], after: Sequence[Sample]) -> float | None:
    mean_s = mean_between(before, after, "fovea_stage_duration_seconds", stage="decode")
    return None if mean_s is None else 1e6 * mean_s


if __name__ == "__main__":
    run(main)
