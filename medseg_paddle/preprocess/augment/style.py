"""Random changes of style: training images that look like pictures from another hospital; labels stay.

The other hospital's pictures need no labels. Of each only its style is kept, which
``style_of`` takes from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from medseg_paddle.errors import RecipeError
from medseg_paddle.preprocess import specs as spec_of
from medseg_paddle.preprocess.augment.arrays import Image, LabelArray, happens

_LEVELS = np.arange(256, dtype=np.float32)
_HIGHEST = 128  # cycles along a side of a picture, up to which the amplitudes of a style are kept

Histogram = tuple[tuple[NDArray[np.float64], NDArray[np.float32]], ...]
"""Of each channel: the share of the pixels up to each level that is there, and these levels."""

Amplitudes = NDArray[np.float32]
"""Amplitude per pixel of the lowest frequencies, shape (2 B + 1, B + 1, C): rows 0..B, -B..-1, columns 0..B."""


@dataclass(frozen=True, eq=False)
class RandomHistogramMatch:
    """Give each channel the histogram of a picture of another style; the label stays.

    Gonzalez and Woods, Digital Image Processing, "histogram matching (specification)", in 256 levels. Levels between
    two of the other picture's are interpolated, as in scikit-image's ``match_histograms``.

    Attributes
    ----------
    styles : tuple
        :meth:`style_of` of the other pictures; one of them is drawn each time.
    strength : tuple of float
        Least and greatest share of the way to the other histogram; 1 is all of it.
    prob : float
        Probability that anything happens.
    """

    styles: tuple[Histogram, ...]
    strength: tuple[float, float] = (1.0, 1.0)
    prob: float = 0.5

    def __post_init__(self) -> None:
        _require_styles(self.styles, "RandomHistogramMatch")
        strength = spec_of.interval(self.strength, "RandomHistogramMatch.strength", 0, 1)
        object.__setattr__(self, "strength", strength)
        spec_of.number(self.prob, "RandomHistogramMatch.prob", 0, 1)

    @staticmethod
    def style_of(image: Image) -> Histogram:
        """What is kept of a picture HWC, 0..255: 2 kB for each channel at most."""
        return tuple(_histogram(counts) for counts in _counts(image))

    def __call__(self, image: Image, label: LabelArray, rng: np.random.Generator) -> tuple[Image, LabelArray]:
        """Return an image of the same dtype, and the label."""
        if not happens(self.prob, rng):
            return image, label
        style = self.styles[int(rng.integers(len(self.styles)))]
        strength = np.float32(rng.uniform(*self.strength))
        result = np.empty_like(image)
        for channel, (counts, (shares, levels)) in enumerate(zip(_counts(image), style, strict=True)):
            curve = np.interp(np.cumsum(counts) / counts.sum(), shares, levels).astype(np.float32)
            curve = _LEVELS + strength * (curve - _LEVELS)
            plane = cv2.extractChannel(image, channel)
            if image.dtype == np.uint8:
                result[:, :, channel] = cv2.LUT(plane, np.rint(curve).astype(np.uint8))
            else:
                result[:, :, channel] = np.interp(plane, _LEVELS, curve)
        return result, label


@dataclass(frozen=True, eq=False)
class RandomFourierStyle:
    """Take the amplitudes of the lowest frequencies from a picture of another style; phases and label stay.

    Fourier domain adaptation (Yang and Soatto 2020, https://arxiv.org/abs/2004.05498). Of an image of ``h x w`` pixels
    all frequencies up to ``b = floor(beta min(h, w))`` cycles along each side are taken, b = 0 being the mean alone.
    Amplitudes are taken per pixel, so that pictures of another size give their style without being resized.

    Attributes
    ----------
    styles : tuple of ndarray
        :meth:`style_of` of the other pictures; one of them is drawn each time.
    beta : tuple of float
        Least and greatest share of the frequencies; one is drawn each time.
    prob : float
        Probability that anything happens.
    """

    styles: tuple[Amplitudes, ...]
    beta: tuple[float, float] = (0.0, 0.05)
    prob: float = 0.5

    def __post_init__(self) -> None:
        _require_styles(self.styles, "RandomFourierStyle")
        object.__setattr__(self, "beta", spec_of.interval(self.beta, "RandomFourierStyle.beta", 0, 0.25))
        spec_of.number(self.prob, "RandomFourierStyle.prob", 0, 1)

    @staticmethod
    def style_of(image: Image) -> Amplitudes:
        """What is kept of a picture HWC, 0..255: up to 128 cycles along a side, 130 kB for each channel at most."""
        rows, columns = image.shape[:2]
        most = min((min(rows, columns) - 1) // 2, _HIGHEST)
        kept = [
            np.abs(_spectrum(image, channel)[_lowest(most), : most + 1]) for channel in range(image.shape[2])
        ]
        return np.asarray(np.stack(kept, axis=-1) / (rows * columns), np.float32)

    def __call__(self, image: Image, label: LabelArray, rng: np.random.Generator) -> tuple[Image, LabelArray]:
        """Return an image of the same dtype, clipped to 0..255, and the label."""
        if not happens(self.prob, rng):
            return image, label
        style = self.styles[int(rng.integers(len(self.styles)))]
        rows, columns = image.shape[:2]
        b = int(rng.uniform(*self.beta) * min(rows, columns))
        b = min(b, (min(rows, columns) - 1) // 2, style.shape[1] - 1)
        wanted = style[_lowest(b), : b + 1] * (rows * columns)
        result = np.empty_like(image)
        for channel in range(image.shape[2]):
            spectrum = _spectrum(image, channel)
            phases = np.exp(1j * np.angle(spectrum[_lowest(b), : b + 1]))
            spectrum[_lowest(b), : b + 1] = wanted[:, :, channel] * phases
            plane = np.clip(fft.irfft2(spectrum, s=(rows, columns)), 0, 255)
            result[:, :, channel] = np.rint(plane) if image.dtype == np.uint8 else plane
        return result, label


def _counts(image: Image) -> list[NDArray[np.float64]]:
    """Pixels of each whole level 0..255, by channel."""
    whole = image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)
    planes = (cv2.extractChannel(whole, channel) for channel in range(image.shape[2]))
    return [np.bincount(plane.ravel(), minlength=256).astype(np.float64) for plane in planes]


def _histogram(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    levels = np.flatnonzero(counts)
    return np.cumsum(counts[levels]) / counts.sum(), levels.astype(np.float32)


def _spectrum(image: Image, channel: int) -> NDArray[np.complexfloating[Any, Any]]:
    # scipy's transform is more than twice as fast as numpy's and OpenCV's where sides have large prime factors.
    return np.asarray(fft.rfft2(cv2.extractChannel(image, channel).astype(np.float32)))


def _lowest(b: int) -> NDArray[np.int64]:
    """Rows of the frequencies 0..b and -b..-1."""
    return np.concatenate([np.arange(b + 1), np.arange(-b, 0)])


def _require_styles(styles: tuple[Any, ...], name: str) -> None:
    if not styles:
        raise RecipeError(
            f"{name}.styles: there is no picture", hint="name a folder with pictures of the other style"
        )
