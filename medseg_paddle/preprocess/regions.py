"""The part of a volume that matters: the body of a CT, voxels that are not 0, the surroundings of a structure."""

from __future__ import annotations

import math
from collections.abc import Collection

import cv2
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from medseg_paddle.core import Box, Geometry, LabelMap, Volume
from medseg_paddle.errors import DataError

BODY_ABOVE_HU = -500.0
"""Between air (-1000 HU) and fat (-100 HU), above the lung's -850."""
_PART_OF_BODY = 0.25  # of its largest part


def nonzero_mask(volume: Volume) -> NDArray[np.bool_]:
    """Voxels whose value is not 0: the brain in a skull-stripped MR."""
    return np.asarray(volume.array != 0)


def body_mask(volume: Volume) -> NDArray[np.bool_]:
    """The body in a CT.

    Voxels above :data:`BODY_ABOVE_HU`, of these the largest part that hangs together (by faces) and every other one of
    a quarter of its size or more (legs are two parts), and what they enclose in each axial slice: lungs and bowel gas.
    A couch that the body touches counts as body.

    Raises
    ------
    DataError
        The volume is not in HU, or all of it is air.
    """
    if volume.units != "HU":
        raise DataError(
            f"the body is found by Hounsfield units, the volume's are {volume.units}",
            hint="use the region nonzero or all for images other than CT",
        )
    parts, count = scipy.ndimage.label(volume.array > BODY_ABOVE_HU)
    if not count:
        raise DataError(
            f"no voxel is above {BODY_ABOVE_HU:g} HU: there is no body in the volume",
            hint="look at the image, and whether its rescale slope and intercept were applied",
        )
    sizes = np.zeros(count + 1, np.int64)
    for plane in parts:  # for NumPy counts in 64 bits
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    sizes[0] = 0
    mask = np.asarray((sizes >= _PART_OF_BODY * sizes.max())[parts])
    axial = volume.geometry.sliced_along("axial")
    for plane in mask.transpose(axial):
        np.logical_or(plane, _enclosed(plane), out=plane)
    return mask


def roi_box(label_map: LabelMap, classes: Collection[int], margin_mm: float) -> Box:
    """The box around the voxels of some classes, a margin in mm wider on each side but within the image.

    Raises
    ------
    DataError
        There is no such voxel.
    """
    return Box.around(np.isin(label_map.array, list(classes)), margin_voxels(label_map.geometry, margin_mm))


def margin_voxels(geometry: Geometry, margin_mm: float) -> tuple[int, int, int]:
    """How many voxels along each axis are `margin_mm` at least."""
    slices, rows, columns = (math.ceil(round(margin_mm / spacing, 6)) for spacing in geometry.spacing)
    return slices, rows, columns


def _enclosed(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Background of a slice from which no way leads to its border by faces."""
    padded = np.pad(plane, 1).astype(np.uint8)
    cv2.floodFill(padded, None, (0, 0), 1)
    return np.asarray(padded[1:-1, 1:-1] == 0)
