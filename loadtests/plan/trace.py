"""Arrivals that were recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loadtests.plan.fleet import Traffic


def read_trace(path: Path, images: int) -> Traffic:
    """Arrival times of requests: a text file, one time in seconds on each line, ascending, from any moment on.

    Args:
        images: of a request.

    Ends the program where the file is none such.
    """
    try:
        moments_s = np.loadtxt(path, np.float64, ndmin=1)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {path}: {error}; must be one time in seconds on each line") from None
    if moments_s.ndim != 1 or not np.isfinite(moments_s).all() or (np.diff(moments_s) < 0).any():
        raise SystemExit(f"error: {path}: must be one time in seconds on each line, ascending")
    if len(moments_s) < 2 or moments_s[0] == moments_s[-1]:
        raise SystemExit(f"error: {path}: must have arrivals at two moments at least")
    moments_s = moments_s - moments_s[0]
    return Traffic((len(moments_s) - 1) / float(moments_s[-1]), images, moments_s)
