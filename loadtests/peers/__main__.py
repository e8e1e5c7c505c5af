"""Command line: `python -m loadtests.peers` measures Fovea beside other model servers."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from loadtests.arguments import count, positive
from loadtests.command import run
from loadtests.h2load import require_h2load
from loadtests.peers.facts import describe, describe_peer
from loadtests.peers.fovea import FOVEA, FOVEA_FRONTS, FOVEA_NATIVE
from loadtests.peers.litserve import LITSERVE
from loadtests.peers.model import opened_model
from loadtests.peers.mosec import MOSEC
from loadtests.peers.naive_fastapi import FASTAPI
from loadtests.peers.result import Ceiling, Measurement, NotMeasured, Outcome, Result
from loadtests.peers.run import Plan, measure
from loadtests.peers.table import OURS, page
from loadtests.peers.tiny import TINY
from loadtests.peers.triton import TRITON
from loadtests.report.numbers import number
from loadtests.results import new_results_folder

USUAL = (FOVEA, FOVEA_NATIVE, TRITON, MOSEC, FASTAPI, LITSERVE)
PEERS = {peer.name.lower().replace(" ", "-"): peer for peer in (*USUAL, FOVEA_FRONTS)}


def main(arguments: list[str] | None = None) -> int:
    """Measure; 1 when Fovea failed a request or could not be measured."""
    parser = _parser()
    options = parser.parse_args(arguments)
    require_h2load()
    peers = [PEERS[name] for name in dict.fromkeys(options.peers)]
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        try:
            models = [stack.enter_context(opened_model(name)) for name in dict.fromkeys(options.models)]
        except (FileNotFoundError, ValueError) as error:
            parser.error(str(error))
        folder = new_results_folder()
        facts = describe(models, rounds=options.rounds, duration_s=options.duration_s, seed=options.seed)
        counts = sorted(set(options.connections))
        for outcome in measure(Plan(models, peers, counts, options.rounds, options.duration_s, options.seed, folder)):
            outcomes.append(outcome)
            print(_line(outcome), flush=True)
    result = Result.of(outcomes, facts, {peer.name: describe_peer(peer) for peer in peers})
    result.write(folder / "peers.json")
    (folder / "peers.md").write_text(page(result))
    print(f"\n{page(result)}\nIn {folder}")
    return 1 if _fovea_failed(result) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.peers",
        description="Measure Fovea, other model servers and ONNX Runtime alone in turns: the same model, the same "
        "tensors, this machine. The servers are installed, each into an environment of its own in .tools/peers, when "
        "they are measured for the first time.",
    )
    parser.add_argument(
        "--models", nargs="+", default=["cifar10", TINY], metavar="NAME",
        help=f"of the model repository FOVEA_MODEL_REPOSITORY or the bundled one, or {TINY}, a LeNet that costs next "
        "to nothing; default: cifar10 tiny",
    )  # fmt: skip
    usual = [name for name, peer in PEERS.items() if peer in USUAL]
    parser.add_argument(
        "--peers", nargs="+", default=usual, choices=PEERS, help=f"default: all but {', '.join(PEERS.keys() - usual)}"
    )
    parser.add_argument("--connections", nargs="+", type=count, default=[1, 64], metavar="N", help="default: 1 64")
    parser.add_argument("--rounds", type=count, default=3, help="default: %(default)s")
    parser.add_argument("--duration-s", type=positive, default=2.0, help="seconds of each load, default: 2")
    parser.add_argument("--seed", type=int, default=0, help="of the order, default: %(default)s")
    return parser


def _line(outcome: Outcome) -> str:
    """What is said of it while the rest is still to come."""
    if isinstance(outcome, Ceiling):
        subject = f"round {outcome.round}, {outcome.model}: ONNX Runtime alone"
        return f"{subject}, {outcome.sessions} sessions, batch size {outcome.batch_size}: {outcome.images_per_s:,.0f}/s"
    server = f"round {outcome.subject.round}, {outcome.subject.model}: {outcome.subject.peer}, {outcome.subject.wire}"
    if isinstance(outcome, NotMeasured):
        return f"{server}: not measured: {outcome.reason}"
    if isinstance(outcome, Measurement):
        failed = f", {outcome.failed} failed" if outcome.failed else ""
        return f"{server}, {outcome.connections} connections: {outcome.requests_per_s:,.0f}/s{failed}"
    return f"{server}: started in {number(outcome.cold_start_s)} s, {outcome.pss_bytes / 1e6:,.0f} MB"


def _fovea_failed(result: Result) -> bool:
    return any(each.failed for each in result.measurements if each.subject.peer.startswith(OURS)) or any(
        each.subject.peer.startswith(OURS) for each in result.not_measured
    )


if __name__ == "__main__":
    run(main)
