"""The skew gate: a model version's golden sample must come out here as it did where it was trained.

`golden.jpg` is an image, `golden.npz` holds what training made of it: `pixels` (H, W, 3) uint8, `logits`
(K,) float32, `pixel_tolerance` (largest difference of a level) and `logit_tolerance` (largest
difference relative to the largest absolute logit). Of a model of features it holds `features` (D,) float32 and
`feature_tolerance` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from service.errors import FoveaError, ModelError
from service.images import ImageLimits, Pixels, Preprocessing, decode

NO_LIMITS = ImageLimits(max_bytes=2**40, max_pixels=2**40, max_frames=2**40)
"""The sample is as trusted as the graph beside it: what clients may send has no say in it."""


def check_golden(
    folder: Path,
    preprocessing: Preprocessing,
    infer: Callable[[Pixels], npt.NDArray[np.generic]],
    *,
    kind: Literal["logit", "feature"] = "logit",
) -> bool:
    """Check a version's folder; False where it has no golden sample.

    Args:
        infer: (H, W, 3) uint8 pixels to (K,) logits or (D,) features.
        kind: which of them.

    Raises:
        ModelError: the sample came out differently; the message says what, and by how much.
    """
    image, expected = folder / "golden.jpg", folder / "golden.npz"
    if not image.is_file() and not expected.is_file():
        return False
    try:
        with expected.open("rb") as file, np.load(file, allow_pickle=False) as golden:
            pixels, outputs = golden["pixels"], golden[f"{kind}s"]
            pixel_tolerance, tolerance = int(golden["pixel_tolerance"]), float(golden[f"{kind}_tolerance"])
        decoded = decode(image.read_bytes(), preprocessing, NO_LIMITS)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, FoveaError) as error:
        raise ModelError(f"golden sample: cannot be read: {error}") from error

    if decoded.shape != pixels.shape:
        raise ModelError(f"golden sample: pixels are {decoded.shape} here, {pixels.shape} in training")
    difference = int(np.abs(decoded.astype(np.int16) - pixels).max())
    if difference > pixel_tolerance:
        raise ModelError(
            f"golden sample: preprocessing differs from training by up to {difference} levels "
            f"(allowed: {pixel_tolerance})"
        )
    inferred = infer(decoded).astype(np.float32)
    if inferred.shape != outputs.shape:
        raise ModelError(f"golden sample: {kind}s are {inferred.shape} here, {outputs.shape} in training")
    deviation = float(np.abs(inferred - outputs).max() / np.abs(outputs).max())
    # Written so that NaN fails too.
    if not deviation <= tolerance:
        raise ModelError(f"golden sample: {kind}s differ by {deviation:.2g} of the largest (allowed: {tolerance:.2g})")
    if kind == "logit" and inferred.argmax() != outputs.argmax():
        raise ModelError(f"golden sample: class {inferred.argmax()} here, {outputs.argmax()} in training")
    return True
