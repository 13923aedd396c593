"""From intensities on a scanner's scale to the grey values that models see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import DataError, RecipeError


def window_to_uint8(array: NDArray[Any], level: float, width: float) -> NDArray[np.uint8]:
    """Map the window ``level - width / 2 .. level + width / 2`` to 0..255.

    Preparing a data set and predicting a volume both call this function, so a model meets the grey
    values in use that it met in training.

    Parameters
    ----------
    array : ndarray
        Intensities, any shape; Hounsfield units for CT.
    level, width : float
        Centre and full width of the window, in the units of `array`.

    Returns
    -------
    ndarray of the same shape, uint8
        Rounded half to even; values outside the window are 0 or 255.

    Raises
    ------
    RecipeError
        `width` is not a positive number or `level` is not finite.
    DataError
        A value of `array` is not a number.

    Notes
    -----
    The linear function of DICOM PS3.3, C.11.2.1.3.2 (``LINEAR_EXACT``), with y from 0 to 255.
    """
    return np.asarray(_windowed(array, level, width, 255), dtype=np.uint8)


def window_to_uint16(array: NDArray[Any], level: float, width: float) -> NDArray[np.uint16]:
    """Map the window to 0..65535; see :func:`window_to_uint8`.

    A window of level -0.5 and width 65535 keeps every whole number from -32768 to 32767 as itself plus 32768.
    """
    return np.asarray(_windowed(array, level, width, 65535), dtype=np.uint16)


def clipped_share(array: NDArray[Any], level: float, width: float) -> float:
    """Share of values that lie outside a window, 0..1; those at its edges lie inside."""
    outside = (array < level - width / 2) | (array > level + width / 2)
    return float(np.count_nonzero(outside)) / max(array.size, 1)


def windowed_picture(
    image: NDArray[Any], windows: Sequence[tuple[float, float]], bits: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Apply one window to a picture, or one to each of its channels.

    Parameters
    ----------
    image : ndarray, (height, width) or (height, width, channels), uint16
    windows : sequence of (level, width)
        One, or as many as there are channels.
    bits : {8, 16}
        Depth of the result.

    Raises
    ------
    DataError
        The picture has 8 bits, or other channels than there are windows.
    """
    if image.dtype != np.uint16:
        raise DataError(
            "the picture has 8 bits, a `window` is for pictures of 16 bits",
            hint="give the picture as the detector wrote it, with 16 bits; without `window` in the recipe, 8 bits are "
            "taken as they are",
        )
    convert = window_to_uint8 if bits == 8 else window_to_uint16
    if len(windows) == 1:
        return convert(image, *windows[0])
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels != len(windows):
        raise DataError(
            f"the picture has {channels} channels, there are {len(windows)} windows",
            hint="give one window, or one for each channel",
        )
    planes = [convert(image[:, :, place], *window) for place, window in enumerate(windows)]
    return np.asarray(np.stack(planes, axis=-1))


def _windowed(array: NDArray[Any], level: float, width: float, white: int) -> NDArray[np.float32]:
    if not (np.isfinite(level) and np.isfinite(width) and width > 0):
        raise RecipeError(
            f"window of level {level} and width {width}",
            hint="give `window` a finite level and a width above 0, for example {level: -600, width: 1500}",
        )
    values = np.asarray(array, dtype=np.float32)
    if np.isnan(values).any():
        raise DataError(
            f"{int(np.isnan(values).sum())} voxels are not a number (NaN)",
            hint="export the image again, or fill these voxels with the value of air on purpose",
        )
    grey = (values - (level - width / 2)) * (white / width)
    return np.asarray(np.rint(np.clip(grey, 0, white)), dtype=np.float32)
