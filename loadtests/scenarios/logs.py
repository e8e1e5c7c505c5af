"""What LoadGen itself says of a run, read from its logs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NAMED = re.compile(r"\s*(?P<name>[^:]+?)\s*:\s*(?P<value>\S.*)")
DETAIL = ":::MLLOG "


@dataclass(frozen=True)
class Verdict:
    """LoadGen's summary of a run in performance mode.

    Attributes:
        valid: VALID, rather than INVALID.
        reasons: why it is not, in LoadGen's words.
        values: every `name : value` of the summary.
    """

    valid: bool
    reasons: tuple[str, ...]
    values: dict[str, str]


def parse_summary(text: str) -> Verdict:
    """Read mlperf_log_summary.txt.

    Raises:
        ValueError: it holds no verdict; in accuracy mode LoadGen gives none.
    """
    values = {found["name"]: found["value"].strip() for line in text.splitlines() if (found := NAMED.fullmatch(line))}
    if values.get("Result is") not in {"VALID", "INVALID"}:
        raise ValueError(f"LoadGen's summary holds no verdict: {text}")
    valid = values["Result is"] == "VALID"
    reasons = [] if valid else _points(text, "Recommendations:")
    if values.get("Early stopping satisfied") == "NO":
        reasons.append(" ".join(_points(text, "Early Stopping Result:")))
    return Verdict(valid, tuple(reasons), values)


def _points(text: str, heading: str) -> list[str]:
    """The points below a heading, each on one line. A point begins with a star, and may go on in the next line."""
    points: list[str] = []
    for line in text.partition(f"{heading}\n")[2].splitlines():
        if line.startswith(" * "):
            points.append(line[3:].strip())
        elif line.startswith(" ") and points:
            points[-1] += f" {line.strip()}"
        else:
            break
    return points


def parse_detail(text: str) -> dict[str, Any]:
    """Read mlperf_log_detail.txt: the value of every key; of one that is there several times, the last."""
    entries = (json.loads(line.removeprefix(DETAIL)) for line in text.splitlines() if line.startswith(DETAIL))
    return {entry["key"]: entry["value"] for entry in entries}


def count_correct(text: str, labels: Sequence[str]) -> int:
    """Read mlperf_log_accuracy.json: how many images have their own label as the answer, each counted once.

    Args:
        labels: of the images, by LoadGen's index. MultiStream fills its last query with some of them again.

    Raises:
        ValueError: an image has no answer in it.
    """
    answers = {entry["qsl_idx"]: bytes.fromhex(entry["data"]).decode() for entry in json.loads(text)}
    if missing := set(range(len(labels))) - answers.keys():
        raise ValueError(f"LoadGen's accuracy log lacks {len(missing):,} of {len(labels):,} images")
    return sum(answers[index] == label for index, label in enumerate(labels))
