"""The metrics of several processes as those of one service."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.samples import Sample

Key = tuple[str, tuple[tuple[str, str], ...]]


class Sums:
    """What a registry is to an encoder: families whose samples are the sums over processes.

    Args:
        processes: the families of each; those of the first come first.
    """

    def __init__(self, processes: Iterable[Iterable[Metric]]) -> None:
        self._families = summed(processes)

    def collect(self) -> Iterable[Metric]:
        return self._families


def summed(processes: Iterable[Iterable[Metric]]) -> list[Metric]:
    """One family of each name, and in it one sample of each name and labels."""
    families: dict[str, Metric] = {}
    samples: dict[str, dict[Key, Sample]] = {}
    for process in processes:
        for family in process:
            if family.name not in families:
                families[family.name] = Metric(family.name, family.documentation, family.type, family.unit)
                samples[family.name] = {}
            known = samples[family.name]
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                have = known.get(key)
                known[key] = sample if have is None else sample._replace(value=have.value + sample.value)
    for name, family in families.items():
        family.samples = list(samples[name].values())
    return list(families.values())
