"""Volumes of every format that is one file (NIfTI, NRRD, MetaImage) through one door."""

from __future__ import annotations

from pathlib import Path

from medseg_paddle.core import Volume

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")


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
    raise NotImplementedError


def read_label_volume(path: Path) -> Volume:
    """Read a label volume's indices as they are stored; uint8 or uint16.

    Raises
    ------
    DataError
        As for :func:`read_volume`, or a voxel that is not an integer in 0..65535. A float file of whole
        numbers is taken.
    """
    raise NotImplementedError
