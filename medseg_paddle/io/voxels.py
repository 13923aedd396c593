"""What all readers of volumes ask of voxels, whatever the format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Geometry, Volume
from medseg_paddle.errors import DataError


def grid_of(
    source: Path | str, shape: tuple[int, int, int], affine: NDArray[np.float64], frame: str = ""
) -> Geometry:
    """A grid as a file says it lies.

    Raises
    ------
    DataError
        It lies nowhere, as for :class:`~medseg_paddle.core.Geometry`; the message names `source`.
    """
    try:
        return Geometry(shape, affine, frame)
    except DataError as error:
        raise DataError(f"{source}: {error.message}", hint=error.hint) from error


def grey_volume(path: Path, array: NDArray[Any], geometry: Geometry) -> Volume:
    """A volume of float32 values whose units nobody said; a DataError where one is not finite."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is found below
        values = np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError(
            f"{path}: {int((~np.isfinite(values)).sum())} voxels are not finite numbers",
            hint="export the volume again, or fill these voxels on purpose",
        )
    return Volume(values, geometry)


def label_volume(path: Path, array: NDArray[Any], geometry: Geometry) -> Volume:
    """A volume of indices, uint8 or uint16; a DataError where one is not an integer in 0..65535."""
    wrong = (array < 0) | (array > 65535)
    if array.dtype.kind == "f":
        wrong |= ~(array == np.rint(array))
    if wrong.any():
        raise DataError(
            f"{path}: {int(wrong.sum())} voxels are not label values, for example {array[wrong][0]:.4g}; "
            "a label map holds integers from 0",
            hint="threshold or round the mask on purpose and save it as 8-bit integers",
        )
    dtype = np.uint8 if array.max(initial=0) <= 255 else np.uint16
    return Volume(np.ascontiguousarray(array, dtype=dtype), geometry)
