"""A share of a sequence, taken evenly: of any N in a row it is the nearest whole number, not a matter of chance."""

from __future__ import annotations

import re
from fractions import Fraction

FORM = re.compile(r"[01](\.\d{1,9})?")


def parse_share(text: str) -> Fraction:
    """A share as it is written, exactly: 0.1 is one in ten.

    Raises:
        ValueError: it is no number from 0 to 1.
    """
    if FORM.fullmatch(text) and (share := Fraction(text)) <= 1:
        return share
    raise ValueError(f"{text!r}: must be a number from 0 to 1, as 0.1")


class EvenShare:
    """Which ones of a sequence are in the share: with 0.1 the tenth, the twentieth, …

    Attributes:
        due: whether the next one is.
    """

    def __init__(self, share: Fraction) -> None:
        self._step, self._whole = share.numerator, share.denominator
        self._sum = 0
        self.due = share == 1

    def count(self) -> None:
        """The next one has come."""
        self._sum = (self._sum + self._step) % self._whole
        self.due = self._sum + self._step >= self._whole
