"""Variants of an exported float32 model, each published as a model of its own: what kinds there are."""

from __future__ import annotations

from model.variants.float16 import FLOAT16
from model.variants.int8 import INT8
from model.variants.kind import Kind
from model.variants.optimised import OPTIMISED

PRECISIONS: dict[str, Kind] = {"int8": INT8, "float16": FLOAT16}
KINDS: dict[str, Kind] = {**PRECISIONS, "optimised": OPTIMISED}
