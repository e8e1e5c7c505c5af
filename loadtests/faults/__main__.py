"""Command line: `python -m loadtests.faults` breaks what can break under load, and prints what was lost."""

from __future__ import annotations

import argparse
import asyncio

from loadtests.arguments import positive
from loadtests.command import run
from loadtests.faults.fault import HEAD, row
from loadtests.faults.faults import FAULTS


def main(arguments: list[str] | None = None) -> int:
    """Provoke the faults; 1 when requests were lost that should not have been, or never answered."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.faults",
        description="Start the service with the bundled model, load it over HTTP and gRPC, provoke a fault, and say "
        "what became of the requests that were accepted; one fault after the other.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FAULTS)}; default: all")
    parser.add_argument(
        "--seconds", type=positive, default=5.0, help="of steady load before and after each fault, default: 5"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - FAULTS.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")

    failed = False
    print("\n".join(HEAD), flush=True)
    for name in options.names or FAULTS:
        fault = FAULTS[name]
        if reason := fault.missing():
            print(f"| {fault.title} | not tried: {reason} | | | |", flush=True)
            continue
        finding = asyncio.run(fault.provoke(options.seconds))
        print(row(fault, finding), flush=True)
        failed |= bool(finding.lost and not fault.loses)
    return int(failed)


if __name__ == "__main__":
    run(main)
