"""The last step of a training image: normalised, one plane per channel, written where the batch has its place."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess.deterministic import Normalize


def write_planes(
    image: NDArray[np.uint8] | NDArray[np.float32],
    normalize: Normalize | None,
    planes: NDArray[np.float32],
) -> None:
    """Write an image to the planes of a batch; the same numbers as of ``Normalize.forward``, bit for bit.

    Parameters
    ----------
    image : ndarray, shape (H, W, C), uint8 or float32
        Intensities on the scale 0..255; is not changed. Of 8-bit images only 256 values a channel are computed.
    normalize : Normalize or None
        None writes the image as it is.
    planes : ndarray, shape (C, H, W), float32
        What is written to; each plane contiguous.

    Raises
    ------
    RecipeError
        `normalize` has another number of channels.
    """
    if normalize is None:
        planes[...] = image.transpose(2, 0, 1)
    elif image.dtype == np.uint8:
        tables = _tables(normalize, image.shape[2])
        for channel, (table, plane) in enumerate(zip(tables, planes, strict=True)):
            # Given a plane that fits, OpenCV writes to it.
            cv2.LUT(cv2.extractChannel(image, channel), table, plane)
    else:
        shifts, scales = _operands(normalize, image.shape[2])
        for channel, plane in enumerate(planes):
            np.divide(image[:, :, channel], np.float32(255), out=plane)
            np.subtract(plane, shifts[channel], out=plane, casting="same_kind")
            np.divide(plane, scales[channel], out=plane, casting="same_kind")


@functools.lru_cache(maxsize=8)
def _tables(normalize: Normalize, channels: int) -> NDArray[np.float32]:
    """What becomes of each 8-bit value, shape (channels, 256)."""
    values = np.arange(256, dtype=np.float32).reshape(256, 1, 1)
    done = normalize.forward(np.repeat(values, channels, axis=2))
    return np.ascontiguousarray(done[:, 0].T)


def _operands(normalize: Normalize, channels: int) -> tuple[list[np.floating], list[np.floating]]:
    """Mean and standard deviation of each channel, as float32 where that is the same number.

    Then float32 arithmetic, which is faster, gives what float64 arithmetic rounded to float32 gives: of a
    difference or a quotient of float32 numbers the second rounding changes nothing (53 >= 2 * 24 + 2 bits).
    """
    # An image of no rows: its channels are checked, nothing is computed.
    normalize.forward(np.empty((0, 1, channels), np.float32))
    return _exact(normalize.mean, channels), _exact(normalize.std, channels)


def _exact(values: tuple[float, ...], channels: int) -> list[np.floating]:
    each = values * channels if len(values) == 1 else values
    return [np.float32(v) if float(np.float32(v)) == v else np.float64(v) for v in each]
