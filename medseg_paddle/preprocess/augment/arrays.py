"""What all random transforms share: the arrays they take, and OpenCV on any number of channels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]
"""HWC, uint8 or float32, 0..255."""

LabelArray = NDArray[Any]
"""HW, integers."""

IGNORE = 255
"""What a transform writes into a label where nothing is to be learned."""


def happens(prob: float, rng: np.random.Generator) -> bool:
    """Toss a coin; where the answer is certain, none is tossed and `rng` stays as it is."""
    return prob >= 1 or (prob > 0 and bool(rng.random() < prob))


def in_groups(function: Callable[[Image], Any], image: Image) -> Image:
    """Apply an OpenCV function to an image of any number of channels.

    OpenCV 5.0 has exact kernels for 1, 3 and 4 channels; for others it rounds places to 1/32 pixel or
    refuses them. So the channels go in groups of these sizes, and every channel gets what it would get alone.

    Parameters
    ----------
    function : callable
        Takes HW or HWC, returns the like; may change the size.
    image : ndarray, shape (H, W, C)

    Returns
    -------
    ndarray, shape (h, w, C), dtype of `image`
    """
    channels = image.shape[2]
    if channels in (1, 3, 4):
        done = np.asarray(function(image))
        return done.reshape(*done.shape[:2], channels)
    parts = []
    for first, last in _groups(channels):
        done = np.asarray(function(np.ascontiguousarray(image[:, :, first:last])))
        parts.append(done.reshape(*done.shape[:2], last - first))
    return np.concatenate(parts, axis=2)


def channel_means(image: Image) -> NDArray[np.float64]:
    """Mean of each channel; OpenCV's, which is several times faster than numpy's along the first axes."""
    groups = (image[:, :, first:last] for first, last in _groups(image.shape[2]))
    return np.concatenate([cv2.mean(np.ascontiguousarray(part))[: part.shape[2]] for part in groups])


def _groups(channels: int) -> Iterator[tuple[int, int]]:
    first = 0
    while first < channels:
        left = channels - first
        size = 4 if left >= 4 else 3 if left == 3 else 1
        yield first, first + size
        first += size
