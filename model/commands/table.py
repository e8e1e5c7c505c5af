"""The command `table`."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.commands.arguments import DATA, Commands, at_least, row_epochs, row_name
from model.data import load, load_classes
from model.device import device_for
from model.nets import NETS
from model.table import as_markdown, check_data, make_row, planned_epochs, read_rows, write_rows


def add(commands: Commands) -> None:
    command = commands.add_parser("table", help="train, export and measure network after network, a row for each")
    command.add_argument("data", help=DATA)
    command.add_argument("--repository", type=Path, required=True, help="the model repository's folder")
    command.add_argument(
        "--runs", type=Path, required=True, help="folder for the runs, and for table.json and table.md"
    )
    command.add_argument(
        "--rows",
        nargs="+",
        type=row_name,
        metavar="ROW",
        default=list(NETS),
        help="networks, with a + and a loss where it is not the recipe's: linear+svm; default: all networks",
    )
    command.add_argument(
        "--epochs",
        nargs="+",
        type=row_epochs,
        metavar="ROW=N",
        default=[],
        help="of rows; 0 not to train; default: the recipes'",
    )
    command.add_argument("--image-size", type=at_least(1), default=32, help="height and width in pixels, default: 32")
    command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    command.set_defaults(run_command=_table)


def _table(options: argparse.Namespace) -> None:
    device, epochs = device_for(options.device), dict(options.epochs)
    dataset = load(options.data, "train", image_size=options.image_size)
    test = load_classes(options.data, "test", dataset.classes, image_size=options.image_size)
    file = options.runs / "table.json"
    begun = read_rows(file)
    check_data(begun, options.data, dataset)
    rows = {row.name: row for row in begun}
    for name in options.rows:
        planned = planned_epochs(name, epochs.get(name), options.image_size)
        if name in rows and rows[name].epochs == planned:
            print(f"{name}: is in {file} already")
            continue
        print(f"{name}: {planned} epochs" if planned else f"{name}: not trained")
        rows[name] = make_row(
            name,
            epochs.get(name),
            dataset,
            test,
            repository=options.repository,
            runs=options.runs,
            device=device,
            origin={"command": options.command, "data": options.data, "skip_broken": False},
        )
        write_rows(file, list(rows.values()))
    print(as_markdown(list(rows.values())))
