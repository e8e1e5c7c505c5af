"""An instance: a session, and how a batch is made for it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from service.backends.engine import Session
from service.batching import BatchOutput
from service.errors import InferenceError
from service.tensors import Array, Tensors, TensorSpec


class Instance:
    """Makes a batch of items, runs it, and takes it apart again.

    Args:
        inputs, outputs: what items are made of.
        batched: whether the first axis of every tensor is the batch.
        batch_sizes: the sizes the session may see, ascending; a batch is padded to the next one. Empty: any.
    """

    def __init__(
        self,
        session: Session,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        batched: bool,
        batch_sizes: Sequence[int] = (),
    ) -> None:
        self._session = session
        self._input_names = [spec.name for spec in inputs]
        self._output_names = [spec.name for spec in outputs]
        self._batched = batched
        self._batch_sizes = batch_sizes

    @property
    def provider(self) -> str:
        return self._session.provider

    @property
    def rows_at_once(self) -> int | None:
        """More rows than these it runs in parts; None: any number at once."""
        return None if self._batch_sizes else self._session.rows_at_once

    def run(self, items: Sequence[Tensors]) -> BatchOutput[Tensors]:
        """Join the items along the batch axis, run them, and take the outputs apart again; takes its time."""
        start = time.perf_counter()
        if self._batched:
            rows = [len(item[0]) for item in items]
            total = sum(rows)
            padded = next((size for size in self._batch_sizes if size >= total), total)
            room = self._session.room(padded) or {}
            batch = [
                self._join([item[i] for item in items], total, padded, room.get(name))
                for i, name in enumerate(self._input_names)
            ]
        else:
            (item,) = items
            batch = list(item)
        assembled = time.perf_counter()
        outputs = self._infer(batch, padded if self._batched else 1)
        inferred = time.perf_counter()
        if self._batched:
            if any(len(output) != padded for output in outputs):
                raise InferenceError(f"the graph gives {[len(output) for output in outputs]} rows for {padded}")
            results, at = [], 0
            for count in rows:
                results.append(tuple(output[at : at + count] for output in outputs))
                at += count
        else:
            results = [tuple(outputs)]
        return BatchOutput(results, assembled - start, inferred - assembled, time.perf_counter() - inferred)

    def close(self) -> None:
        """End the session; idle by then."""
        self._session.close()

    def _infer(self, batch: Sequence[Array], rows: int) -> list[Array]:
        step = self.rows_at_once
        if step is None or rows <= step:
            return self._session.run(dict(zip(self._input_names, batch, strict=True)), self._output_names)
        parts = [
            self._session.run(
                {name: array[at : at + step] for name, array in zip(self._input_names, batch, strict=True)},
                self._output_names,
            )
            for at in range(0, rows, step)
        ]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _join(self, parts: Sequence[Array], total: int, padded: int, room: Array | None) -> Array:
        first = parts[0]
        if room is not None and room.shape[1:] != first.shape[1:]:
            room = None  # For the session to say what is wrong with it.
        if room is None and len(parts) == 1 and padded == total:
            return first
        joined = np.empty((padded, *first.shape[1:]), first.dtype) if room is None else room
        at = 0
        for part in parts:
            joined[at : at + len(part)] = part
            at += len(part)
        joined[total:] = b"" if first.dtype == np.object_ else 0
        return joined
