"""Volumes of every format that is one file (NIfTI, NRRD, MetaImage) through one door."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from medseg_paddle.core import Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.itk import META_SUFFIXES, NRRD_SUFFIXES, nrrd_segment_names, open_itk, read_itk
from medseg_paddle.io.itk_out import write_meta_slices, write_nrrd_slices
from medseg_paddle.io.nifti import (
    NIFTI_SUFFIXES,
    open_nifti,
    read_label_nifti,
    read_nifti,
    write_nifti_slices,
)
from medseg_paddle.io.sliced import SlicedVolume, settled
from medseg_paddle.io.voxels import grey_volume, label_volume

VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES, *META_SUFFIXES)
WRITTEN_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha")


def is_volume(path: Path) -> bool:
    """Whether a file's name ends as one of `VOLUME_SUFFIXES`."""
    return path.name.lower().endswith(VOLUME_SUFFIXES)


def read_volume(path: Path) -> Volume:
    """Read a volume; its format follows from the file's ending.

    Returns
    -------
    Volume
        float32 ``array[slice, row, column]`` = the file's ``[k, j, i]``; units ``"unknown"``, for none of
        these formats says what its numbers mean.

    Raises
    ------
    DataError
        Missing, truncated, of another ending or another size than its header says; not one grey value
        per voxel in three dimensions; no place or orientation in the patient; a zero spacing; axes not
        at right angles (NRRD, MetaImage); a voxel that is not finite.
    """
    _require_volume_name(path)
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        return read_nifti(path)
    return grey_volume(path, *read_itk(path))


def read_label_volume(path: Path) -> Volume:
    """Read a label volume's indices as they are stored; uint8 or uint16.

    Raises
    ------
    DataError
        As for :func:`read_volume`, or a voxel that is not an integer in 0..65535. A float file of whole
        numbers is taken.
    """
    _require_volume_name(path)
    if path.name.lower().endswith(NIFTI_SUFFIXES):
        return read_label_nifti(path)
    return label_volume(path, *read_itk(path))


@contextlib.contextmanager
def open_volume(path: Path) -> Iterator[SlicedVolume]:
    """As :func:`read_volume`, for slices to be taken one at a time, in the smallest type that holds them all."""
    _require_volume_name(path)
    opener = open_nifti if path.name.lower().endswith(NIFTI_SUFFIXES) else open_itk
    with opener(path) as (stored, geometry):
        yield settled(str(path), stored, geometry, "unknown", keep=True)


def read_compact(path: Path) -> Volume:
    """As :func:`read_volume`, in the smallest type that holds all values: half the memory of a CT."""
    with open_volume(path) as volume:
        return volume.whole()


def write_volume(path: Path, volume: SlicedVolume) -> None:
    """Write a volume; its format follows from the file's ending, one of `WRITTEN_SUFFIXES`; atomic.

    Raises
    ------
    DataError
        The format cannot say how the volume lies (:func:`~medseg_paddle.io.itk_out.write_nrrd_slices`).
    """
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        write_nifti_slices(path, volume)
    elif name.endswith(".nrrd"):
        write_nrrd_slices(path, volume)
    else:
        write_meta_slices(path, volume)


def label_names(path: Path) -> dict[int, str]:
    """What a label volume calls its values; empty for formats and files that do not say it.

    Raises
    ------
    DataError
        A NRRD file that cannot be read, or whose header has no end.
    """
    return nrrd_segment_names(path) if path.name.lower().endswith(NRRD_SUFFIXES) else {}


def _require_volume_name(path: Path) -> None:
    if not is_volume(path):
        raise DataError(
            f"{path} is not named like a volume", hint=f"volumes end in {', '.join(VOLUME_SUFFIXES)}"
        )
    if not path.is_file():
        raise DataError(f"{path} is not there", hint="check the path")
