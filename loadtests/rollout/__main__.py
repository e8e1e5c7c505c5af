"""Command line: `python -m loadtests.rollout` tries one version of a model against another one under load."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import uvloop

from loadtests.arguments import count, positive
from loadtests.images import encoded_images
from loadtests.report.senders import sender
from loadtests.results import new_results_folder
from loadtests.rollout.measure import Rollout, RolloutLoad
from loadtests.rollout.page import page
from loadtests.rollout.repository import two_versions
from loadtests.target import BUNDLED_REPOSITORY, Target, started_service


def main(arguments: list[str] | None = None) -> int:
    """Roll out under load; 1 when a request failed or the canary did not get its share."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.rollout",
        description="Serve two versions of a model, send a share of the requests to the second one, then copies of all "
        "of them, with and without by turns; promote it and go back, all under load. The images are the JPEG files in "
        "the folder FOVEA_LOADTEST_IMAGES, or drawn ones.",
    )
    parser.add_argument("candidate", type=Path, help="version folder that is tried: <repository>/<model>/<version>")
    parser.add_argument(
        "--current",
        type=Path,
        default=BUNDLED_REPOSITORY / "cifar10" / "1",
        help="version folder, default: %(default)s",
    )
    parser.add_argument("--protocol", choices=("HTTP", "gRPC"), default="HTTP", help="default: HTTP")
    parser.add_argument("--requests", type=count, default=5000, help="for the canary, default: %(default)s")
    parser.add_argument("--share", default="0.1", help="the canary's, default: %(default)s")
    parser.add_argument("--rounds", type=count, default=6, help="pairs of rounds, default: %(default)s")
    parser.add_argument("--round-s", type=positive, default=5.0, help="seconds of a round, default: 5")
    options = parser.parse_args(arguments)

    images = encoded_images()
    with two_versions(options.current.parent, options.current, options.candidate) as model:
        polling = ("--model-control-mode", "poll", "--poll-interval-s", "0.1")
        with started_service(model.parent, *polling) as target:
            result = uvloop.run(_load(target, model, images, options))
    text = page(result)
    folder = new_results_folder()
    (folder / "rollout.md").write_text(text + "\n")
    print(f"{text}\n\nIn {folder}")
    exact = abs(result.canary.canary.requests - float(options.share) * options.requests) < 1
    return 0 if exact and not result.failed else 1


async def _load(target: Target, model: Path, images: Sequence[bytes], options: argparse.Namespace) -> Rollout:
    async with sender(options.protocol, target, images) as send:
        return await RolloutLoad(target, model, send).run(
            requests=options.requests, share=options.share, rounds=options.rounds, round_s=options.round_s
        )


if __name__ == "__main__":
    raise SystemExit(main())
