"""Random changes of intensities: brightness, contrast, gamma, noise, blur, low resolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.augment.arrays import Image, LabelArray, channel_means, happens, in_groups

_LEVELS = np.arange(256, dtype=np.uint8)

Change = Callable[[Image], Any]


@dataclass(frozen=True)
class RandomIntensity:
    """Change brightness, contrast and gamma and add noise; the label stays.

    Attributes
    ----------
    brightness : float
        Largest shift, either way, as a share of the full scale of 255.
    contrast : float
        Distance from the mean is multiplied by ``1 / (1 + contrast)`` to ``1 + contrast``.
    gamma : float
        Exponent from ``1 / (1 + gamma)`` to ``1 + gamma``.
    noise : float
        Largest standard deviation of Gaussian noise, as a share of the full scale.
    per_channel : bool
        Draw brightness, contrast and gamma for every channel by itself.
    brightness_prob, contrast_prob, gamma_prob, noise_prob : float
        Probability of each change. At 1 no coin is tossed.
    gamma_inverted : float
        Share of the changes of gamma that are made on the negative, ``1 - (1 - x)^g``.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    per_channel: bool = False
    brightness_prob: float = 1.0
    contrast_prob: float = 1.0
    gamma_prob: float = 1.0
    noise_prob: float = 1.0
    gamma_inverted: float = 0.0

    def __post_init__(self) -> None:
        spec_of.number(self.brightness, "RandomIntensity.brightness", 0, 1)
        spec_of.number(self.contrast, "RandomIntensity.contrast", 0, 10)
        spec_of.number(self.gamma, "RandomIntensity.gamma", 0, 10)
        spec_of.number(self.noise, "RandomIntensity.noise", 0, 1)
        for key in ("brightness_prob", "contrast_prob", "gamma_prob", "noise_prob", "gamma_inverted"):
            spec_of.number(getattr(self, key), f"RandomIntensity.{key}", 0, 1)

    def __call__(self, image: Image, label: LabelArray, rng: np.random.Generator) -> tuple[Image, LabelArray]:
        """Return a changed image, float32 clipped to 0..255, and the label."""
        if image.dtype == np.uint8:
            # 256 values at most: what becomes of each is worked out once and looked up.
            channels = image.shape[2] if self.per_channel else 1
            levels = np.repeat(_LEVELS[None, :, None], channels, axis=2)
            curve = self._curved(levels, rng, self._mean(image))
            if not (self.noise and happens(self.noise_prob, rng)):
                return _looked_up(image, _finished(curve)), label
            result = _looked_up(image, curve)
        else:
            result = self._curved(image, rng, None)
            if not (self.noise and happens(self.noise_prob, rng)):
                return _finished(result), label
        deviation = np.float32(rng.uniform(0, self.noise))
        noise = rng.standard_normal(result.shape, dtype=np.float32)
        noise *= deviation
        result += noise
        return _finished(result), label

    def _mean(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Mean over the pixels on the 0..1 scale, of each channel or of all."""
        if not (self.contrast and self.contrast_prob):
            return np.zeros(1, np.float32)
        means = channel_means(image)
        means = means if self.per_channel else means.mean(keepdims=True)
        return np.asarray(means.astype(np.float32) / np.float32(255))

    def _curved(
        self, image: Image, rng: np.random.Generator, mean: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Contrast, brightness and gamma of values 0..255, on the 0..1 scale, about `mean` or else the image's own."""
        draws = image.shape[2] if self.per_channel else 1
        result: NDArray[np.float32] = image / np.float32(255)
        if self.contrast and happens(self.contrast_prob, rng):
            if mean is None:
                mean = np.atleast_1d(result.mean(axis=(0, 1) if self.per_channel else None, dtype=np.float32))
            _per_channel(np.subtract, result, mean)
            _per_channel(np.multiply, result, _factor(self.contrast, draws, rng))
            _per_channel(np.add, result, mean)
        if self.brightness and happens(self.brightness_prob, rng):
            shift = rng.uniform(-self.brightness, self.brightness, draws).astype(np.float32)
            _per_channel(np.add, result, shift)
        if self.gamma and happens(self.gamma_prob, rng):
            np.clip(result, 0, 1, out=result)
            exponent = _factor(self.gamma, draws, rng)
            negative = happens(self.gamma_inverted, rng)
            if negative:
                np.subtract(1, result, out=result)
            _per_channel(np.power, result, exponent)
            if negative:
                np.subtract(1, result, out=result)
        return result


@dataclass(frozen=True)
class RandomGaussianBlur:
    """Blur with a Gaussian; the label stays.

    Attributes
    ----------
    sigma : tuple of float
        Least and greatest standard deviation in pixels.
    per_channel : bool
        Draw for every channel anew, also whether it is blurred.
    prob : float
        Probability that anything happens; with `per_channel`, in each channel.
    """

    sigma: tuple[float, float] = (0.5, 1.0)
    per_channel: bool = False
    prob: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", spec_of.interval(self.sigma, "RandomGaussianBlur.sigma", 0.01))
        spec_of.number(self.prob, "RandomGaussianBlur.prob", 0, 1)

    def __call__(self, image: Image, label: LabelArray, rng: np.random.Generator) -> tuple[Image, LabelArray]:
        """Return a blurred image of the same dtype, and the label."""

        def draw() -> Change:
            sigma = float(rng.uniform(*self.sigma))
            return lambda part: cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)

        return _filtered(image, draw, self.prob, rng, per_channel=self.per_channel), label


@dataclass(frozen=True)
class RandomLowResolution:
    """Shrink by area and enlarge again linearly, as a coarser scanner would have seen it; the label stays.

    nnU-Net's SimulateLowResolution (Isensee et al. 2021), whose nearest neighbours shift the picture; areas do not.

    Attributes
    ----------
    zoom : tuple of float
        Least and greatest share of the resolution that is left.
    per_channel : bool
        Draw for every channel anew, also whether it is changed.
    prob : float
        Probability that anything happens; with `per_channel`, in each channel.
    """

    zoom: tuple[float, float] = (0.5, 1.0)
    per_channel: bool = False
    prob: float = 0.25

    def __post_init__(self) -> None:
        object.__setattr__(self, "zoom", spec_of.interval(self.zoom, "RandomLowResolution.zoom", 0.01, 1))
        spec_of.number(self.prob, "RandomLowResolution.prob", 0, 1)

    def __call__(self, image: Image, label: LabelArray, rng: np.random.Generator) -> tuple[Image, LabelArray]:
        """Return an image of the same size and dtype, and the label."""
        rows, columns = label.shape

        def draw() -> Change:
            zoom = float(rng.uniform(*self.zoom))
            size = max(1, round(columns * zoom)), max(1, round(rows * zoom))
            return lambda part: cv2.resize(
                cv2.resize(part, size, interpolation=cv2.INTER_AREA),
                (columns, rows),
                interpolation=cv2.INTER_LINEAR,
            )

        return _filtered(image, draw, self.prob, rng, per_channel=self.per_channel), label


def _filtered(
    image: Image, draw: Callable[[], Change], prob: float, rng: np.random.Generator, *, per_channel: bool
) -> Image:
    """The image with one drawn change of all channels, or with one of its own for each channel that is hit."""
    if not per_channel:
        return in_groups(draw(), image) if happens(prob, rng) else image
    result = image
    for channel in range(image.shape[2]):
        if happens(prob, rng):
            result = image.copy() if result is image else result
            result[:, :, channel] = draw()(np.ascontiguousarray(image[:, :, channel]))
    return result


def _looked_up(image: NDArray[np.uint8], curve: NDArray[np.float32]) -> NDArray[np.float32]:
    """A curve of shape (1, 256, 1 or C) at the values of an image HWC."""
    return np.asarray(cv2.LUT(image, curve), np.float32).reshape(image.shape)


def _finished(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """From the 0..1 scale to 0..255, clipped, in place."""
    np.clip(image, 0, 1, out=image)
    image *= np.float32(255)
    return image


def _factor(spread: float, draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
    limit = math.log1p(spread)
    return np.exp(rng.uniform(-limit, limit, draws)).astype(np.float32)


def _per_channel(operation: np.ufunc, image: NDArray[np.float32], values: NDArray[np.float32]) -> None:
    """Change an image in place by one value, or one per channel; along whole rows, which is several times faster."""
    if len(values) == 1:
        operation(image, values[0], out=image)
    else:
        flat = image.reshape(image.shape[0], -1)
        operation(flat, np.tile(values, flat.shape[1] // len(values)), out=flat)
