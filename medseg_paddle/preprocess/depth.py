"""Sixteen bits that hold fewer."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_high

_LEAST_MAXIMUM = 65536 // 4


def dark_middle(maxima: Sequence[float]) -> float | None:
    """Whether pictures of 16 bits use little of their range, such as the 12 bits of a detector.

    A model would see nearly black pictures: 0..255 is the range of 16 bits as of 8. The middle one counts, for a
    single picture of another kind does not brighten the others.

    Parameters
    ----------
    maxima : sequence of float
        The largest value of each picture, 0..65535.

    Returns
    -------
    float or None
        The middle one of these, if it is less than a quarter of the range.
    """
    middle = median_high(maxima) if maxima else _LEAST_MAXIMUM
    return middle if middle < _LEAST_MAXIMUM else None
