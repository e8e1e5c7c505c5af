"""What a kind of variant is, and how far one may be from its model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from model.images import Pixels


class VariantError(Exception):
    """A variant cannot be made, or is too far from the model it was made from."""


@dataclass(frozen=True)
class Kind:
    """How a variant is made, and how far it may be from float32, and from itself where it is served.

    Attributes:
        convert: a float32 graph, and (N, H, W, 3) uint8 images to calibrate on, to the variant's graph.
        calibrated: whether that needs images.
        error: largest mean over images of the largest difference of a logit, relative to the largest absolute one.
        agreement: least share of images with the same top-1.
        logit_tolerance: the golden sample's.
    """

    description: str
    convert: Callable[[onnx.ModelProto, Pixels], onnx.ModelProto]
    calibrated: bool
    error: float
    agreement: float
    logit_tolerance: float
