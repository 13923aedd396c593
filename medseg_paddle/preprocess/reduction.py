"""Pictures and masks in fewer pixels, on the same ground: no border moves."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def smaller(image: NDArray[np.generic], scale: float) -> NDArray[np.generic]:
    """Reduce a picture as it is stored: in floating point, a large one would fill the memory.

    Parameters
    ----------
    image : ndarray, (height, width) or (height, width, channels), uint8 or uint16
    scale : float
        Pixels of the picture that one of the result is; 1 returns the picture itself.
    """
    if scale == 1.0:
        return image
    if image.ndim == 3:
        return np.stack([smaller(image[:, :, place], scale) for place in range(image.shape[2])], axis=2)
    return np.asarray(
        cv2.resize(np.ascontiguousarray(image), _size(image.shape, scale), interpolation=cv2.INTER_AREA)
    )


def smaller_mask(inside: NDArray[np.bool_], scale: float) -> NDArray[np.float32]:
    """The share of each pixel that is inside, (height, width), 0..1; its border lies where the larger mask's lies."""
    share = smaller(inside.astype(np.uint8) * np.uint8(255), scale).astype(np.float32) / 255
    return np.asarray(share, dtype=np.float32)


def smaller_labels(labels: NDArray[np.generic], scale: float) -> NDArray[np.generic]:
    """The label at the middle of each pixel, (height, width)."""
    if scale == 1.0:
        return labels
    width, height = _size(labels.shape, scale)
    rows, columns = (
        ((np.arange(few) + 0.5) * (many / few)).astype(np.intp)
        for few, many in zip((height, width), labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def _size(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Columns and rows, as OpenCV wants them."""
    return max(1, round(shape[1] / scale)), max(1, round(shape[0] / scale))
