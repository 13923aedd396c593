"""A volume as a folder of DICOM images, CT or MR."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medseg_paddle.errors import RecipeError
from medseg_paddle.io.archive import ZIP_SUFFIX
from medseg_paddle.io.dicom import DICOM_SUFFIXES
from medseg_paddle.io.dicom_reference import Reference, read_reference
from medseg_paddle.io.dicom_series_out import Modality, write_series
from medseg_paddle.io.files import new_folder
from medseg_paddle.io.volumes import VOLUME_SUFFIXES, is_volume
from medseg_paddle.steps.convert import (
    Conversion,
    Wishes,
    conversion,
    disk_errors_told,
    files_of_series,
    opened,
)

_OF_FILES = (*VOLUME_SUFFIXES, *DICOM_SUFFIXES, ZIP_SUFFIX)


def convert_to_series(
    source: Path, output: Path, modality: Modality, *, wishes: Wishes | None = None
) -> Conversion:
    """Write the one volume that `source` holds as a series of DICOM images.

    Parameters
    ----------
    source : Path
        As for :func:`~medseg_paddle.steps.convert.convert`.
    output : Path
        Folder to make, with a file for each slice.
    modality : {"CT", "MR"}
    wishes : Wishes, optional
        Of its fields ``reference`` is the folder of a series whose patient, study and frame of reference the images
        get; without it they are nobody's. ``series`` and of ``allowed`` ``part`` and ``drop_copies`` choose in it, too.

    Raises
    ------
    RecipeError
        `output` has the ending of a file; `source` is a segmentation; a wish that does not fit the input.
    DataError
        As for :func:`~medseg_paddle.steps.convert.convert`,
        :func:`~medseg_paddle.io.dicom_reference.read_reference` and
        :func:`~medseg_paddle.io.dicom_series_out.write_series`; nothing is written then.
    SetupError
        `output` is there and not empty; no room for it.
    """
    wishes = wishes or Wishes()
    if output.name.lower().endswith(_OF_FILES):
        raise RecipeError(
            f"{output} has the ending of a file, and a series of images is a folder",
            hint="name a new folder, or leave out --modality",
        )
    notes: list[str] = []
    with disk_errors_told(source), new_folder(output) as folder:
        reference = _reference(wishes)
        with opened(source, _of_source(source, wishes), notes) as volume:
            # Images of DICOM say their units.
            if volume.units == "unknown" and not source.name.lower().endswith((*VOLUME_SUFFIXES, ZIP_SUFFIX)):
                raise RecipeError(
                    f"{source} is a segmentation, and images are to be written",
                    hint="leave out --modality, and name a file such as labels.nii.gz",
                )
            notes += write_series(folder, volume, modality, reference)
    return replace(conversion(output, volume, notes), dtype=f"{modality} images")


def _reference(wishes: Wishes) -> Reference | None:
    if wishes.reference is None:
        return None
    return read_reference(files_of_series(wishes.reference, wishes), wishes.allowed)


def _of_source(source: Path, wishes: Wishes) -> Wishes:
    """What is wished of the input: not whose it is to be, and of a volume in a file not which series."""
    if wishes.reference is not None and is_volume(source):
        chosen = replace(wishes.allowed, part=None, drop_copies=False)
        return replace(wishes, reference=None, series=None, allowed=chosen)
    return replace(wishes, reference=None)
