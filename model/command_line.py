"""The command line of the training package, and how its refusals are told."""

from __future__ import annotations

import argparse
import shlex
import sys

from model.commands import combine, evaluate, export, summary, table, train, variant, visualize
from model.committee import CombineError
from model.data import DataError
from model.export import ExportError
from model.nets.arithmetic import NetError
from model.optimizers import OptimizerError
from model.pictures.figure import PictureError
from model.recipe import RecipeError
from model.repository import RepositoryError
from model.run import RunError
from model.variants.kind import VariantError
from model.workers import WorkerError, program, rank

COMMANDS = (train, evaluate, export, combine, variant, summary, table, visualize)

REFUSALS = (
    CombineError,
    DataError,
    ExportError,
    NetError,
    OptimizerError,
    PictureError,
    RecipeError,
    RepositoryError,
    RunError,
    VariantError,
    WorkerError,
)
"""What is told in one line."""


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    other = f"worker {rank()}: " if rank() else ""
    options.command = shlex.join([*program(), *arguments])
    try:
        options.run_command(options)
    except (*REFUSALS, OSError) as error:
        print(f"{other}error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        if not other:
            print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fovea-model", description="Train, evaluate and export image classifiers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
