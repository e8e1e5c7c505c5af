"""What the rounds say of the servers of one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from loadtests.inprocess import Arrangement
from loadtests.peers.result import Measurement, Result, Start
from loadtests.report.levels import Spread

Server = tuple[str, str]
"""A peer and a wire."""


@dataclass(frozen=True)
class Figures:
    """One model's part of a result."""

    result: Result
    model: str

    @property
    def counts(self) -> list[int]:
        """Of connections."""
        return sorted({each.connections for each in self.result.measurements})

    @property
    def servers(self) -> list[Server]:
        """In the order of the peers, those that were measured at all."""
        measured = {(each.subject.peer, each.subject.wire) for each in self._measurements()}
        return sorted(measured, key=lambda server: (list(self.result.peers).index(server[0]), server[1] != "HTTP"))

    @property
    def arrangements(self) -> dict[Arrangement, dict[int, float]]:
        """Images per second of ONNX Runtime alone, by round."""
        rates: dict[Arrangement, dict[int, float]] = {}
        for each in self.result.ceilings:
            if each.model == self.model:
                rates.setdefault(Arrangement(each.sessions, each.batch_size), {})[each.round] = each.images_per_s
        return rates

    @property
    def ceiling(self) -> Arrangement:
        """The best in the median."""
        rates = self.arrangements
        return max(rates, key=lambda arrangement: median(rates[arrangement].values()))

    def of(self, server: Server, count: int, figure: Callable[[Measurement], float | None]) -> Spread | None:
        return Spread.of(figure(each) for each in self._measurements(server) if each.connections == count)

    def of_start(self, server: Server, figure: Callable[[Start], float]) -> Spread | None:
        starts = (each for each in self.result.starts if each.subject.model == self.model)
        return Spread.of(figure(each) for each in starts if (each.subject.peer, each.subject.wire) == server)

    def failed(self, server: Server) -> int:
        return sum(each.failed for each in self._measurements(server))

    def generator_busy(self, server: Server) -> float:
        return max(each.generator_busy for each in self._measurements(server))

    def best_share(self, server: Server) -> Spread | None:
        """Of the ceiling, at the number of connections where it is best."""
        ceiling = self.arrangements[self.ceiling]
        shares = [_ratio(self._rates(server, count), ceiling) for count in self.counts]
        return max((share for share in shares if share), key=lambda share: share.median, default=None)

    def ratio(self, server: Server, to: Server, count: int) -> Spread | None:
        """Of their requests per second; None: there is no round with both."""
        return _ratio(self._rates(server, count), self._rates(to, count))

    def _rates(self, server: Server, count: int) -> dict[int, float]:
        """Requests per second by round."""
        measured = (each for each in self._measurements(server) if each.connections == count)
        return {each.subject.round: each.requests_per_s for each in measured}

    def _measurements(self, server: Server | None = None) -> list[Measurement]:
        return [
            each
            for each in self.result.measurements
            if each.subject.model == self.model and server in (None, (each.subject.peer, each.subject.wire))
        ]


def _ratio(rates: Mapping[int, float], to: Mapping[int, float]) -> Spread | None:
    """Of rates of the same round."""
    return Spread.of(rate / to[number] for number, rate in rates.items() if to.get(number))
