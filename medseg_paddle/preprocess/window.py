"""From intensities on a scanner's scale to the grey values that models see."""

from __future__ import annotations

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
