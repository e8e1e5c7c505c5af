"""What the command lines have in common: numbers, and which service is loaded."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext

from loadtests.target import Target, started_service
from loadtests.targets.detect import NAMES


def add_service_options(parser: argparse.ArgumentParser) -> None:
    running = parser.add_argument_group("a service that runs (all three, as it announced them)")
    running.add_argument("--target", metavar="URL", help="http://host:8000")
    running.add_argument("--grpc", metavar="ADDRESS", help="host:8001")
    running.add_argument("--metrics", metavar="URL", help="http://host:8002/metrics")


def add_hardware_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hardware", choices=NAMES, help="what is watched, where the service is started here; default: what is found"
    )


def chosen_service(parser: argparse.ArgumentParser, options: argparse.Namespace) -> AbstractContextManager[Target]:
    """The service at the given addresses; without them, one of our own as long as the block runs.

    Ends the program where one of the addresses is given without the others.
    """
    given = (options.target, options.grpc, options.metrics)
    if not any(given):
        return started_service()
    if not all(given):
        parser.error("--target, --grpc and --metrics go together")
    return nullcontext(Target(*given))


def count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value
