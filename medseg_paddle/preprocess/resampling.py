"""Volumes and label maps on another grid; of probabilities see :mod:`medseg_paddle.preprocess.restoring`.

To another spacing: ``resample(volume, volume.geometry.respaced((1, 1, 1)))``; back, or onto another image:
``resample(result, volume.geometry)``. The type decides what is interpolated: intensities by splines, labels not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Geometry, LabelMap, Volume, corners
from medseg_paddle.core.cores import available_cores
from medseg_paddle.core.lattice import align, index_map
from medseg_paddle.errors import DataError
from medseg_paddle.preprocess.interpolation import Interpolation, deviation
from medseg_paddle.preprocess.slabs import (
    Oblique,
    Read,
    Sampler,
    Separable,
    as_float,
    beyond,
    nearest_slices,
    sample_plane,
    slabs,
)

PARALLEL = 1e-4  # voxels that the axes of two grids may drift apart: less than what is lost to float32
LINEAR = Interpolation(kind="linear", across="linear")


def resample(
    volume: Volume,
    onto: Geometry,
    *,
    interpolation: Interpolation | None = None,
    read: Read = as_float,
    fill: float | None = None,
    threads: int | None = None,
) -> Volume:
    """The intensities of a volume on another grid.

    Parameters
    ----------
    volume : Volume
        Of any type of number, finite; read slice by slice, so that a memory-mapped array stays on the disk.
    onto : Geometry
        Where its axes are parallel to the volume's (in any order and direction), values are interpolated along one
        axis after the other; else in three dimensions at once, several times slower, and linearly along all axes
        where slices are thick.
    interpolation : Interpolation, optional
        Cubic B-splines, linear across thick slices, smoothed where it gets coarser, unless told otherwise.
    read : callable, optional
        Makes float32 of stored values before they are interpolated, each by itself: an intensity window, say.
    fill : float, optional
        Value beyond the outer edges of the volume's voxels, after `read`.
    threads : int, optional
        As many as there are processors, unless told otherwise; the result does not depend on it.

    Returns
    -------
    Volume
        float32 on `onto`. In memory there are, beside it and `volume`, some tens of slices; a copy of the part that
        is needed where the axes are not parallel.

    Raises
    ------
    DataError
        A voxel is not finite; `onto` reaches beyond the volume and no `fill` is named; the two have nothing in common
        or lie in two frames of reference.
    """
    result = np.empty(onto.shape, np.float32)
    with threads_pool(threads) as pool:
        sampler = sampler_of(volume, onto, interpolation=interpolation, read=read, fill=fill, pool=pool)
        for start, stop in slabs(onto.shape):
            sampler.slices(start, stop, result[start:stop])
    return replace(volume, array=result, geometry=onto)


def sampler_of(
    volume: Volume,
    onto: Geometry,
    *,
    interpolation: Interpolation | None = None,
    read: Read = as_float,
    fill: float | None = None,
    pool: Executor,
) -> Sampler:
    """As :func:`resample`, for slices of the answer to be made when they are needed, by the threads of `pool`.

    Raises
    ------
    DataError
        As for :func:`resample`; that a voxel is not finite is found when it is needed.
    """
    require_cover(volume.geometry, onto, fill)
    way = interpolation or Interpolation()
    return _sampler(volume.array, volume.geometry, onto, way, read=read, fill=fill or 0.0, pool=pool)


def resample_labels(
    label_map: LabelMap, onto: Geometry, *, vote: bool = False, threads: int | None = None
) -> LabelMap:
    """Labels on another grid, background beyond the old one.

    Parameters
    ----------
    label_map : LabelMap
    onto : Geometry
    vote : bool
        False takes the nearest voxel's label. True asks for the class with the greatest share, each class having been
        interpolated linearly (and smoothed where the grid gets coarser): outlines are smoother and a coarse voxel gets
        what most of it is, but structures thinner than a coarse voxel may vanish. Of equal shares the lower label wins.
    threads : int, optional

    Returns
    -------
    LabelMap
        Of the type it had; no label that was not there.
    """
    require_cover(label_map.geometry, onto, 0)
    source = label_map.array
    result = np.empty(onto.shape, source.dtype)
    with threads_pool(threads) as pool:
        if vote:
            values = np.unique(np.append(source.dtype.type(0), np.unique(source)))  # background lies beyond
            samplers = [
                _sampler(
                    source,
                    label_map.geometry,
                    onto,
                    LINEAR,
                    read=_is(value),
                    fill=float(value == 0),
                    pool=pool,
                )
                for value in values
            ]
            for (start, stop), winner in _winners(samplers, onto.shape, pool):
                result[start:stop] = values[winner]
        else:
            _nearest(source, label_map.geometry, onto, result, pool)
    return replace(label_map, array=result, geometry=onto)


def _sampler(
    array: NDArray[Any],
    source: Geometry,
    target: Geometry,
    way: Interpolation,
    *,
    read: Read,
    fill: float,
    pool: Executor,
) -> Sampler:
    found = align(source, target)
    if found.drift > PARALLEL:
        kinds = way.kinds(source.spacing, target.spacing)
        kind = next(kind for kind in ("nearest", "linear", "cubic") if kind in kinds)
        matrix, offset = index_map(source, target)
        return Oblique(
            array,
            matrix,
            offset,
            target.shape,
            kind=kind,
            antialias=way.antialias,
            read=read,
            fill=fill,
            pool=pool,
        )
    return Separable(
        array.transpose(found.order),
        places_along(found.scale, found.offset, target.shape),
        kinds=way.kinds([source.spacing[axis] for axis in found.order], target.spacing),
        smoothing=tuple(deviation(abs(scale)) if way.antialias else 0.0 for scale in found.scale),
        read=read,
        fill=fill,
        pool=pool,
    )


def _winners(
    samplers: Sequence[Sampler], shape: tuple[int, int, int], pool: Executor
) -> Iterator[tuple[tuple[int, int], NDArray[np.uint16]]]:
    """Slab by slab, which sampler has the greatest value at each voxel, the first of equal ones."""
    for start, stop in slabs(shape):
        best = np.empty((stop - start, *shape[1:]), np.float32)
        samplers[0].slices(start, stop, best)
        winner = np.zeros(best.shape, np.uint16)
        values = np.empty_like(best)
        for number, sampler in enumerate(samplers[1:], start=1):
            sampler.slices(start, stop, values)
            list(pool.map(_overtake(best, values, winner, number), range(stop - start)))
        yield (start, stop), winner


def _overtake(
    best: NDArray[np.float32], values: NDArray[np.float32], winner: NDArray[np.uint16], number: int
) -> Callable[[int], None]:
    def one(k: int) -> None:
        winner[k][values[k] > best[k]] = number
        np.maximum(best[k], values[k], out=best[k])

    return one


def _nearest(
    array: NDArray[Any], source: Geometry, target: Geometry, out: NDArray[Any], pool: Executor
) -> None:
    found = align(source, target)
    if found.drift <= PARALLEL:
        nearest_slices(
            array.transpose(found.order), places_along(found.scale, found.offset, target.shape), out, pool
        )
        return
    matrix, offset = index_map(source, target)

    def one(k: int) -> None:
        first = offset + matrix[:, 0] * k
        sample_plane(array, matrix, first, "nearest", out[k])
        out[k][beyond(array.shape, matrix, first, out[k].shape)] = 0

    list(pool.map(one, range(len(out))))


def places_along(
    scale: tuple[float, ...], offset: tuple[float, ...], shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], ...]:
    """Where in a source the slices, rows and columns of a grid lie whose axes are parallel to the source's."""
    return tuple(
        first + step * np.arange(length, dtype=np.float64)
        for step, first, length in zip(scale, offset, shape, strict=True)
    )


def _is(value: int) -> Read:
    return lambda stored: (stored == value).astype(np.float32)


@contextlib.contextmanager
def threads_pool(threads: int | None) -> Iterator[Executor]:
    """Threads that resample, as many as there are processors unless told otherwise."""
    with ThreadPoolExecutor(threads or available_cores(), thread_name_prefix="resampling") as pool:
        yield pool


def require_cover(source: Geometry, target: Geometry, fill: float | None) -> None:
    """Refuse a target that lies elsewhere, or one that reaches beyond the source where nobody said what is there."""
    matrix, offset = index_map(source, target)
    places = np.round(corners(target.shape) @ matrix.T + offset, 6)
    last = np.array(source.shape) - 0.5
    half = (
        np.abs(matrix).sum(axis=1) / 2
    )  # of a voxel of the target, whose edges may meet where no centre does
    if (places.max(axis=0) + half < -0.5).any() or (places.min(axis=0) - half > last).any():
        raise DataError(
            "the image and the grid it is to be brought to lie in different places and have nothing in common",
            hint="check that both come from the same scan of the same patient",
        )
    if fill is None and ((places < -0.5) | (places > last)).any():
        raise DataError(
            "the grid reaches beyond the image, and nobody said what is there",
            hint="name the value of `fill`: air is -1024 in a CT in HU, 0 in most MR",
        )
