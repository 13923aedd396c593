"""Random changes of the intensities of a patch of a volume: noise, blur, brightness, contrast, low resolution, gamma.

Of normalised values, of which 0 is somewhere within and 1 about a standard deviation, not of grey levels 0..255.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.augment.arrays import happens
from medseg_paddle.preprocess.augment.volume_patch import axes

Channel = NDArray[np.float32]
"""Shape (d, h, w)."""

_FLAT = 1e-6  # of a standard deviation: what is left of a constant by rounding


@dataclass(frozen=True)
class RandomVolumeIntensity:
    """Change intensities in the order, the ranges and with the probabilities of nnU-Net (version 2).

    Isensee et al. 2021, https://doi.org/10.1038/s41592-020-01008-z. Everything is drawn for each channel by itself.

    Attributes
    ----------
    noise : tuple of float
        Least and greatest standard deviation of Gaussian noise.
    blur : tuple of float
        Least and greatest standard deviation of a Gaussian, in voxels; drawn for each axis.
    brightness : tuple of float
        Least and greatest factor; one below and one above 1 are drawn equally often, also of the next ones.
    contrast : tuple of float
        Least and greatest factor of the distance from the channel's mean; the range of values stays.
    low_resolution : tuple of float
        Least and greatest share of the resolution that is left: the patch is made smaller by area and larger again
        linearly. (nnU-Net makes it smaller by nearest neighbours, which moves it and adds noise.)
    low_resolution_axes : tuple of int
        Axes of which resolution is lost: 0 slices, 1 rows, 2 columns. Where slices are thick already, leave them out.
    gamma : tuple of float
        Least and greatest exponent, of values brought to 0..1; mean and deviation stay. Inverted, dark and bright
        change roles.
    noise_prob, blur_prob, brightness_prob, contrast_prob, low_resolution_prob, gamma_prob, gamma_inverted_prob : float
        Probability of each change.
    channel_prob : float
        Where a patch is blurred or loses resolution, the probability of each of its channels.
    """

    noise: tuple[float, float] = (0.0, 0.1)
    noise_prob: float = 0.1
    blur: tuple[float, float] = (0.5, 1.0)
    blur_prob: float = 0.2
    brightness: tuple[float, float] = (0.75, 1.25)
    brightness_prob: float = 0.15
    contrast: tuple[float, float] = (0.75, 1.25)
    contrast_prob: float = 0.15
    low_resolution: tuple[float, float] = (0.5, 1.0)
    low_resolution_axes: tuple[int, ...] = (0, 1, 2)
    low_resolution_prob: float = 0.25
    gamma: tuple[float, float] = (0.7, 1.5)
    gamma_prob: float = 0.3
    gamma_inverted_prob: float = 0.1
    channel_prob: float = 0.5

    def __post_init__(self) -> None:
        name = type(self).__name__
        for key, low, high in (
            ("noise", 0, 100),
            ("blur", 0.01, 100),
            ("brightness", 0, 100),
            ("contrast", 0, 100),
            ("low_resolution", 0.01, 1),
            ("gamma", 0.01, 100),
        ):
            object.__setattr__(self, key, spec_of.interval(getattr(self, key), f"{name}.{key}", low, high))
            spec_of.number(getattr(self, f"{key}_prob"), f"{name}.{key}_prob", 0, 1)
        for key in ("gamma_inverted_prob", "channel_prob"):
            spec_of.number(getattr(self, key), f"{name}.{key}", 0, 1)
        where = f"{name}.low_resolution_axes"
        object.__setattr__(self, "low_resolution_axes", axes(self.low_resolution_axes, where))

    def __call__(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a changed copy of a patch, shape (channels, d, h, w), float32."""
        result: NDArray[np.float32] = image.copy()
        for prob, change, share in self._changes(rng):
            if happens(prob, rng):
                for channel in result:
                    if happens(share, rng):
                        change(channel)
        return result

    def _changes(self, rng: np.random.Generator) -> Iterator[tuple[float, Callable[[Channel], None], float]]:
        """Of each change its probability, what it does in place, and the probability of each channel."""
        yield self.noise_prob, lambda channel: _noise(channel, rng.uniform(*self.noise), rng), 1
        yield self.blur_prob, lambda channel: _blur(channel, rng.uniform(*self.blur, 3)), self.channel_prob
        yield self.brightness_prob, lambda channel: _brightness(channel, _factor(self.brightness, rng)), 1
        yield self.contrast_prob, lambda channel: _contrast(channel, _factor(self.contrast, rng)), 1
        yield (
            self.low_resolution_prob,
            lambda channel: _low_resolution(
                channel, rng.uniform(*self.low_resolution), self.low_resolution_axes
            ),
            self.channel_prob,
        )
        yield self.gamma_inverted_prob, lambda channel: _gamma(channel, _factor(self.gamma, rng), -1), 1
        yield self.gamma_prob, lambda channel: _gamma(channel, _factor(self.gamma, rng), 1), 1


def _factor(between: tuple[float, float], rng: np.random.Generator) -> float:
    """A factor, below 1 as often as above where both are allowed."""
    least, greatest = between
    if least < 1 < greatest:
        least, greatest = (least, 1.0) if rng.random() < 0.5 else (1.0, greatest)
    return float(rng.uniform(least, greatest))


def _noise(channel: Channel, deviation: float, rng: np.random.Generator) -> None:
    channel += np.float32(deviation) * rng.standard_normal(channel.shape, dtype=np.float32)


def _brightness(channel: Channel, factor: float) -> None:
    channel *= np.float32(factor)


def _blur(channel: Channel, sigmas: NDArray[np.float64]) -> None:
    """Blur in place along slices, rows and columns."""
    kernels = [cv2.getGaussianKernel(2 * math.ceil(4 * sigma) + 1, sigma, cv2.CV_32F) for sigma in sigmas]
    border = cv2.BORDER_REFLECT_101
    flat = channel.reshape(len(channel), -1)
    flat[...] = cv2.sepFilter2D(flat, -1, np.ones(1, np.float32), kernels[0], borderType=border)
    for plane in channel:
        plane[...] = cv2.sepFilter2D(plane, -1, kernels[2], kernels[1], borderType=border)


def _contrast(channel: Channel, factor: float) -> None:
    least, greatest, mean = channel.min(), channel.max(), channel.mean(dtype=np.float64)
    channel -= np.float32(mean)
    channel *= np.float32(factor)
    channel += np.float32(mean)
    np.clip(channel, least, greatest, out=channel)


def _low_resolution(channel: Channel, zoom: float, lost: tuple[int, ...]) -> None:
    """Shrink and enlarge in place."""
    sides = channel.shape
    small = [max(1, round(side * zoom)) if axis in lost else side for axis, side in enumerate(sides)]
    reduced = _resized_slices(channel, small[0], cv2.INTER_AREA)
    planes = [
        cv2.resize(
            cv2.resize(plane, (small[2], small[1]), interpolation=cv2.INTER_AREA),
            (sides[2], sides[1]),
            interpolation=cv2.INTER_LINEAR,
        )
        for plane in reduced
    ]
    channel[...] = _resized_slices(np.stack(planes), sides[0], cv2.INTER_LINEAR)


def _resized_slices(channel: Channel, slices: int, interpolation: int) -> Channel:
    flat = channel.reshape(len(channel), -1)
    done = cv2.resize(flat, (flat.shape[1], slices), interpolation=interpolation)
    return np.asarray(done, np.float32).reshape(slices, *channel.shape[1:])


def _gamma(channel: Channel, exponent: float, sign: int) -> None:
    """Raise to a power in place; `sign` -1 does so on the negative. A constant channel stays."""
    mean, deviation = _moments(channel)
    if not deviation > _FLAT * max(1.0, abs(mean)):
        return
    least, greatest = channel.min(), channel.max()
    channel -= least if sign > 0 else greatest
    channel *= np.float32(sign) / (greatest - least)
    np.clip(channel, 0, 1, out=channel)
    channel[...] = cv2.pow(channel.reshape(len(channel), -1), exponent).reshape(channel.shape)
    new_mean, new_deviation = _moments(channel)
    factor = sign * deviation / max(new_deviation, 1e-7)
    channel *= np.float32(factor)
    channel += np.float32(mean - factor * new_mean)


def _moments(channel: Channel) -> tuple[float, float]:
    """Mean and standard deviation, summed in float64."""
    mean, deviation = cv2.meanStdDev(channel.reshape(len(channel), -1))
    return float(mean[0, 0]), float(deviation[0, 0])
