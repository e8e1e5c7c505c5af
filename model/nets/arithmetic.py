"""Where a window comes to stand: the arithmetic of convolution and pooling, (N - F + 2P)/S + 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

InputShape = tuple[int, int, int]
"""(C, H, W): channels, height and width in pixels."""


class NetError(ValueError):
    """A network cannot be built as asked; the message shows the arithmetic and what would fit."""


@dataclass(frozen=True)
class Window:
    """A square filter or pooling window, in pixels of its input.

    Attributes:
        size: F, its side.
        stride: S, how far it moves.
        padding: P, the zeros on each border.
        dilation: the distance between two of its elements.
    """

    size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    @property
    def extent(self) -> int:
        """The side that it covers, the gaps of its dilation included."""
        return self.dilation * (self.size - 1) + 1

    def positions(self, size: int) -> Fraction:
        """(N - F + 2P)/S + 1: how many places it has along an input of `size` pixels. Whole, if it fits."""
        return Fraction(size - self.extent + 2 * self.padding, self.stride) + 1

    def arithmetic(self, size: int) -> str:
        """The same, written out with its result."""
        found = self.positions(size)
        result = str(found) if found.denominator == 1 else f"{float(found):.2f}"
        return f"({size} - {self.extent} + 2*{self.padding})/{self.stride} + 1 = {result}"

    def misfit(self, size: int, *, most_padding: int | None = None) -> str | None:
        """Why it does not fit an input of `size` pixels, and the nearest values that do; None where it fits.

        Args:
            most_padding: of this window; None where it has no bound.
        """
        found = self.positions(size)
        if found < 1:
            return f"{self.arithmetic(size)} is less than 1: N must be at least {self.extent - 2 * self.padding}"
        if found.denominator == 1:
            return None
        rest = (size - self.extent + 2 * self.padding) % self.stride
        sizes = [near for near in (size - rest, size - rest + self.stride) if near > 0]
        bound = self.padding + self.stride - 1 if most_padding is None else most_padding
        paddings = [p for p in range(min(self.padding + self.stride, bound + 1)) if self._fits(size, padding=p)]
        paddings.sort(key=lambda p: abs(p - self.padding))
        strides = [
            *[s for s in range(self.stride, 0, -1) if self._fits(size, stride=s)][:1],
            # A stride beyond the window would leave pixels out between two of its places.
            *[s for s in range(self.stride, self.extent + 1) if self._fits(size, stride=s)][:1],
        ]
        nearest = [f"N = {_either(sizes)}", *(f"P = {p}" for p in paddings[:1]), f"S = {_either(strides)}"]
        return f"{self.arithmetic(size)} is not whole: {', '.join(nearest[:-1])}, or {nearest[-1]} would fit"

    def _fits(self, size: int, *, stride: int | None = None, padding: int | None = None) -> bool:
        other = Window(
            self.size, stride or self.stride, self.padding if padding is None else padding, self.dilation
        ).positions(size)
        return other >= 1 and other.denominator == 1


def after(input_shape: InputShape, *windows: Window) -> tuple[int, int]:
    """Height and width that are left after these windows, one after another, each rounded down as PyTorch does.

    Raises:
        NetError: one of them finds no place.
    """
    channels, *sides = input_shape
    for number, window in enumerate(windows, 1):
        for size in sides:
            if window.positions(size) < 1:
                needed = 1
                for each in reversed(windows):
                    needed = max(1, (needed - 1) * each.stride + each.extent - 2 * each.padding)
                raise NetError(
                    f"an input of {'x'.join(map(str, input_shape))} is too small: at window {number} of "
                    f"{len(windows)}, {window.arithmetic(size)}, and must be at least 1: "
                    f"{channels}x{needed}x{needed} or larger would fit"
                )
        sides = [math.floor(window.positions(size)) for size in sides]
    return sides[0], sides[1]


def _either(values: list[int]) -> str:
    return " or ".join(str(value) for value in values)
