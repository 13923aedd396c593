"""Intensities of an image by its own mean and spread: the same for pictures of any hospital."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of

_LEAST_DEVIATION = 1.0  # grey levels; noise of a flat channel is not stretched to a picture
_LEVELS = np.arange(256, dtype=np.float32)


@dataclass(frozen=True)
class StandardizeImage:
    """Shift and stretch each channel of an image to a given mean and standard deviation, from its own.

    The colour transfer of Reinhard et al. 2001 (IEEE Computer Graphics and Applications 21(5):34-41), channel by
    channel and to fixed values in place of another picture's. It needs nothing but the image, so that training,
    validation and a bundle at a hospital that nobody knows compute the same; both a step of
    :class:`~medseg_paddle.preprocess.Preprocessing` and a transform of training images.

    Attributes
    ----------
    mean, std : float
        Of each channel afterwards, 0..255, but for what is clipped. A standard deviation below one grey level counts
        as one.
    above : float, optional
        Only pixels with a channel brighter than this count, and are changed; all where absent.
    """

    mean: float = 127.5
    std: float = 50.0
    above: float | None = None

    def __post_init__(self) -> None:
        spec_of.number(self.mean, "StandardizeImage.mean", 0, 255)
        spec_of.number(self.std, "StandardizeImage.std", 0, 255)
        if self.std <= 0:
            raise RecipeError(
                f"StandardizeImage.std must be above 0, got {self.std:g}", hint="write `std: 50`"
            )
        if self.above is not None:
            spec_of.number(self.above, "StandardizeImage.above", 0, 255)

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size after the step of an image of `size`."""
        return size

    def backward(self, planes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:  # noqa: ARG002
        """Return `planes`: nothing was moved."""
        return planes

    def __call__(
        self,
        image: NDArray[Any],
        label: NDArray[Any],
        rng: np.random.Generator,  # noqa: ARG002
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Return :meth:`forward` of a training image, and its label; nothing is drawn."""
        return self.forward(image), label

    def forward(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Apply the step to an image HWC, 0..255, uint8 or float32; of both it makes the same float32."""
        counted = None if self.above is None else (image.max(axis=2) > self.above).astype(np.uint8)
        if counted is not None and not counted.any():
            return image.astype(np.float32)
        planes = [self._plane(cv2.extractChannel(image, n), counted) for n in range(image.shape[2])]
        return np.stack(planes, axis=-1)

    def _plane(self, plane: NDArray[Any], counted: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(plane, mask=counted))
        scale = np.float32(self.std / max(deviation, _LEAST_DEVIATION))
        middle, target = np.float32(mean), np.float32(self.mean)
        values = _LEVELS if plane.dtype == np.uint8 else plane
        result: NDArray[np.float32] = np.clip((values - middle) * scale + target, 0, 255)
        if plane.dtype == np.uint8:
            result = np.asarray(cv2.LUT(plane, result), np.float32)
        return result if counted is None else np.where(counted, result, plane).astype(np.float32)
