"""Smooth random displacement of the voxels of a patch."""

from __future__ import annotations

import math

import cv2
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Triple = tuple[float, float, float]

_STEPS = 2  # steps of the coarse grid to a standard deviation; what is lost between them is below 1 %


def elastic_shift(
    size: tuple[int, int, int], alpha: Triple, sigma: Triple, rng: np.random.Generator
) -> NDArray[np.float32]:
    """White noise, smoothed by a Gaussian (Simard et al., ICDAR 2003), as displacement along each axis.

    Drawn and smoothed on a grid of half a standard deviation, then enlarged by cubic interpolation.

    Parameters
    ----------
    size : tuple of int
        Of the patch.
    alpha : three floats
        Root mean square of the displacement along slices, rows and columns, in voxels; along an axis of 0 nothing
        moves.
    sigma : three floats
        Standard deviation of the Gaussian along these axes, in voxels; where it is much longer than the patch, all its
        slices (or rows, or columns) move alike.
    rng : Generator

    Returns
    -------
    ndarray, shape (3, *size), float32
    """
    result = np.zeros((3, *size), np.float32)
    coarse = [
        min(side, max(2, math.ceil(side * _STEPS / width))) for side, width in zip(size, sigma, strict=True)
    ]
    widths = [width * few / side for width, few, side in zip(sigma, coarse, size, strict=True)]
    for axis, amplitude in enumerate(alpha):
        if amplitude:
            noise = rng.standard_normal(coarse, dtype=np.float32)
            smooth = scipy.ndimage.gaussian_filter(noise, widths, mode="reflect")
            field = _enlarged(smooth, size)
            field *= np.float32(amplitude / max(math.sqrt(float(np.mean(np.square(field)))), 1e-12))
            result[axis] = field
    return result


def _enlarged(field: NDArray[np.float32], size: tuple[int, int, int]) -> NDArray[np.float32]:
    planes = [cv2.resize(plane, (size[2], size[1]), interpolation=cv2.INTER_CUBIC) for plane in field]
    stacked = np.stack(planes).reshape(len(planes), -1)
    whole = cv2.resize(stacked, (stacked.shape[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(whole, np.float32).reshape(size)
