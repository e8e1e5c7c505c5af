from __future__ import annotations

from fractions import Fraction

import pytest

from service.share import EvenShare, parse_share


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("0", Fraction(0)),
        ("0.1", Fraction(1, 10)),
        ("0.29", Fraction(29, 100)),
        ("1", Fraction(1)),
        ("1.000", Fraction(1)),
    ],
)
def test_a_share_is_what_is_written(text: str, share: Fraction) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize("text", ["", "1.1", "2", "-0.1", "10%", "1/10", "1e-1", ".1", "0,1", "nan", "0.1\n", "٠.١"])
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a number from 0 to 1, as 0\.1"):
        parse_share(text)


def taken(share: str, of: int) -> list[bool]:
    even = EvenShare(parse_share(share))
    found = []
    for _ in range(of):
        found.append(even.due)
        even.count()
    return found


@pytest.mark.parametrize("share", ["0", "0.1", "0.29", "0.333333333", "0.5", "0.9", "1"])
def test_any_stretch_has_its_share(share: str) -> None:
    found = taken(share, 1000)
    for length in (1, 7, 10, 100, 1000):
        for begin in range(0, 1001 - length, 13):
            exact = float(parse_share(share)) * length
            assert abs(sum(found[begin : begin + length]) - exact) < 1 + 1e-9
    assert sum(found) == int(parse_share(share) * 1000)


def test_ten_percent_are_every_tenth() -> None:
    assert [number for number, due in enumerate(taken("0.1", 40), 1) if due] == [10, 20, 30, 40]
    assert sum(taken("0.1", 5000)) == 500
