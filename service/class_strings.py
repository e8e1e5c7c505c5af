"""Triton's classification extension: an output's highest values as strings, "value:index:label"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.errors import InvalidInputError
from service.tensors import Array, TensorSpec


def class_strings(values: Array, spec: TensorSpec, labels: Sequence[str], count: int, *, batched: bool) -> Array:
    """The `count` highest values of each row, in descending order, ties by index.

    Args:
        values: (N, …) where `batched`, else (…); everything but the batch axis is one list of classes.
        labels: by index; a class beyond them, or of an empty one, has none, and its string ends with the index.

    Returns:
        (N, K) or (K,) of bytes, K the smaller of `count` and the number of classes.

    Raises:
        InvalidInputError: the output's datatype has no such strings.
    """
    if spec.datatype in ("BYTES", "FP16"):
        raise InvalidInputError(f"class result not available for output due to unsupported type '{spec.datatype}'")
    rows = values.reshape(len(values), -1) if batched else values.reshape(1, -1)
    form = "{:f}" if spec.datatype in ("FP32", "FP64") else "{:d}"
    strings = np.empty((len(rows), min(count, rows.shape[1])), np.object_)
    for at, row in enumerate(rows):
        for place, index in enumerate(_descending(row)[: strings.shape[1]].tolist()):
            parts = [form.format(row[index].item()), str(index), *filter(None, labels[index : index + 1])]
            strings[at, place] = ":".join(parts).encode()
    return strings if batched else strings[0]


def _descending(row: Array) -> Array:
    # The stable order of the reversed row, read backwards: unlike a negated row, it holds for every integer type.
    return len(row) - 1 - np.argsort(row[::-1], kind="stable")[::-1]
