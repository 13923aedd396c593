"""Mixup for segmentation (Zhang et al. 2018, https://arxiv.org/abs/1710.09412): weighted means of two images.

The loss of a mixed image is the mean, with the same weights, of the losses to the two labels. Both labels and
the weight travel in one int64 label, through whatever carries labels, and the loss takes them apart:

======  ==================================================
bits    hold
======  ==================================================
0-15    the first label; 65535 where it is the ignored one
16-31   the second label, likewise
32-48   the weight of the first, times 65536
56      1: this is a mixture; plain labels have it not
======  ==================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess import specs as spec_of

BITS = 16
IGNORED = 2**BITS - 1
WHOLE = 2**16
WEIGHT_AT = 2 * BITS
MIXTURE = 2**56


@dataclass(frozen=True)
class Mixing:
    """How the images of one batch are mixed: image i with image ``(i + step) % size``.

    Attributes
    ----------
    weight : float
        Of the first image, a whole number of 1/65536; the second has the rest.
    step : int
    """

    weight: float
    step: int


@dataclass(frozen=True)
class Mixup:
    """Draws how a batch is mixed: one weight for all of it, as in the authors' code.

    Attributes
    ----------
    alpha : float
        The weight is drawn from the distribution Beta(alpha, alpha).
    prob : float
        Probability that a batch is mixed.
    """

    alpha: float = 0.2
    prob: float = 0.5

    def __post_init__(self) -> None:
        spec_of.number(self.alpha, "mixup.alpha", 0.001)
        spec_of.number(self.prob, "mixup.prob", 0, 1)

    def draw(self, rng: np.random.Generator, batch_size: int) -> Mixing | None:
        """How a batch of two or more images is mixed; None where it is left alone."""
        if rng.random() >= self.prob:
            return None
        weight = round(float(rng.beta(self.alpha, self.alpha)) * WHOLE) / WHOLE
        return Mixing(weight, int(rng.integers(1, batch_size)))


def mixed(first: NDArray[np.float32], second: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """``weight * first + (1 - weight) * second``, a new array."""
    result: NDArray[np.float32] = first * np.float32(weight)
    result += second * np.float32(1 - weight)
    return result


def packed(first: NDArray[Any], second: NDArray[Any], weight: float, ignore_index: int) -> NDArray[np.int64]:
    """Two labels of one shape and the weight of the first as one label; see the module."""
    both = [np.where(label == ignore_index, IGNORED, label).astype(np.int64) for label in (first, second)]
    return both[0] | both[1] << BITS | (MIXTURE | round(weight * WHOLE) << WEIGHT_AT)


def unpacked(
    label: NDArray[np.int64], ignore_index: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], float] | None:
    """The two labels and the weight of the first; None where the label is a plain one."""
    mark = int(label.flat[0])
    if mark < MIXTURE:
        return None
    first, second = label & IGNORED, label >> BITS & IGNORED
    first, second = (np.where(part == IGNORED, ignore_index, part) for part in (first, second))
    return first, second, weight_of(mark)


def weight_of(pixel: int) -> float:
    """Weight of the first label in a pixel of a mixture."""
    return (pixel >> WEIGHT_AT & 2 * WHOLE - 1) / WHOLE
