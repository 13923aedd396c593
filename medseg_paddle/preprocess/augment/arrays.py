"""What all random transforms share: the arrays they take, and OpenCV on any number of channels."""

from __future__ import annotations

import itertools
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


def resized_label(label: LabelArray, size: tuple[int, int]) -> LabelArray:
    """The label at another size (rows, columns): to each pixel's centre the nearest pixel of before.

    That is where OpenCV's linear and cubic interpolations take an image from. A centre amid two pixels takes the one
    and the other by turns, along the line that crosses its axis; always the same one would move the label, at half
    the size by a quarter of a pixel of the result.
    """
    if label.shape == size:
        return label
    (rows, above), (columns, before) = (_nearest(*sides) for sides in zip(label.shape, size, strict=True))
    if rows is above and columns is before:
        return label.take(rows, axis=0).take(columns, axis=1)
    result = np.empty(size, label.dtype)
    for odd_row, odd_column in itertools.product((0, 1), (0, 1)):
        row, column = (
            (rows if odd_column else above)[odd_row::2],
            (columns if odd_row else before)[odd_column::2],
        )
        result[odd_row::2, odd_column::2] = label.take(row, axis=0).take(column, axis=1)
    return result


def _nearest(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of `after` pixels the nearest of `before`: the later and the earlier one, where two are as near."""
    later, rest = np.divmod((2 * np.arange(after, dtype=np.int64) + 1) * before, 2 * after)
    amid = rest == 0
    return later, later - amid if amid.any() else later
