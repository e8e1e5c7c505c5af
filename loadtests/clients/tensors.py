"""Tensors made up for a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype


def made_up(datatype: str, shape: Iterable[int]) -> NDArray[Any]:
    """Noise for an input as the model's metadata describes it; an axis that is open (-1) gets the length 1.

    Raises:
        ValueError: the input is not of numbers.
    """
    dtype = triton_to_np_dtype(datatype)
    if dtype in (None, np.object_):
        raise ValueError(f"the model takes {datatype}, and only numbers can be made up")
    # What every datatype can hold.
    return np.random.default_rng(0).integers(0, 128, [abs(length) for length in shape]).astype(dtype)
