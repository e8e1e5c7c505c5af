"""What part of the image an output of a layer sees: followed through windows, branches and their joining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from model.nets.arithmetic import Window


@dataclass(frozen=True)
class Span:
    """Along one axis, what the first output sees, in input pixels: from `first` to `last`, and the way to the next.

    Padding lies outside the image, so `first` may be below 0.
    """

    first: Fraction
    last: Fraction
    stride: Fraction

    def through(self, window: Window) -> Span:
        first = self.first - window.padding * self.stride
        last = self.last + (window.extent - 1 - window.padding) * self.stride
        return Span(first, last, self.stride * window.stride)


@dataclass(frozen=True)
class Field:
    """The same in height and width."""

    vertical: Span
    horizontal: Span

    @classmethod
    def of_pixels(cls) -> Field:
        """A pixel of the image sees itself."""
        pixel = Span(Fraction(0), Fraction(0), Fraction(1))
        return cls(pixel, pixel)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in input pixels."""
        vertical, horizontal = (int(span.last - span.first) + 1 for span in (self.vertical, self.horizontal))
        return vertical, horizontal

    @property
    def stride(self) -> tuple[float, float]:
        """Input pixels from one output to the next, in height and width."""
        return float(self.vertical.stride), float(self.horizontal.stride)

    def through(self, windows: tuple[Window, Window]) -> Field:
        """What an output sees behind a convolution or pooling: F - 1 strides more, the next one S times as far."""
        return Field(self.vertical.through(windows[0]), self.horizontal.through(windows[1]))

    def adapted(self, sizes: Sequence[int], positions: Sequence[int]) -> Field | None:
        """The same behind a pooling that adapts its windows; None where there is one, which sees everything."""
        if all(count == 1 for count in positions):
            return None
        spans = []
        for span, size, count in zip((self.vertical, self.horizontal), sizes, positions, strict=True):
            # Its windows begin at floor(i * size / count) and end before ceil((i + 1) * size / count).
            widest = max(-(-(i + 1) * size // count) - i * size // count for i in range(count))
            spans.append(Span(span.first, span.last + (widest - 1) * span.stride, span.stride * Fraction(size, count)))
        return Field(*spans)


def joined(fields: Sequence[Field | None]) -> Field | None:
    """What is seen by the sum, or the concatenation, of branches: all that one of them sees."""
    first, *others = fields
    for other in others:
        if first is None or other is None:
            return None
        first = Field(_union(first.vertical, other.vertical), _union(first.horizontal, other.horizontal))
    return first


def _union(one: Span, other: Span) -> Span:
    return Span(min(one.first, other.first), max(one.last, other.last), max(one.stride, other.stride))
