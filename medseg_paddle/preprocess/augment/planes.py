"""The last step of a training image: normalised planes, in one pass over the pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess.augment.arrays import Image


def planes(image: Image) -> NDArray[np.float32]:
    """CHW float32 from HWC uint8 or float32, as a new array."""
    result = np.empty((image.shape[2], *image.shape[:2]), np.float32)
    result[...] = image.transpose(2, 0, 1)
    return result


class NormalizedPlanes:
    """``(x / 255 - mean) / std`` of an image HWC, as CHW.

    Of uint8 it is bit for bit PaddleSeg's ``Normalize``, from a table; of float32 it is ``a x + b``, within
    1e-6 of it.

    Parameters
    ----------
    mean, std : sequence of float
        One number for all channels, or one per channel.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        count = max(len(mean), len(std))
        means, deviations = np.broadcast_to(mean, count), np.broadcast_to(std, count)
        self._factors = (1 / (255 * deviations)).astype(np.float32)
        self._offsets = (-means / deviations).astype(np.float32)
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        # As PaddleSeg: differences and quotients in float64, each rounded to float32.
        shifted = (levels - means[:, None]).astype(np.float32)
        self._tables = (shifted / deviations[:, None]).astype(np.float32)

    def __call__(self, image: Image) -> NDArray[np.float32]:
        """CHW float32 from HWC uint8 or float32, as a new array."""
        result = np.empty((image.shape[2], *image.shape[:2]), np.float32)
        for channel, plane in enumerate(result):
            kind = channel % len(self._factors)
            source = image[:, :, channel]
            if image.dtype == np.uint8:
                cv2.LUT(np.ascontiguousarray(source), self._tables[kind], dst=plane)
            else:
                np.multiply(source, self._factors[kind], out=plane)
                np.add(plane, self._offsets[kind], out=plane)
        return result
