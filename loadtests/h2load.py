"""h2load, a load generator that costs little processor time itself: what it sends, and what it counted."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

IN_FLIGHT = 64
HTTP1 = ("--h1", "--clients", "64")
HTTP2 = ("--clients", "8", "--max-concurrent-streams", "8")

COUNTS = re.compile(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")


@dataclass(frozen=True)
class Counts:
    """Requests answered with an HTTP status 2xx, and all others that came to an end."""

    succeeded: int
    failed: int


def require_h2load() -> None:
    if shutil.which("h2load") is None:
        raise SystemExit("error: h2load is not installed; Debian and Ubuntu have it in the package nghttp2-client")


def run_h2load(arguments: tuple[str, ...], url: str, body: Path, headers: dict[str, str], duration_s: int) -> Counts:
    """Send the body again and again, with IN_FLIGHT requests unanswered at any time.

    Args:
        arguments: HTTP1 or HTTP2.
    """
    command = ["h2load", *arguments, "--duration", str(duration_s), "--data", str(body)]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    return parse_h2load(subprocess.run([*command, url], check=True, capture_output=True, text=True).stdout)


def parse_h2load(output: str) -> Counts:
    found = COUNTS.search(output)
    if found is None:
        raise ValueError(f"h2load did not say how many requests succeeded: {output}")
    succeeded, failed, errored, timeout = map(int, found.groups())
    return Counts(succeeded, failed + errored + timeout)
