"""The command `summary`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from model.commands.arguments import Commands, at_least, shape
from model.summary import summarise, table


def add(commands: Commands) -> None:
    command = commands.add_parser("summary", help="a network's layers: shapes, parameters, cost, receptive field")
    command.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a network as of train --net; or layers, one after another: conv2d:filters=10,F=5,S=1,P=2,D=1,G=1 "
        "maxpool:F=2,S=2 avgpool:F=2 fc:units=10 relu",
    )
    command.add_argument("--input", type=shape, default=(3, 32, 32), help="channels x height x width, default: 3x32x32")
    command.add_argument("--num-classes", type=at_least(1), default=10, help="default: %(default)s")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run_command=_summary)


def _summary(options: argparse.Namespace) -> None:
    found = summarise(options.names, options.num_classes, options.input)
    print(json.dumps(asdict(found)) if options.json else table(found))
