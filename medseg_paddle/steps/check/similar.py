"""Pictures that look the same, though their files differ: compressed again, resized, a little brighter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Descriptor = NDArray[np.float16]

_SIDE = 32
_SURROUNDINGS = 3.0  # of 32: what is darker at its rim, as every fundus photograph, is not alike for that
_ALIKE = 0.97
_AT_ONCE = 512


def describe(image: NDArray[Any]) -> Descriptor | None:
    """Make a small picture of an image's structure, without its brightness and contrast; None where it has none."""
    grey = image.astype(np.float32) if image.ndim == 2 else image.astype(np.float32).mean(axis=2)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    fine = (small - cv2.GaussianBlur(small, (0, 0), _SURROUNDINGS)).ravel()
    fine -= fine.mean()
    length = float(np.linalg.norm(fine))
    return None if length < 1.0 else np.asarray(fine / length, dtype=np.float16)


def look_alike(descriptors: Sequence[Descriptor | None]) -> Iterator[tuple[int, int, float]]:
    """Pairs whose structure agrees nearly everywhere.

    Yields
    ------
    int, int, float
        Places in `descriptors`, the smaller first, and the correlation.
    """
    known = [place for place, one in enumerate(descriptors) if one is not None]
    if not known:
        return
    table = np.stack([descriptors[place] for place in known]).astype(np.float32)  # type: ignore[arg-type]
    for start in range(0, len(known), _AT_ONCE):
        alike = table[start : start + _AT_ONCE] @ table[start:].T
        for row, column in zip(*np.nonzero(np.triu(alike > _ALIKE, k=1)), strict=True):
            yield known[start + int(row)], known[start + int(column)], float(alike[row, column])
