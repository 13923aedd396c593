"""Volumes whose slices come one at a time, so that a large study takes little memory on its way into a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Geometry, Units, Volume
from medseg_paddle.errors import DataError

_LARGE = 8
_INTEGERS = (np.dtype(np.int16), np.dtype(np.uint16), np.dtype(np.int32))
_WIDEST = np.iinfo(np.int32)


class Slices(Protocol):
    """Slices of one size, each read when it is asked for."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, index: int) -> NDArray[Any]:
        """One of them."""


@dataclass(frozen=True, eq=False)
class SlicedVolume:
    """A volume on its way into a file.

    Attributes
    ----------
    slices : Slices
    geometry : Geometry
    units : {"HU", "arbitrary", "unknown"}
    dtype : dtype
        That holds every value, see :func:`settled`.
    """

    slices: Slices
    geometry: Geometry
    units: Units
    dtype: np.dtype[Any]

    def planes(self) -> Iterator[NDArray[Any]]:
        """Each slice, ``[row, column]``, in `dtype`, contiguous and in little-endian order."""
        for index in range(len(self.slices)):
            yield np.ascontiguousarray(self.slices.read(index), dtype=self.dtype.newbyteorder("<"))

    def whole(self) -> Volume:
        """All slices in memory, in `dtype`; float32 where that is float64."""
        dtype = np.dtype(np.float32) if self.dtype == np.float64 else self.dtype
        array = np.empty(self.geometry.shape, dtype)
        for index, plane in enumerate(array):
            plane[...] = self.slices.read(index)
        return Volume(array, self.geometry, self.units)


@dataclass(frozen=True, eq=False)
class ArraySlices:
    """The slices of an array in memory."""

    array: NDArray[Any]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.array)

    def read(self, index: int) -> NDArray[Any]:
        """One of them."""
        return np.asarray(self.array[index])


def settled(source: str, slices: Slices, geometry: Geometry, units: Units, *, keep: bool) -> SlicedVolume:
    """A volume with the smallest type that holds all its values.

    Whole numbers: int16, uint16 or int32, whichever is the first that holds them, else float64. Others: float32, or
    float64 where a file of float64 has a value that float32 does not hold.

    Parameters
    ----------
    source : str
        What the slices come from, for messages.
    slices, geometry, units
        Of the volume.
    keep : bool
        Keep integers of up to 32 bits in the type that the slices have: a file's own. Other values than whole ones
        keep their digits; without it (rescaled values of a scanner) they are rounded to float32.

    Raises
    ------
    DataError
        A value that is not finite.
    """
    first = slices.read(0).dtype.newbyteorder("=")
    # Eight bytes are what scaled integers come as, and few programs read them.
    if keep and first.kind in "iu" and first.itemsize < _LARGE:
        return SlicedVolume(slices, geometry, units, first)
    low, high, is_whole, fits = np.inf, -np.inf, True, True
    for index in range(len(slices)):
        values = slices.read(index)
        if values.dtype.kind == "f":
            if not np.isfinite(values).all():
                raise DataError(
                    f"{source}: slice {index + 1} holds {int((~np.isfinite(values)).sum())} values that are not finite",
                    hint="export the volume again, or fill these voxels on purpose",
                )
            is_whole = is_whole and bool((values == np.rint(values)).all())
            with np.errstate(over="ignore"):
                fits = fits and bool((values.astype(np.float32) == values).all())
        else:
            fits = fits and bool(_WIDEST.min <= values.min() and values.max() <= _WIDEST.max)
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    if is_whole:
        for kind in _INTEGERS:
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return SlicedVolume(slices, geometry, units, kind)
        if keep and first.kind in "iu":
            return SlicedVolume(slices, geometry, units, first)
    exact = np.float32 if fits or not (keep or is_whole) else np.float64
    return SlicedVolume(slices, geometry, units, np.dtype(exact))
