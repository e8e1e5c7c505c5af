from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from model.nets.arithmetic import NetError, Window, after


@pytest.mark.parametrize(
    ("size", "window", "positions"),
    [
        # CS231n's lecture on CNNs: 7x7 with a 3x3 filter at stride 1, 2 and 3; with a border of zeros.
        (7, Window(3), Fraction(5)),
        (7, Window(3, 2), Fraction(3)),
        (7, Window(3, 3), Fraction(7, 3)),
        (7, Window(3, 1, 1), Fraction(7)),
        # 32x32 with 5x5 filters: stride 1 and pad 2; without, 32 to 28 to 24.
        (32, Window(5, 1, 2), Fraction(32)),
        (32, Window(5), Fraction(28)),
        (28, Window(5), Fraction(24)),
        # AlexNet's first layer as the lecture has it: 227x227, 11x11 at stride 4.
        (227, Window(11, 4), Fraction(55)),
        # Pooling 2x2 at stride 2.
        (224, Window(2, 2), Fraction(112)),
        # Two apart, 3x3 covers 5x5.
        (7, Window(3, dilation=2), Fraction(3)),
    ],
)
def test_the_lectures_examples(size: int, window: Window, positions: Fraction) -> None:
    assert window.positions(size) == positions


@pytest.mark.parametrize(
    ("size", "window", "message"),
    [
        (7, Window(3, 3), "(7 - 3 + 2*0)/3 + 1 = 2.33 is not whole: N = 6 or 9, P = 1, or S = 2 would fit"),
        (32, Window(5, 2), "(32 - 5 + 2*0)/2 + 1 = 14.50 is not whole: N = 31 or 33, or S = 1 or 3 would fit"),
        (9, Window(3, 4, 2), "(9 - 3 + 2*2)/4 + 1 = 3.50 is not whole: N = 7 or 11, P = 1, or S = 2 would fit"),
        (7, Window(2, 3, 1), "(7 - 2 + 2*1)/3 + 1 = 3.33 is not whole: N = 6 or 9, P = 2, or S = 1 would fit"),
        (4, Window(5), "(4 - 5 + 2*0)/1 + 1 = 0 is less than 1: N must be at least 5"),
        (3, Window(3, dilation=2), "(3 - 5 + 2*0)/1 + 1 = -1 is less than 1: N must be at least 5"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(size: int, window: Window, message: str) -> None:
    assert window.misfit(size) == message


def fits(window: Window, size: int) -> bool:
    return window.positions(size) >= 1 and window.positions(size).denominator == 1


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_nearest_values_that_are_told_do_fit(stride: int, padding: int, dilation: int) -> None:
    for size in range(5, 14):
        window = Window(3, stride, padding, dilation)
        misfit = window.misfit(size)
        out = nn.Conv2d(1, 1, 3, stride, padding, dilation)(torch.zeros(1, 1, size, size)).size(2)
        assert out == int(window.positions(size))
        if misfit is None:
            assert window.positions(size) == out
            continue
        told = dict(part.strip().removeprefix("or ").split(" = ") for part in misfit.split(": ")[1][:-10].split(","))
        sizes, strides = ([int(n) for n in told[key].split(" or ")] for key in ("N", "S"))
        fitting = [near for near in range(1, 30) if fits(window, near)]
        assert sizes == [max(near for near in fitting if near < size), min(near for near in fitting if near > size)]
        fitting = [
            near for near in range(1, max(stride, window.extent) + 1) if fits(replace(window, stride=near), size)
        ]
        below, above = ([near for near in fitting if near < stride], [near for near in fitting if near > stride])
        assert strides == [max(below), *sorted(above)[:1]]
        fitting = [near for near in range(30) if fits(replace(window, padding=near), size)]
        assert ("P" in told) == bool(fitting)
        if fitting:
            assert int(told["P"]) in fitting
            assert abs(int(told["P"]) - padding) == min(abs(near - padding) for near in fitting)


def test_only_paddings_that_the_window_takes_are_told() -> None:
    without = "(7 - 3 + 2*0)/3 + 1 = 2.33 is not whole: N = 6 or 9, or S = 2 would fit"
    assert Window(3, 3).misfit(7, most_padding=0) == without
    assert Window(3, 3).misfit(7, most_padding=1) == without.replace(", or S", ", P = 1, or S")
    # P = 2 would fit.
    found = "(8 - 3 + 2*0)/3 + 1 = 2.67 is not whole: N = 6 or 9, or S = 1 would fit"
    assert Window(3, 3).misfit(8, most_padding=1) == found
    assert Window(2, 2).misfit(8) is None


def test_windows_one_after_another() -> None:
    assert after((3, 32, 28), Window(5), Window(5)) == (24, 20)
    assert after((3, 224, 224), Window(11, 4, 2), Window(3, 2)) == (27, 27)
    with pytest.raises(NetError) as refused:
        after((3, 20, 8), Window(5), Window(5))
    assert str(refused.value) == (
        "an input of 3x20x8 is too small: at window 2 of 2, (4 - 5 + 2*0)/1 + 1 = 0, and must be at least 1: "
        "3x9x9 or larger would fit"
    )
