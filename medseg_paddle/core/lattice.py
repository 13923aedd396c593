"""Moves that interpolate nothing: crop, pad, flip, reorient, and one way back from all of them.

Each takes a volume or a label map and returns one; where nothing is added, the array is a view.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core.geometry import Box, Geometry, require_same_frame
from medseg_paddle.core.volume import LabelMap, Volume
from medseg_paddle.errors import DataError

Image = TypeVar("Image", Volume, LabelMap)

_SAME_PLACE = 1e-3  # of a voxel: NIfTI's float32 header moves a voxel by some 1e-4 of its size


@dataclass(frozen=True)
class Alignment:
    """How the index axes of a target grid run along those of a source.

    Attributes
    ----------
    order : tuple of int
        Source axis of each target axis, as for ``array.transpose``.
    scale, offset : tuple of float
        Index k of a target axis is ``offset + scale * k`` of its source axis.
    drift : float
        Voxels of the source by which the farthest target voxel lies beside that; 0 where the axes are parallel.
    """

    order: tuple[int, int, int]
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    drift: float


def index_map(source: Geometry, target: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``matrix (3, 3), offset (3,)``: ``matrix @ index + offset`` is the source's index of a target's index.

    Raises
    ------
    DataError
        The grids lie in two frames of reference.
    """
    require_same_frame(source, target)
    axes = source.affine[:3, :3]
    matrix = np.linalg.solve(axes, target.affine[:3, :3])
    offset = np.linalg.solve(axes, target.affine[:3, 3] - source.affine[:3, 3])
    return np.asarray(matrix, np.float64), np.asarray(offset, np.float64)


def align(source: Geometry, target: Geometry) -> Alignment:
    """The nearest parallel of `target` to the axes of `source`; its ``drift`` tells how far that is from true."""
    matrix, offset = index_map(source, target)
    reach = np.abs(matrix) * np.maximum(np.array(target.shape) - 1, 1)

    def drift(order: tuple[int, ...]) -> float:
        beside = reach.copy()
        beside[list(order), range(3)] = 0
        return float(beside.sum(axis=1).max())

    first, second, third = min(permutations(range(3)), key=drift)
    order = (first, second, third)
    return Alignment(
        order=order,
        scale=(float(matrix[first, 0]), float(matrix[second, 1]), float(matrix[third, 2])),
        offset=(float(offset[first]), float(offset[second]), float(offset[third])),
        drift=drift(order),
    )


def crop(image: Image, box: Box) -> Image:
    """The part of an image in `box`; :func:`match` with the old geometry puts it back.

    Raises
    ------
    DataError
        The box reaches beyond the image.
    """
    shape = image.geometry.shape
    if min(box.start) < 0 or any(stop > side for stop, side in zip(box.stop, shape, strict=True)):
        raise DataError(
            f"the part from voxel {box.start} up to {box.stop} reaches beyond an image of {shape}",
            hint="crop to a part within, or pad the image first",
        )
    return replace(image, array=image.array[box.slices], geometry=image.geometry.boxed(box))


def pad(
    image: Image, before: tuple[int, int, int], after: tuple[int, int, int], fill: float | None = None
) -> Image:
    """An image with voxels more at both ends of each axis, all of the value `fill`.

    Background where a label map is padded; of a volume the value must be named: 0 is water in a CT, air is -1024.

    Raises
    ------
    DataError
        A number of voxels is negative, or no `fill` is named for a volume, or its type cannot hold it.
    """
    if min(*before, *after) < 0:
        raise DataError(f"padding of {before} and {after} voxels", hint="crop to make an image smaller")
    value = filling(image, fill)
    start = (-before[0], -before[1], -before[2])
    first, second, third = (side + more for side, more in zip(image.geometry.shape, after, strict=True))
    array = np.pad(image.array, list(zip(before, after, strict=True)), constant_values=value)
    return replace(image, array=array, geometry=image.geometry.boxed(Box(start, (first, second, third))))


def flip(image: Image, axes: Iterable[int]) -> Image:
    """The same voxels in the same places of the patient, counted from the other end along `axes`."""
    axes = tuple(set(axes))
    return replace(image, array=np.flip(image.array, axes), geometry=image.geometry.flipped(axes))


def reorient(image: Image, codes: str) -> Image:
    """The same voxels in the same places of the patient, the index axes along `codes` or nearest to it.

    See :attr:`Geometry.axis_codes`. An oblique grid stays oblique.

    Raises
    ------
    RecipeError
        `codes` does not name each patient axis once.
    """
    order, flips = image.geometry.turn_to(codes)
    turned = replace(image, array=image.array.transpose(order), geometry=image.geometry.transposed(order))
    return flip(turned, flips)


def match(image: Image, geometry: Geometry, fill: float | None = None) -> Image:
    """The voxels of an image on `geometry`, whose voxels lie where the image's do, or would if it went on.

    So any number of crops, pads, flips and reorientations is undone at once, without a rounding: the affine of the
    answer is that of `geometry`. Voxels of `geometry` that the image does not hold are background in a label map and
    `fill` in a volume; the array is a view where there are none.

    Raises
    ------
    DataError
        The voxels lie elsewhere (by more than a thousandth of a voxel), the two have no voxel in common, the frames
        of reference differ, or voxels of a volume are missing and no `fill` is named.
    """
    way = align(image.geometry, geometry)
    starts, signs = np.rint(way.offset), np.rint(way.scale)
    last = np.array(geometry.shape) - 1
    beside = np.abs(starts - way.offset) + np.abs(signs - way.scale) * np.maximum(last, 1)
    if (np.abs(signs) != 1).any() or beside.max() + way.drift > _SAME_PLACE:
        raise DataError(
            "the two images do not share their voxels: spacing, direction or position differ",
            hint="resample one to the grid of the other",
        )
    array = image.array.transpose(way.order)
    here, there = [], []
    for start, sign, side, length in zip(
        starts.astype(int), signs.astype(int), array.shape, geometry.shape, strict=True
    ):
        ends = sorted((-start * sign, (side - 1 - start) * sign))
        first, stop = max(ends[0], 0), min(ends[1] + 1, length)
        if first >= stop:
            raise DataError(
                "the two images have no voxel in common",
                hint="check that they show the same part of the patient",
            )
        here.append(slice(first, stop))
        lowest, highest = sorted((start + sign * first, start + sign * (stop - 1)))
        there.append(slice(lowest, highest + 1))
    found = np.flip(array[tuple(there)], np.flatnonzero(signs < 0))
    if found.shape == geometry.shape:
        return replace(image, array=found, geometry=geometry)
    whole = np.full(geometry.shape, filling(image, fill), image.array.dtype)
    whole[tuple(here)] = found
    return replace(image, array=whole, geometry=geometry)


def filling(image: Volume | LabelMap, fill: float | None) -> float:
    """The value of voxels that an image does not hold: `fill`, or background of a label map.

    Raises
    ------
    DataError
        No value is named for a volume, or its type cannot hold the one that is.
    """
    if fill is None:
        if isinstance(image, LabelMap):
            return 0
        raise DataError(
            "a volume is to be continued beyond its edge, and nobody said with what",
            hint="name the value of `fill`: air is -1024 in a CT in HU, 0 in most MR",
        )
    dtype = image.array.dtype
    if np.issubdtype(dtype, np.integer) and not (
        float(fill).is_integer() and np.iinfo(dtype).min <= fill <= np.iinfo(dtype).max
    ):
        raise DataError(
            f"{fill:g} is no value of {dtype}", hint="name a `fill` that the image's type can hold"
        )
    return fill
