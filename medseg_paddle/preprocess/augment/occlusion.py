"""Random blanks: channels that are missing, and holes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.augment.arrays import IGNORE, Image, LabelArray, channel_means, happens

Fill = Literal["zero", "mean"]


@dataclass(frozen=True)
class RandomChannelDrop:
    """Blank channels, as where a sequence or a stain is missing; the label stays.

    Attributes
    ----------
    channels : int
        Greatest number of channels blanked at once; one always stays.
    fill : {"zero", "mean"}
        Black, or the mean of the channel.
    prob : float
        Probability that anything happens.
    """

    channels: int = 1
    fill: Fill = "zero"
    prob: float = 0.1

    def __post_init__(self) -> None:
        spec_of.whole_number(self.channels, "RandomChannelDrop.channels")
        _require_fill(self.fill, "RandomChannelDrop")
        spec_of.number(self.prob, "RandomChannelDrop.prob", 0, 1)

    def __call__(self, image: Image, label: LabelArray, rng: np.random.Generator) -> tuple[Image, LabelArray]:
        """Return an image of the same dtype, and the label."""
        most = min(self.channels, image.shape[2] - 1)
        if most < 1 or not happens(self.prob, rng):
            return image, label
        dropped = rng.permutation(image.shape[2])[: int(rng.integers(1, most + 1))]
        result = image.copy()
        for channel in dropped:
            result[:, :, channel] = _filling(image[:, :, channel : channel + 1], self.fill)[0]
        return result, label


@dataclass(frozen=True)
class RandomCutout:
    """Blank rectangles of the image (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).

    Attributes
    ----------
    holes : tuple of int
        Least and greatest number of rectangles.
    size : tuple of float
        Least and greatest side of a rectangle, as a share of the image's side; drawn for each side. A
        rectangle lies inside the image.
    fill : {"zero", "mean"}
        Black, or the image's mean of each channel.
    label : {"keep", "ignore"}
        What is beneath is to be found all the same, or is label 255 (ignored by loss and scores).
    prob : float
        Probability that anything happens.
    """

    holes: tuple[int, int] = (1, 1)
    size: tuple[float, float] = (0.1, 0.3)
    fill: Fill = "mean"
    label: Literal["keep", "ignore"] = "keep"
    prob: float = 0.5

    def __post_init__(self) -> None:
        holes, size = self.holes, self.size
        object.__setattr__(self, "holes", spec_of.whole_pair(holes, "RandomCutout.holes"))
        object.__setattr__(self, "size", spec_of.interval(size, "RandomCutout.size", 0, 1))
        if self.holes[0] > self.holes[1]:
            raise RecipeError(
                f"RandomCutout.holes must be [least, most], got {list(holes)}", hint="correct it"
            )
        _require_fill(self.fill, "RandomCutout")
        if self.label not in ("keep", "ignore"):
            raise RecipeError(f"RandomCutout.label '{self.label}' is unknown", hint="use keep or ignore")
        spec_of.number(self.prob, "RandomCutout.prob", 0, 1)

    def __call__(self, image: Image, label: LabelArray, rng: np.random.Generator) -> tuple[Image, LabelArray]:
        """Return an image of the same dtype, and a label of the same dtype, which must hold 255."""
        if not happens(self.prob, rng):
            return image, label
        result, mask = image.copy(), label.copy() if self.label == "ignore" else label
        filling = _filling(image, self.fill)
        for _ in range(int(rng.integers(self.holes[0], self.holes[1] + 1))):
            hole = tuple(_span(length, self.size, rng) for length in label.shape)
            result[hole] = filling
            if self.label == "ignore":
                mask[hole] = IGNORE
        return result, mask


def _span(length: int, share: tuple[float, float], rng: np.random.Generator) -> slice:
    side = min(length, max(1, round(length * float(rng.uniform(*share)))))
    first = int(rng.integers(0, length - side + 1))
    return slice(first, first + side)


def _filling(image: Image, fill: Fill) -> NDArray[Any]:
    """One value per channel, in the image's dtype."""
    if fill == "zero":
        return np.zeros(image.shape[2], image.dtype)
    mean = channel_means(image)
    return np.asarray(np.rint(mean) if image.dtype == np.uint8 else mean, image.dtype)


def _require_fill(fill: str, name: str) -> None:
    if fill not in ("zero", "mean"):
        raise RecipeError(f"{name}.fill '{fill}' is unknown", hint="use zero or mean")
