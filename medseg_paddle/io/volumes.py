"""Volumes of every format that is one file (NIfTI, NRRD, MetaImage) through one door."""

from __future__ import annotations

from pathlib import Path

from medseg_paddle.core import Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.itk import META_SUFFIXES, NRRD_SUFFIXES, nrrd_segment_names, read_itk
from medseg_paddle.io.nifti import NIFTI_SUFFIXES, read_label_nifti, read_nifti
from medseg_paddle.io.voxels import grey_volume, label_volume

VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES, *META_SUFFIXES)


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
