"""The served rate against the ceiling, as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Round:
    """Images per second in one round: in process by batch size, served by protocol."""

    in_process: dict[int, float]
    served: dict[str, float]

    @property
    def ceiling(self) -> float:
        """The better arrangement's."""
        return max(self.in_process.values())


def ceiling_table(rounds: Sequence[Round], facts: dict[str, str]) -> str:
    """Medians and ranges over the rounds; each ratio is one of rates of the same round."""
    lines = ["# Served rate against the ceiling", "", *(f"- {name}: {fact}" for name, fact in facts.items()), ""]
    lines += [
        "| | images/s, median | range | served / ceiling, median | range |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for batch_size in rounds[0].in_process:
        rates = _spread([each.in_process[batch_size] for each in rounds], ",.0f")
        lines.append(f"| ONNX Runtime alone, batch size {batch_size} | {rates} | | |")
    for protocol in rounds[0].served:
        rates = _spread([each.served[protocol] for each in rounds], ",.0f")
        ratios = _spread([each.served[protocol] / each.ceiling for each in rounds], ".1%")
        lines.append(f"| {protocol} | {rates} | {ratios} |")
    lines += ["", "The ceiling is the better of the two batch sizes, in each round."]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} | {min(values):{form}} – {max(values):{form}}"
