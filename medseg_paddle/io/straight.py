"""Slices that lie crooked, sheared by a gantry's tilt or unevenly spaced, on a straight and even grid.

The planes stay as they are: each slice is moved within its own by what its position says, linear between
pixels, and only where slices are unevenly spaced is there interpolation between two of them. So a tilt alone costs
no sharpness across slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Geometry
from medseg_paddle.io.dicom_file import Slice
from medseg_paddle.io.stored import StoredSlices

# Shares of a pixel or of a slice distance that are rounding of the header's decimals.
_ROUNDING = 1e-3

# The slice distance that nine tenths of the gaps have or exceed: finer than that are exceptions.
_FINEST_SHARE = 0.1
# Gaps that differ by less than this share are the same one, rounded.
_SAME_GAP = 0.02


@dataclass(frozen=True, eq=False)
class Straightened:
    """A volume on a straight grid, slice by slice from one that is not.

    Attributes
    ----------
    source : StoredSlices
    slices : tuple of Slice
        Where those of `source` lie, ascending along their normal.
    fill : float
        Value where no slice reaches.
    even : bool
        They are evenly spaced but for rounded positions: each is a slice of the grid, and none is blended with another.
    """

    source: StoredSlices
    slices: Sequence[Slice]
    fill: float
    even: bool

    @cached_property
    def _aside(self) -> NDArray[np.float64]:
        """Rows and columns by which each slice's first pixel lies aside of the first slice's."""
        first = self.slices[0]
        moved = np.array([one.position - first.position for one in self.slices])
        pixels = np.stack(
            [moved @ first.down / first.spacing[0], moved @ first.across / first.spacing[1]], axis=1
        )
        return np.where(np.abs(pixels - np.rint(pixels)) < _ROUNDING, np.rint(pixels), pixels)

    @cached_property
    def _start(self) -> NDArray[np.float64]:
        """Row and column of the first slice's pixels, or beyond them, at which the grid begins."""
        return np.asarray(np.floor(self._aside.min(axis=0)))

    @cached_property
    def _is_whole(self) -> bool:
        return all(one.is_whole for one in self.source.slices)

    @cached_property
    def _heights(self) -> NDArray[np.float64]:
        """Of each slice from the first along the normal, mm."""
        return np.array([one.height - self.slices[0].height for one in self.slices])

    @cached_property
    def _step(self) -> float:
        gaps = np.diff(self._heights)
        if self.even:
            return float(gaps.mean())
        finest = np.quantile(gaps, _FINEST_SHARE, method="lower")
        return float(gaps[np.abs(gaps - finest) <= _SAME_GAP * finest].mean())

    @cached_property
    def geometry(self) -> Geometry:
        """The straight grid: slices along the normal, and room for all that the slices cover."""
        first, start = self.slices[0], self._start
        rows, columns = np.ceil(self._aside.max(axis=0)) - start + self.source.size
        # A slice of the grid stands for half a step to each side, so that none of the source lies beyond the last.
        count = round(float(self._heights[-1]) / self._step) + 1
        affine = np.eye(4)
        affine[:3, 0] = np.cross(first.across, first.down) * self._step
        affine[:3, 1] = first.down * first.spacing[0]
        affine[:3, 2] = first.across * first.spacing[1]
        affine[:3, 3] = first.position + affine[:3, 1:3] @ start
        return Geometry((count, int(rows), int(columns)), affine, first.reference)

    def __len__(self) -> int:
        return self.geometry.shape[0]

    def read(self, index: int) -> NDArray[np.float64]:
        """One slice of the straight grid; rounded where the source holds whole numbers."""
        height = min(index * self._step, float(self._heights[-1]))
        above = int(np.searchsorted(self._heights, height - _ROUNDING * self._step))
        if self.even:
            plane = self._moved(index)
        elif abs(self._heights[above] - height) <= _ROUNDING * self._step:
            plane = self._moved(above)
        else:
            low, high = self._heights[above - 1], self._heights[above]
            share = (height - low) / (high - low)
            plane = (1 - share) * self._moved(above - 1) + share * self._moved(above)
        return np.rint(plane) if self._is_whole else plane

    def _moved(self, index: int) -> NDArray[np.float64]:
        from scipy import ndimage  # noqa: PLC0415  (a third of a second, and few series are crooked)

        moved: NDArray[np.float64] = ndimage.affine_transform(
            self.source.read(index).astype(np.float64),
            np.ones(2),
            offset=self._start - self._aside[index],
            output_shape=self.geometry.shape[1:],
            order=1,
            mode="constant",
            cval=self.fill,
        )
        return moved
