"""The last step of a training image: normalised planes, written where the batch has its place."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess.augment.arrays import Image


def write_planes(image: Image, planes: NDArray[np.float32]) -> None:
    """Write HWC uint8 or float32 to planes CHW."""
    planes[...] = image.transpose(2, 0, 1)


class NormalizedPlanes:
    """``(x / 255 - mean) / std`` of an image HWC, as CHW: bit for bit PaddleSeg's ``Normalize``.

    PaddleSeg takes differences and quotients in float64 and rounds each to float32. Of uint8 only 256 values
    a channel are worked out, and looked up. Of float32 the arithmetic is in float32, which is faster, where mean
    and standard deviation are numbers of float32; for a difference or a quotient of such numbers the second
    rounding changes nothing, since 53 bits are at least 2 * 24 + 2.

    Parameters
    ----------
    mean, std : sequence of float
        One number for all channels, or one per channel.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        count = max(len(mean), len(std))
        self._means = [_narrowest(value) for value in np.broadcast_to(mean, count)]
        self._deviations = [_narrowest(value) for value in np.broadcast_to(std, count)]
        levels = np.arange(256, dtype=np.float32)
        self._tables = [np.empty_like(levels) for _ in range(count)]
        for kind, table in enumerate(self._tables):
            self._normalize(levels, kind, table)

    def __call__(self, image: Image) -> NDArray[np.float32]:
        """CHW float32 from HWC uint8 or float32, as a new array."""
        planes = np.empty((image.shape[2], *image.shape[:2]), np.float32)
        self.write(image, planes)
        return planes

    def write(self, image: Image, planes: NDArray[np.float32]) -> None:
        """Write HWC uint8 or float32 to planes CHW, each of them contiguous.

        Raises
        ------
        RecipeError
            There are numbers for other channels.
        """
        count = len(self._tables)
        if count not in (1, image.shape[2]):
            raise RecipeError(
                f"Normalize has {count} numbers, the image has {image.shape[2]} channels",
                hint=f"give one number, or {image.shape[2]}",
            )
        for channel, plane in enumerate(planes):
            kind = channel % count
            if image.dtype == np.uint8:
                # Given a plane that fits, OpenCV writes to it.
                cv2.LUT(cv2.extractChannel(image, channel), self._tables[kind], dst=plane)
            else:
                self._normalize(image[:, :, channel], kind, plane)

    def _normalize(self, values: NDArray[np.float32], kind: int, result: NDArray[np.float32]) -> None:
        np.divide(values, np.float32(255), out=result)
        np.subtract(result, self._means[kind], out=result, casting="same_kind")
        np.divide(result, self._deviations[kind], out=result, casting="same_kind")


def _narrowest(value: float) -> np.float32 | np.float64:
    """Float32 where that is the same number."""
    narrow: np.float32 = np.float32(value)
    return narrow if float(narrow) == value else np.float64(value)
