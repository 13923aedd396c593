"""Telling a mask from a photograph, where the two were exchanged; whatever file format each was stored in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_label, read_samples

FEW_VALUES = 4
"""A picture of no more values is a mask, or black and white."""

_LEAST_VALUES = 16  # of a photograph
_LEAST_UNEQUAL = 0.1  # of its neighbouring pixels; numbered objects are unequal at their borders only
_MODE = 12  # grey levels that JPEG moves a mask's values by, but for a few
_MOSTLY = 0.9
_GREY = 16


def are_exchanged(image: NDArray[Any], label: NDArray[Any]) -> bool:
    """Whether the image looks like a mask and the label like a photograph.

    Parameters
    ----------
    image, label : ndarray, (height, width) or (height, width, channels)
    """
    return _is_photograph(label) and is_flat(image)


def files_are_exchanged(image: Path, label: Path) -> bool:
    """The same of two files that cannot be read as image and label: a photograph is no label."""
    try:
        photograph = read_samples(label)
    except DataError:
        return False
    if not _is_photograph(photograph):
        return False
    for read in (read_label, read_samples):
        try:
            if is_flat(read(image)):
                return True
        except DataError:
            continue
    return False


def is_flat(picture: NDArray[Any]) -> bool:
    """Whether a picture has a few values only, or had before JPEG smeared them."""
    plain = picture
    if picture.ndim == 3:
        if np.any(picture.max(axis=2).astype(np.int32) - picture.min(axis=2) > _GREY):
            return False
        plain = picture[:, :, 0]
    if plain.dtype != np.uint8:
        return len(np.unique(plain)) <= FEW_VALUES
    counts = np.bincount(plain.ravel(), minlength=256)
    if np.count_nonzero(counts) <= FEW_VALUES:
        return True
    held = 0
    for _ in range(FEW_VALUES):
        mode = int(counts.argmax())
        near = slice(max(0, mode - _MODE), mode + _MODE + 1)
        held += int(counts[near].sum())
        counts[near] = 0
    return held >= _MOSTLY * plain.size


def _is_photograph(picture: NDArray[Any]) -> bool:
    plain = picture if picture.ndim == 2 else picture[:, :, picture.shape[2] // 2]
    if plain.shape[1] < 2 or float((plain[:, 1:] != plain[:, :-1]).mean()) < _LEAST_UNEQUAL:
        return False
    return len(np.unique(plain)) >= _LEAST_VALUES
