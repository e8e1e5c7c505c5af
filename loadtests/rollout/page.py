"""What a rollout under load came to, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from loadtests.rollout.measure import Rollout, Round


def page(result: Rollout) -> str:
    canary, shadow = result.canary, result.shadow
    lines = [
        "| canary | requests | mean confidence | mean inference, queue included |",
        "|---|---|---|---|",
        *(
            f"| {role} | {side.requests} | {_known(side.confidence, '.3f')} | {_known(side.inference_ms, '.2f')} ms |"
            for role, side in (("version 1, current", canary.current), ("version 2, canary", canary.canary))
        ),
        "",
        f"Shadow: {shadow.compared} images compared, on {_known(shadow.agreed / (shadow.compared or math.nan), '.1%')} "
        f"of them the same class; mean confidence {_known(shadow.current_confidence, '.3f')} (current) and "
        f"{_known(shadow.confidence, '.3f')} (shadow); "
        f"{shadow.dropped} copies dropped, {shadow.failed} failed.",
        "",
        f"| load, shadow share 1 over none | {' | '.join(MEASURES)} |",
        "|---|" + "---|" * len(MEASURES),
        f"| open, {result.rate_per_s:.0f} requests/s | {' | '.join(ratios(result.open))} |",
        f"| closed, 8 in flight | {' | '.join(ratios(result.closed))} |",
        "",
        f"{result.requests} requests, {result.failed} failed.",
    ]
    return "\n".join(lines)


MEASURES = {"answers/s": "per_s", "p50": "p50_ms", "p99": "p99_ms", "CPU time for an answer": "cpu_ms"}


def ratios(rounds: Sequence[Round]) -> list[str]:
    """Of each measure: the median over pairs of rounds of what it is with a shadow over what it is without, and the
    range."""
    without, shadowed = ([each for each in rounds if each.shadowed is which] for which in (False, True))
    cells = []
    for name in MEASURES.values():
        pairs = [getattr(a, name) / (getattr(b, name) or math.nan) for a, b in zip(shadowed, without, strict=True)]
        known = [ratio for ratio in pairs if not math.isnan(ratio)]
        cells.append(f"{median(known):.2f} ({min(known):.2f} to {max(known):.2f})" if known else "–")
    return cells


def _known(value: float, digits: str) -> str:
    return "–" if math.isnan(value) else format(value, digits)
