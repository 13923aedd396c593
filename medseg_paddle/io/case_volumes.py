"""Whole volumes of a prepared data set: all channels of an image, and its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_paddle.core import Case, Geometry, LabelMap, LabelSet, Units, Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.label_values import require_classes
from medseg_paddle.io.nifti import NIFTI_SUFFIXES, nifti_grid, read_nifti_channels
from medseg_paddle.io.volumes import read_compact, read_label_volume, read_volume

CHANNELS_APART_MM = 0.05  # at most, of two channels' voxels that are one


def read_case_volumes(case: Case, channels: int) -> tuple[Volume, ...]:
    """The channels of a case's image, on one grid.

    Parameters
    ----------
    case : Case
        Of a data set that was prepared with ``volumes: whole``.
    channels : int
        How many the network takes.

    Returns
    -------
    tuple of Volume
        float32, in the units that the data set notes of the case; in ``"unknown"`` ones where it notes none.

    Raises
    ------
    DataError
        As for :func:`~medseg_paddle.io.volumes.read_volume`, or there are more or fewer channels.
    """
    volumes = read_channels_of(case.image)
    _require_channels(case, len(volumes), channels)
    return tuple(Volume(one.array, one.geometry, case_units(case)) for one in volumes)


def read_channels_of(path: Path, *, compact: bool = False) -> tuple[Volume, ...]:
    """The volume of a file, or all volumes on the fourth axis of a NIfTI file.

    Parameters
    ----------
    path : Path
    compact : bool
        A single volume as :func:`~medseg_paddle.io.volumes.read_compact` reads it.

    Raises
    ------
    DataError
        As for :func:`~medseg_paddle.io.volumes.read_volume`, but for a fourth axis of NIfTI.
    """
    if path.name.lower().endswith(NIFTI_SUFFIXES) and not (compact and nifti_grid(path)[1] == 1):
        return read_nifti_channels(path)
    return (read_compact(path) if compact else read_volume(path),)


def case_grid(case: Case, channels: int) -> Geometry:
    """Where the voxels of a case's image lie; of a NIfTI file by its header alone.

    Raises
    ------
    DataError
        The file cannot be read, or there are more or fewer channels.
    """
    if case.image.name.lower().endswith(NIFTI_SUFFIXES):
        geometry, found = nifti_grid(case.image)
    else:
        geometry, found = read_volume(case.image).geometry, 1
    _require_channels(case, found, channels)
    return geometry


def case_units(case: Case) -> Units:
    """What the numbers of a case's image mean, as far as its data set says."""
    return "unknown" if case.slicing is None else case.slicing.units


def read_case_labels(case: Case, grid: Geometry, labels: LabelSet, ignore_index: int) -> LabelMap:
    """The labels of a case, on the grid of its image.

    Parameters
    ----------
    case : Case
    grid : Geometry
        Of its image.
    labels : LabelSet
    ignore_index : int
        A value that may occur, too.

    Returns
    -------
    LabelMap
        uint8.

    Raises
    ------
    DataError
        There is none, it is unreadable, lies elsewhere than its image, or holds a value that is no class.
    """
    if case.label is None:
        raise DataError(
            f"{case.image} has no label", hint="training and evaluation need a label for every image"
        )
    found = read_label_volume(case.label)
    if not found.geometry.is_at(grid):
        raise DataError(
            f"{case.label} does not lie on the grid of its image: {found.geometry.shape} voxels and {grid.shape}, or "
            "another place or direction",
            hint="prepare the data again; a shifted label would teach the wrong place",
        )
    require_classes(found.array, case.label, len(labels), ignore_index, "voxels")
    return LabelMap(found.array.astype(np.uint8, copy=False), grid, labels)


def _require_channels(case: Case, found: int, wanted: int) -> None:
    if found != wanted:
        raise DataError(
            f"{case.image} has {found} channel(s), the network takes {wanted}",
            hint=f"write `img_channels: {found}` in the data sets, or prepare them again",
        )
