"""What decoding costs without a service: the decoders' own calls in a bare loop, for the pixels that a model takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image
from tritonclient.grpc import model_config_pb2

RESIZE_SHORT_SIDE = "preprocessing.resize_short_side"
RESIZE_FILTER = "preprocessing.resize_filter"


@dataclass(frozen=True)
class Decoder:
    """From a JPEG to pixels: the short side resized, then the centre cropped out.

    Attributes:
        height, width: of the result, in pixels.
        resize_short_side: pixels.
        resize_filter: of Pillow's `Resampling`, by its value.
    """

    height: int
    width: int
    resize_short_side: int
    resize_filter: int

    @classmethod
    def of(cls, config: model_config_pb2.ModelConfig) -> Decoder:
        """As the config of a model with one input, (height, width, 3), says."""
        height, width, _ = config.input[0].dims
        short_side = config.parameters[RESIZE_SHORT_SIDE].string_value if RESIZE_SHORT_SIDE in config.parameters else ""
        name = config.parameters[RESIZE_FILTER].string_value if RESIZE_FILTER in config.parameters else "bilinear"
        return cls(height, width, int(short_side or max(height, width)), int(Image.Resampling[name.upper()]))

    def decode(self, image: bytes) -> np.ndarray[Any, Any]:
        """(height, width, 3) uint8, of a JPEG that is not turned."""
        pixels: np.ndarray[Any, Any] = simplejpeg.decode_jpeg(image, "RGB", fastdct=False, fastupsample=False)
        height, width, _ = pixels.shape
        short = min(height, width)
        if (height, width) == (self.height, self.width) and short == self.resize_short_side:
            return pixels
        width, height = self.resize_short_side * width // short, self.resize_short_side * height // short
        left, top = round((width - self.width) / 2), round((height - self.height) / 2)
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling(self.resize_filter))
        return np.asarray(resized.crop((left, top, left + self.width, top + self.height)))

    def mean_us(self, image: bytes, duration_s: float) -> float:
        """Microseconds of decoding the image, on one thread, over so many seconds."""
        self.decode(image)
        images, start = 0, time.perf_counter()
        while (passed_s := time.perf_counter() - start) < duration_s or not images:
            self.decode(image)
            images += 1
        return 1e6 * passed_s / images
