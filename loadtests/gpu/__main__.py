"""Command line: `python -m loadtests.gpu` holds what is served against what ONNX Runtime and the hardware can do."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from loadtests.arguments import add_hardware_option, count, positive
from loadtests.command import run
from loadtests.gpu.limits import Rates, limits, work_of
from loadtests.gpu.measure import BATCH_SIZES, IMAGES, Plan, measure
from loadtests.gpu.page import page
from loadtests.gpu.result import Result, Served, Subject
from loadtests.h2load import require_h2load
from loadtests.machine import describe_machine
from loadtests.peers.answers import WrongAnswerError
from loadtests.peers.model import WRITTEN, opened_model
from loadtests.peers.process import ServerFailedError
from loadtests.peers.protocol import NotAnsweredError
from loadtests.peers.result import Ceiling
from loadtests.report.numbers import number
from loadtests.results import new_results_folder
from loadtests.target import model_repository
from loadtests.targets.detect import detect
from loadtests.targets.tesla import bandwidths


def main(arguments: list[str] | None = None) -> int:
    """Measure; 1 when a request failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    require_h2load()
    device_id = int(os.environ.get("FOVEA_DEVICE_ID") or 0) if options.execution_provider == "cuda" else None
    known = {} if device_id is None else bandwidths(device_id)
    link, memory = options.link_gb_per_s, options.memory_gb_per_s
    rates = Rates(
        tflops=dict(options.tflops),
        link_bytes_per_s=1e9 * link if link else known.get("link"),
        memory_bytes_per_s=1e9 * memory if memory else known.get("memory"),
    )
    with ExitStack() as stack:
        try:
            models = [stack.enter_context(opened_model(name)) for name in dict.fromkeys(options.models or _all())]
            works = [work_of(model.file) for model in models]
        except (FileNotFoundError, ValueError) as error:
            parser.error(str(error))
        folder = new_results_folder()
        largest = min(model.max_batch_size for model in models)
        if not (images := [size for size in options.images if size <= largest]):
            parser.error(f"--images: must be at most {largest}, the max_batch_size")
        hardware = detect(options.hardware or (None if device_id is None else "tesla"))
        plan = Plan(
            models=models,
            device_id=device_id,
            batch_sizes=options.batch_sizes,
            images=images,
            in_flight=options.in_flight,
            rounds=options.rounds,
            duration_s=options.duration_s,
            hardware=hardware,
            logs=folder,
        )
        outcomes: list[Ceiling | Served] = []
        try:
            for outcome in measure(plan):
                outcomes.append(outcome)
                print(_line(outcome), flush=True)
        except (ServerFailedError, NotAnsweredError, WrongAnswerError) as error:
            raise SystemExit(f"error: {error}") from None
    result = Result(
        facts=_facts(plan) | {f"Hardware, {name}": fact for name, fact in hardware.facts.items()},
        subjects=tuple(
            Subject(model.name, work, limits(work, rates, max(plan.batch_sizes)))
            for model, work in zip(models, works, strict=True)
        ),
        ceilings=tuple(each for each in outcomes if isinstance(each, Ceiling)),
        served=tuple(each for each in outcomes if isinstance(each, Served)),
    )
    result.write(folder / "gpu.json")
    (folder / "gpu.md").write_text(page(result))
    print(f"\n{page(result)}\nIn {folder}")
    return 1 if any(each.failed for each in result.served) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.gpu",
        description="Measure ONNX Runtime alone by batch size, and the service by protocol, images a request and where "
        "they are; hold both against what the hardware allows. Works on a CPU too.",
    )
    parser.add_argument(
        "--models", nargs="+", metavar="NAME",
        help="of the model repository FOVEA_MODEL_REPOSITORY or the bundled one, default: all of them; or made on the "
        f"spot: {', '.join(WRITTEN)}",
    )  # fmt: skip
    parser.add_argument(
        "--execution-provider", choices=("cpu", "cuda"), default=os.environ.get("FOVEA_EXECUTION_PROVIDER") or "cpu",
        help="default: that of FOVEA_EXECUTION_PROVIDER, or cpu",
    )  # fmt: skip
    parser.add_argument(
        "--batch-sizes", nargs="+", type=count, default=BATCH_SIZES, metavar="N",
        help="of ONNX Runtime alone, default: the powers of two from 1 to 128",
    )  # fmt: skip
    parser.add_argument(
        "--images", nargs="+", type=count, default=IMAGES, metavar="N",
        help="in a request, default: 1 8 32 128; those beyond a model's max_batch_size are left out",
    )  # fmt: skip
    parser.add_argument("--in-flight", type=count, default=512, metavar="IMAGES", help="default: %(default)s")
    parser.add_argument("--rounds", type=count, default=3, help="default: %(default)s")
    parser.add_argument("--duration-s", type=positive, default=5.0, help="seconds of each load, default: 5")
    add_hardware_option(parser)
    rates = parser.add_argument_group("what the hardware does, from its data sheet")
    rates.add_argument(
        "--tflops", nargs="+", type=_tflops, default=[], metavar="PRECISION=NUMBER", help="as float16=989 float32=495"
    )
    rates.add_argument("--link-gb-per-s", type=positive, help="from the host; default: NVML's, where it knows")
    rates.add_argument("--memory-gb-per-s", type=positive, help="of the GPU; default: NVML's, where it knows")
    return parser


def _tflops(text: str) -> tuple[str, float]:
    precision, _, value = text.partition("=")
    return precision, positive(value)


def _all() -> list[str]:
    return sorted(config.parent.name for config in model_repository().glob("*/config.pbtxt"))


def _facts(plan: Plan) -> dict[str, str]:
    settings = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("FOVEA_"))
    return {
        "Time": f"{datetime.now():%Y-%m-%d %H:%M}",
        "Machine": f"{describe_machine()}; it also ran the load generator",
        "On": "CPU" if plan.device_id is None else f"CUDA device {plan.device_id}",
        "ONNX Runtime": _onnx_runtime(),
        "Alone": "uint8 images as the model takes them, "
        + ("in this process" if plan.device_id is None else "in the GPU's memory already; float32 as TF32"),
        "Load": f"h2load over the loopback address, about {plan.in_flight} images in flight, one request unanswered on "
        f"each connection; {plan.duration_s:g} s",
        "Rounds": str(plan.rounds),
        "Energy": "over the load alone; idle power included",
        "Variables": ", ".join(settings) or "no FOVEA_ variable is set",
    }


def _onnx_runtime() -> str:
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "not installed as a package"


def _line(outcome: Ceiling | Served) -> str:
    """What is said of it while the rest is still to come."""
    start = f"round {outcome.round}, {outcome.model}"
    if isinstance(outcome, Ceiling):
        alone = f"{outcome.sessions} sessions alone, batch size {outcome.batch_size}"
        return f"{start}: {alone}: {number(outcome.images_per_s)} images/s"
    load = f"{outcome.wire}, {outcome.memory}, {outcome.images} images a request"
    return f"{start}: {load}: {number(outcome.images_per_s)} images/s, {outcome.failed} failed"


if __name__ == "__main__":
    run(main)
