"""How the learning rate goes over a run: factors of the highest one, by the share of the steps that are done."""

from __future__ import annotations

import math
from collections.abc import Callable

WARM_UP = 0.3
"""Share of a one-cycle run in which the rate rises."""

START = 1 / 25
"""Where it begins, relative to the highest one."""


def _one_cycle(step: int, steps: int) -> float:
    done = step / steps
    if done < WARM_UP:
        return START + (1 - START) * done / WARM_UP
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda step, steps: 1.0,
    # Down to zero.
    "linear": lambda step, steps: 1 - step / steps,
    # Divided by 10 after a half and after three quarters, as ResNet's on CIFAR-10 (He et al. 2015).
    "step": lambda step, steps: 0.1 ** ((2 * step >= steps) + (4 * step >= 3 * steps)),
    # Half a wave, down to zero (Loshchilov & Hutter 2016), without restarts.
    "cosine": lambda step, steps: (1 + math.cos(math.pi * step / steps)) / 2,
    # Up from a twenty-fifth within three tenths, then half a wave down to zero (Smith & Topin 2017); momentum stays.
    "one-cycle": _one_cycle,
}
"""By name: from the step, 0 to `steps` - 1, and the number of steps, to the factor, 0 to 1."""
