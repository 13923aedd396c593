"""Probabilities that arrive slices at a time, brought to the grid that their volume came on as they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Geometry
from medseg_paddle.core.cores import available_cores
from medseg_paddle.core.lattice import align
from medseg_paddle.errors import DataError
from medseg_paddle.preprocess.interpolation import deviation
from medseg_paddle.preprocess.passing import Passing
from medseg_paddle.preprocess.resampling import (
    LINEAR,
    PARALLEL,
    places_along,
    require_cover,
    threads_pool,
)
from medseg_paddle.preprocess.slabs import Separable, as_float

Index = tuple[slice, slice, slice]

_SLAB_BYTES = 1 << 24  # of the answers that are worked on together


def slices_together(plane: int, classes: int) -> int:
    """How many slices of a grid with `plane` voxels in each are worked on together."""
    return max(available_cores(), _SLAB_BYTES // (4 * plane * classes))


def restored_slabs(
    arriving: Iterable[NDArray[np.float32]],
    on: Geometry,
    onto: Geometry,
    classes: int,
    *,
    threads: int | None = None,
) -> Iterator[tuple[Index, NDArray[np.float32]]]:
    """Probabilities on another grid, interpolated linearly, part by part.

    Of the probabilities only those slices are held of which the next part is made.

    Parameters
    ----------
    arriving : iterable of ndarray, shape (classes, n, rows, columns)
        The slices of `on` in their order; each may be overwritten when the next is asked for.
    on, onto : Geometry
        The grid that they are on, and the one they shall be on, whose axes are parallel, in any order and direction.
    classes : int
        Background first; beyond `on` there is background.
    threads : int, optional

    Yields
    ------
    tuple of slice, ndarray
        Which part of `onto`, and its probabilities ``[classes, *part]``, float32.

    Raises
    ------
    DataError
        The grids are turned against one another or have nothing in common.
    """
    require_cover(on, onto, 0)
    way = align(on, onto)
    if way.drift > PARALLEL:
        raise DataError(
            "the network's grid is turned against the image's",
            hint="prepare the image by its own axes, as VolumePreprocessing does",
        )
    # The grid `onto` with its axes in the order and the direction of `on`, so that its slices follow the stream.
    places = [way.order.index(axis) for axis in range(3)]
    order = (places[0], places[1], places[2])
    flips = tuple(axis for axis in range(3) if way.scale[order[axis]] < 0)
    along = onto.transposed(order).flipped(flips)
    straight = align(on, along)
    with threads_pool(threads) as pool:
        passing = [Passing(on.shape) for _ in range(classes)]
        samplers = [
            Separable(
                volume,
                places_along(straight.scale, straight.offset, along.shape),
                kinds=LINEAR.kinds(on.spacing, along.spacing),
                smoothing=tuple(deviation(abs(scale)) for scale in straight.scale),
                read=as_float,
                fill=float(number == 0),
                pool=pool,
            )
            for number, volume in enumerate(passing)
        ]
        needs, most = samplers[0].needs(), slices_together(along.shape[1] * along.shape[2], classes)
        done = arrived = 0
        for slab in arriving:
            arrived += slab.shape[1]
            for volume, came in zip(passing, slab, strict=True):
                volume.put(came)
            while (stop := _ready(needs, done, min(done + most, len(needs)), arrived)) > done:
                found = np.empty((classes, stop - done, *along.shape[1:]), np.float32)
                for sampler, values in zip(samplers, found, strict=True):
                    sampler.slices(done, stop, values)
                np.clip(found, 0, 1, out=found)  # blending and interpolation round, 1 to 1.0000001
                yield _back(found, (done, stop), along.shape, way.order, flips)
                done = stop
            kept = min((first for first, end in needs[done:] if end), default=arrived)
            for volume in passing:
                volume.keep(kept)
        if done < len(needs):
            raise ValueError(f"{arrived} slices came, {on.shape[0]} make the volume")


def _ready(needs: list[tuple[int, int]], done: int, most: int, arrived: int) -> int:
    """Up to where slices can be made of what has arrived."""
    while done < most and needs[done][1] <= arrived:
        done += 1
    return done


def _back(
    found: NDArray[np.float32],
    span: tuple[int, int],
    shape: tuple[int, int, int],
    order: tuple[int, int, int],
    flips: tuple[int, ...],
) -> tuple[Index, NDArray[np.float32]]:
    """A part in the order and direction of the grid's own axes, and where it lies there."""
    start, stop = span
    if 0 in flips:
        start, stop = shape[0] - stop, shape[0] - start
    ranges = [slice(start, stop), slice(0, shape[1]), slice(0, shape[2])]
    index = (ranges[order[0]], ranges[order[1]], ranges[order[2]])
    turned = np.flip(found, [axis + 1 for axis in flips])
    return index, turned.transpose(0, *(axis + 1 for axis in order))
