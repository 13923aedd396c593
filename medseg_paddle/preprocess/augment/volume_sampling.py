"""A patch cut from a volume and its label: turned, magnified and deformed in one interpolation, or a plain copy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.preprocess.slabs import between

_GATHERED = 1 << 14  # voxels that are gathered together: what they need stays in a processor's cache

Span = NDArray[np.int64]
"""First index or end along slices, rows and columns."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Where in a volume the voxels of a patch lie.

    Voxel ``x`` of the patch shows ``centre + matrix @ (x + shift[x] - (size - 1) / 2)`` of the volume, both counted in
    voxels from the middle of the first one; then the patch is mirrored.

    Attributes
    ----------
    size : tuple of int
        Slices, rows and columns of the patch.
    centre : ndarray, shape (3,), float64
        The place in the volume that is in the middle of the patch.
    matrix : ndarray, shape (3, 3), float64
    shift : ndarray, shape (3, *size), float32, optional
        Elastic deformation, in voxels of the patch.
    mirror : tuple of int
        Axes along which the patch is turned round in the end.
    """

    size: tuple[int, int, int]
    centre: NDArray[np.float64]
    matrix: NDArray[np.float64]
    shift: NDArray[np.float32] | None = None
    mirror: tuple[int, ...] = ()

    def cut(
        self, image: NDArray[np.float32], label: NDArray[np.uint8], *, ignore_index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """The patch of an image and of its label, as new arrays.

        Images are interpolated linearly. A label is the class that has the greatest share of that interpolation, which
        is nearer to the turned shape than the class of the nearest voxel; one that is a voxel or two wide may lose.
        Beyond the volume an image is 0, as in nnU-Net, and a label is `ignore_index`: nothing is known there. (nnU-Net
        calls it background.) Of a volume that is memory-mapped only the part is read that the patch shows.

        Parameters
        ----------
        image : ndarray, shape (channels, d, h, w), float32
        label : ndarray, shape (d, h, w), uint8
        ignore_index : int
            Label value that is neither learned nor scored.

        Returns
        -------
        ndarray, shape (channels, *size), float32, and ndarray, shape size, uint8
        """
        start = self.centre - (np.array(self.size) - 1) / 2
        if self.shift is None and np.array_equal(self.matrix, np.eye(3)) and (start == np.floor(start)).all():
            low = start.astype(np.int64)
            patch, mask = (
                _part(image, low, low + self.size, 0),
                _part(label, low, low + self.size, ignore_index),
            )
        else:
            patch, mask = self._interpolated(image, label, ignore_index)
        if self.mirror:
            patch = np.ascontiguousarray(np.flip(patch, [axis + 1 for axis in self.mirror]))
            mask = np.ascontiguousarray(np.flip(mask, self.mirror))
        return patch, mask

    def _interpolated(
        self, image: NDArray[np.float32], label: NDArray[np.uint8], ignore_index: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        low, end = self._reach(label.shape)
        values, classes = _part(image, low, end, 0), _part(label, low, end, ignore_index)
        mixed, flat = _mixed(classes).reshape(-1), classes.reshape(-1)
        sides = classes.shape
        strides = (sides[1] * sides[2], sides[2], 1)
        patch = np.empty((len(image), *self.size), np.float32)
        mask = np.empty(self.size, np.uint8)
        for block, places in self._blocks(low):
            corner = np.zeros(places[0].shape, np.intp)
            shares = []
            for place, side, stride in zip(places, sides, strides, strict=True):
                np.clip(place, 0, side - 1, out=place)
                first = np.floor(place)
                corner += first.astype(np.intp) * stride
                shares.append(place - first)  # of the way from the cell's first voxel to the next
            # Slices that are not turned against the volume's need no neighbours.
            along = [axis for axis, share in enumerate(shares) if share.any()]
            for channel, result in zip(values, patch, strict=True):
                result[block] = between(
                    channel.reshape(-1),
                    corner,
                    [strides[axis] for axis in along],
                    [shares[axis] for axis in along],
                )
            found = flat.take(corner)
            unclear = mixed.take(corner)
            found[unclear] = _voted(flat, corner[unclear], strides, [share[unclear] for share in shares])
            mask[block] = found
        return patch, mask

    def _blocks(self, low: Span) -> Iterator[tuple[tuple[slice, slice], list[NDArray[np.float32]]]]:
        """Slices and rows of the patch, and where they lie in the part of the volume that begins at `low`."""
        slices, rows, columns = (np.arange(side) - (side - 1) / 2 for side in self.size)
        rows_together = max(1, _GATHERED // self.size[2])
        slices_together = max(1, rows_together // self.size[1])
        for k, i in itertools.product(
            range(0, self.size[0], slices_together), range(0, self.size[1], rows_together)
        ):
            block = slice(k, k + slices_together), slice(i, i + rows_together)
            places = []
            for axis, line in enumerate(self.matrix):
                first = (
                    self.centre[axis]
                    - low[axis]
                    + line[0] * slices[block[0], None]
                    + line[1] * rows[block[1]]
                )
                place = first.astype(np.float32)[:, :, None] + (line[2] * columns).astype(np.float32)
                if self.shift is not None:
                    for along, moved in zip(line, self.shift, strict=True):
                        if along:
                            place += np.float32(along) * moved[block]
                places.append(place)
            yield block, places

    def _reach(self, shape: Sequence[int]) -> tuple[Span, Span]:
        """First index and end of what the patch shows; no more than one voxel beyond the volume."""
        half = (np.array(self.size) - 1) / 2
        if self.shift is not None:
            half = half + np.abs(self.shift).reshape(3, -1).max(axis=1)
        reach = np.abs(self.matrix) @ half
        last = np.array(shape)
        low = np.clip(np.floor(self.centre - reach).astype(np.int64), -1, last - 1)
        high = np.clip(np.ceil(self.centre + reach).astype(np.int64), low + 1, last)
        return low, high + 1


def _mixed(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether the cell of voxels that begins at a voxel, towards the higher indices, holds more than one class."""
    least, greatest = classes.copy(), classes.copy()
    for axis in range(3):
        for choose, chosen in ((np.minimum, least), (np.maximum, greatest)):
            lower, upper = np.swapaxes(chosen, 0, axis)[:-1], np.swapaxes(chosen, 0, axis)[1:]
            choose(lower, upper, out=lower)
    return np.asarray(least != greatest)


def _voted(
    classes: NDArray[np.uint8],
    corner: NDArray[np.intp],
    strides: tuple[int, int, int],
    shares: Sequence[NDArray[np.float32]],
) -> NDArray[np.uint8]:
    """The class with the greatest share within a cell of voxels, whose first corner is given."""
    votes = np.ones((8, len(corner)), np.float32)
    labels = np.empty((8, len(corner)), np.uint8)
    for number, steps in enumerate(itertools.product((0, 1), repeat=3)):
        # Where a next voxel would lie beyond, its share is 0.
        there = corner + sum(step * stride for step, stride in zip(steps, strides, strict=True))
        labels[number] = classes.take(there, mode="clip")
        for step, share in zip(steps, shares, strict=True):
            votes[number] *= share if step else 1 - share
    together = np.where(labels[:, None] == labels, votes, 0).sum(axis=1)
    return np.asarray(labels[together.argmax(axis=0), np.arange(len(corner))])


def _part(array: NDArray[Any], low: Span, end: Span, fill: float) -> NDArray[Any]:
    """A box of an array (..., d, h, w), filled up where it reaches beyond."""
    lead = array.shape[:-3]
    result = np.full((*lead, *(end - low)), fill, array.dtype)
    shape = np.array(array.shape[-3:])
    first, last = np.clip(low, 0, shape), np.clip(end, 0, shape)
    source = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    target = tuple(slice(a, b) for a, b in zip(first - low, last - low, strict=True))
    whole = (slice(None),) * len(lead)
    result[whole + target] = array[whole + source]
    return result
