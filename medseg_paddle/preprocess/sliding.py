"""A volume through a 3-D network in overlapping tiles, of which finished slices leave one after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import ModelError
from medseg_paddle.preprocess.streaming import StreamedSlices
from medseg_paddle.preprocess.tiling import (
    Forward,
    InferencePlan,
    averaged,
    checked,
    gaussian,
    gaussian_window,
    require_numbers,
    tile_starts,
    tiles_together,
)

_SAME_VALUE = 1e-5  # of a normalised value: what interpolation makes of a constant differs by less
_FLOAT = 4


@dataclass(frozen=True)
class Forecast:
    """Bytes that :func:`~medseg_paddle.preprocess.segment.segment_volume` needs, without the network's own.

    Attributes
    ----------
    volume : int
        The prepared volume, or what is held of it at a time; a slab of it once more where it is smaller than a tile.
    slab : int
        Sums of the classes' probabilities over as many slices as a tile has.
    tiles : int
        What goes into the network in one call and comes out.
    answer : int
        Labels on the source's grid, the slices that are brought there, and what postprocessing takes.
    """

    volume: int
    slab: int
    tiles: int
    answer: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.volume + self.slab + self.tiles + self.answer

    def __str__(self) -> str:
        parts = {"volume": self.volume, "slab": self.slab, "tiles": self.tiles, "answer": self.answer}
        told = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in parts.items())
        return f"{self.total / 2**20:.0f} MiB ({told})"


def slab_bytes(
    image: NDArray[np.float32] | StreamedSlices, plan: InferencePlan, num_classes: int
) -> tuple[int, int, int]:
    """Bytes of a volume ``[C, D, H, W]`` or what is held of it, of the slab of answers, and of the tiles of a call."""
    channels, *size = image.shape
    tile = plan.tile_on(size)
    padded = [max(side, length) for side, length in zip(tile, size, strict=True)]
    copy = 0 if padded == size else channels * tile[0] * padded[1] * padded[2]
    volume = _FLOAT * math.prod(image.shape) if isinstance(image, np.ndarray) else image.needed(tile[0])
    slab = num_classes * tile[0] * padded[1] * padded[2] + padded[1] * padded[2]
    # In, the answer, the sum over mirror images, and the answer weighted.
    averages = 1 if plan.mirror else 0
    tiles = math.prod(tile) * (tiles_together(tile) * (channels + (1 + averages) * num_classes) + num_classes)
    return volume + _FLOAT * copy, _FLOAT * slab, _FLOAT * tiles


def predicted_slabs(
    forward: Forward,
    image: NDArray[np.float32] | StreamedSlices,
    plan: InferencePlan,
    num_classes: int,
    *,
    on_tile: Callable[[int, int], None] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Probabilities of a volume, slices that are finished at a time, from the first to the last.

    Tiles are blended by :func:`~medseg_paddle.preprocess.tiling.gaussian_window`. They are visited position by
    position along the slices, so that only as many slices as a tile has are summed up at any time. A volume that is
    smaller than a tile is filled up with 0 at the end of each axis, as patches are in training
    (:meth:`~medseg_paddle.preprocess.augment.volume_sampling.Placement.cut`): instance norms see all of a tile, and
    a mirror image of the organ beside it is something that the network never saw.

    Tiles of one value (to within 1e-5) have one answer, which is computed once. One in which nothing is above
    ``plan.skip_below`` counts as background.

    Parameters
    ----------
    forward : callable
        NCDHW float32 to probabilities NKDHW float32 of the same size.
    image : ndarray or StreamedSlices, shape (C, D, H, W), float32
        An array may be memory-mapped.
    plan : InferencePlan
        With a tile of three sides.
    num_classes : int
    on_tile : callable, optional
        Called with the number of tiles done and their total.

    Yields
    ------
    ndarray, shape (num_classes, n, H, W), float32
        The next n slices: a view, good until the next one is asked for.

    Raises
    ------
    ModelError
        The network has another number of classes, or returns numbers that are none.
    """
    depth, height, width = size = image.shape[1:]
    tile = plan.tile_on(size)
    padded = [max(length, side) for length, side in zip(size, tile, strict=True)]
    starts = [tile_starts(length, side, plan.overlap) for length, side in zip(padded, tile, strict=True)]
    network = _Tiles(averaged(forward, plan), tile, num_classes, plan.skip_below)
    # Origins are a grid, so that the sum of all windows is a product of three profiles.
    across, rows, columns = (
        _weight(length, side, first) for length, side, first in zip(padded, tile, starts, strict=True)
    )
    plane = np.outer(rows, columns).astype(np.float32)
    window = gaussian_window(tile)
    total = np.zeros((num_classes, tile[0], *padded[1:]), np.float32)
    origins = list(itertools.product(starts[1], starts[2]))
    number, done = len(origins) * len(starts[0]), 0
    for first, following in itertools.pairwise([*starts[0], padded[0]]):
        slab = filled_up(image[:, first : first + tile[0]], tile)
        for (row, column), answer in network.answers(slab, origins):
            part = total[:, :, row : row + tile[1], column : column + tile[2]]
            if answer is None:
                part[0] += window
            else:
                part += answer * window
            done += 1
            if on_tile is not None:
                on_tile(done, number)
        finished = following - first
        for place in range(finished):
            total[:, place] /= np.float32(across[first + place]) * plane
        yield total[:, : min(finished, depth - first), :height, :width]
        for classes in total:
            for place in range(tile[0] - finished):  # slice by slice: numpy copies what overlaps
                classes[place] = classes[place + finished]
            classes[tile[0] - finished :] = 0


class _Tiles:
    """A network's answers to the tiles of a slab; those that need no computing are told apart."""

    def __init__(
        self, forward: Forward, tile: tuple[int, ...], num_classes: int, skip_below: float | None
    ) -> None:
        self._forward, self._tile, self._num_classes = forward, tile, num_classes
        self._skip_below = skip_below
        self._constant: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None  # values, answer

    def answers(
        self, slab: NDArray[np.float32], origins: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.float32] | None]]:
        """Origin and answer ``[K, d, h, w]`` of every tile, None for background."""
        waiting: list[tuple[int, int]] = []
        together = tiles_together(self._tile)
        for origin in origins:
            known, answer = self._known(self._at(slab, origin))
            if known:
                yield origin, answer
                continue
            waiting.append(origin)
            if len(waiting) == together:
                yield from self._computed(slab, waiting)
                waiting = []
        if waiting:
            yield from self._computed(slab, waiting)

    def _at(self, slab: NDArray[np.float32], origin: tuple[int, int]) -> NDArray[np.float32]:
        row, column = origin
        return slab[:, :, row : row + self._tile[1], column : column + self._tile[2]]

    def _known(self, tile: NDArray[np.float32]) -> tuple[bool, NDArray[np.float32] | None]:
        low, high = tile.min(axis=(1, 2, 3)), tile.max(axis=(1, 2, 3))
        if self._skip_below is not None and (high <= self._skip_below).all():
            return True, None
        if (high - low > _SAME_VALUE).any():
            return False, None
        if self._constant is None or (np.abs(self._constant[0] - low) > _SAME_VALUE).any():
            filled = np.broadcast_to(low[:, None, None, None], tile.shape)
            self._constant = low, self._checked(filled[None])[0]
        return True, self._constant[1]

    def _computed(
        self, slab: NDArray[np.float32], origins: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.float32]]]:
        batch = np.stack([self._at(slab, origin) for origin in origins])
        yield from zip(origins, self._checked(batch), strict=True)

    def _checked(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        answer = checked(self._forward, batch)
        if answer.shape[1] != self._num_classes:
            raise ModelError(
                f"the network has {answer.shape[1]} classes, the labels are {self._num_classes}",
                hint="use the recipe that the checkpoint was trained with",
            )
        return require_numbers(answer, "volume")


def filled_up(image: NDArray[np.float32], size: Sequence[int]) -> NDArray[np.float32]:
    """A volume ``[C, D, H, W]`` of `size` at least, with 0 at the end of each axis; no copy of one that is."""
    lacking = [max(0, side - length) for side, length in zip(size, image.shape[1:], strict=True)]
    return np.pad(image, [(0, 0), *((0, more) for more in lacking)]) if any(lacking) else image


def _weight(length: int, side: int, starts: Sequence[int]) -> NDArray[np.float64]:
    """Sum of the windows' profiles along one axis."""
    found = np.zeros(length)
    for start in starts:
        found[start : start + side] += gaussian(side)
    return found
