"""Intensities of a case: ranges, saturation, and how many grey levels are really there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.steps.check.exchanged import FEW_VALUES

_LEAST_PIXELS = 4096  # a smaller picture has too few samples to speak of missing levels
_LEAST_SPAN = 48
_PIECE = 1 << 20
_WHITE_SPIKE = 4.0


@dataclass(frozen=True)
class Levels:
    """How intensities are spread.

    Attributes
    ----------
    bits : int
        8 or 16, of the deepest picture.
    least, low, middle, high, most : float
        Minimum, 1st, 50th and 99th percentile, maximum; as stored.
    distinct : int
        Values that occur.
    gaps : float
        Share of the values between the 1st and the 99th percentile that do not occur; 0 where too few samples
        or values say anything, and for 16 bits.
    saturated : float
        Share of the samples with the largest value that can be stored, if it sticks out of its surroundings.
    """

    bits: int
    least: float
    low: float
    middle: float
    high: float
    most: float
    distinct: int
    gaps: float
    saturated: float

    @property
    def binary(self) -> bool:
        """Whether a few values are all there is, as in a mask."""
        return 1 < self.distinct <= FEW_VALUES

    @property
    def unit(self) -> float:
        """What one grey level of 256 is."""
        return 257.0 if self.bits == 16 else 1.0


class Intensity:
    """Counts samples by value, over all pictures of a case."""

    def __init__(self) -> None:
        self._counts: dict[int, NDArray[np.int64]] = {}

    def add(self, image: NDArray[Any]) -> None:
        """Count one picture's samples, all channels together."""
        bits = 8 * image.dtype.itemsize
        counts = counted(image, 1 << bits)
        self._counts[bits] = self._counts.get(bits, np.zeros(1 << bits, np.int64)) + counts

    def levels(self) -> Levels:
        """What was counted; of the deepest pictures, where some have 8 and some 16 bits."""
        bits = max(self._counts)
        counts = self._counts[bits]
        total = counts.sum()
        present = np.flatnonzero(counts)
        below = np.cumsum(counts)
        low, middle, high = (int(np.searchsorted(below, share * total)) for share in (0.01, 0.5, 0.99))
        span = counts[low : high + 1]
        tells = bits == 8 and total >= _LEAST_PIXELS and len(span) >= _LEAST_SPAN
        top, before = int(counts[-1]), int(counts[-3:-1].max())
        return Levels(
            bits=bits,
            least=float(present[0]),
            low=float(low),
            middle=float(middle),
            high=float(high),
            most=float(present[-1]),
            distinct=len(present),
            gaps=float((span == 0).mean()) if tells else 0.0,
            saturated=top / float(total) if top > _WHITE_SPIKE * before else 0.0,
        )


def counted(array: NDArray[Any], values: int) -> NDArray[np.int64]:
    """How often each of 0..values - 1 occurs; a piece at a time, since every sample takes eight bytes here."""
    flat = array.reshape(-1)
    counts = np.zeros(values, np.int64)
    for start in range(0, flat.size, _PIECE):
        counts += np.bincount(flat[start : start + _PIECE], minlength=values)
    return counts
