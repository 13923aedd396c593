"""DICOM series in, strictly: what cannot be placed in the patient beyond doubt is refused.

Geometry follows DICOM PS3.3, C.7.6.2.1.1 (image plane module): slices are put in order by the
projection of their position on the normal of the image plane, never by file name or instance number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from medseg_paddle.core import Geometry, Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_file import (
    COSINE_TOLERANCE,
    SEGMENTATION_CLASSES,
    Slice,
    damage_refused,
    read_header,
    read_pixels,
    read_slice,
    text,
)
from medseg_paddle.io.limits import require_amount

# Files with these endings promise to be DICOM; one that is not is an error and no stray file.
DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")

# Positions are often rounded to 0.1 mm, by old scanners to 1 mm of a tilted axis.
_GAP_TOLERANCE_MM = 0.1
_GAP_TOLERANCE_SHARE = 0.02
_SHEAR_TOLERANCE_DEGREES = 0.5


@dataclass(frozen=True, eq=False)
class Series:
    """A CT or MR series in slice order.

    Attributes
    ----------
    volume : Volume
        float32, rescaled slice by slice; HU for CT.
    paths : tuple of Path
        The file of each slice.
    uid : str
        SeriesInstanceUID.
    patient_id : str
        PatientID as the header has it, ``""`` where it is missing.
    frame_of_reference : str
        FrameOfReferenceUID, ``""`` where it is missing: what other objects of the patient lie on.
    """

    volume: Volume
    paths: tuple[Path, ...]
    uid: str
    patient_id: str
    frame_of_reference: str


def read_series(folder: Path) -> Volume:
    """Read the one series of a folder (and its subfolders).

    Returns
    -------
    Volume
        float32, ``array[slice, row, column]``, slices ascending along the normal of the image plane
        (for a standard axial CT from the feet to the head).

    Raises
    ------
    DataError
        No DICOM image or several series in the folder, or as for :func:`load_series`.
    """
    found = find_series(folder)
    if not found:
        raise DataError(
            f"{folder}: no DICOM image in it", hint="name the folder that holds the series' files"
        )
    if len(found) > 1:
        listed = "".join(
            f"\n  {uid}  {_description(paths[0])}, {len(paths)} files" for uid, paths in found.items()
        )
        raise DataError(
            f"{folder} holds {len(found)} series, one is read:{listed}",
            hint="put each series into a folder of its own",
        )
    return load_series(next(iter(found.values()))).volume


def _description(path: Path) -> str:
    with damage_refused(path):
        return text(read_header(path), "SeriesDescription") or "-"


def find_series(folder: Path) -> dict[str, list[Path]]:
    """Files of each series in a folder and its subfolders, by SeriesInstanceUID.

    Hidden files, files that are not DICOM and do not claim to be by their name, directories of a
    medium (DICOMDIR), objects without an image (reports, contours) and segmentations are passed over.

    Raises
    ------
    DataError
        The folder is missing, or a file named like DICOM cannot be read as DICOM.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", hint="name the folder that holds the series' files")
    return group_by_series(
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != "."
    )


def group_by_series(
    paths: Iterable[Path], *, on_bad: Callable[[Path, DataError], None] | None = None
) -> dict[str, list[Path]]:
    """Group the image files among `paths` by SeriesInstanceUID, as for :func:`find_series`.

    Parameters
    ----------
    paths : iterable of Path
    on_bad : callable, optional
        Called with a file that cannot be read and what is wrong with it, in place of raising.
    """
    series: dict[str, list[Path]] = {}
    for path in paths:
        try:
            uid = _series_of(path)
        except DataError as error:
            if on_bad is None:
                raise
            on_bad(path, error)
        else:
            if uid is not None:
                series.setdefault(uid, []).append(path)
    return series


def _series_of(path: Path) -> str | None:
    """SeriesInstanceUID of an image file; None for a file that is none."""
    try:
        header = read_header(path)
    except InvalidDicomError as error:
        if path.suffix.lower() not in DICOM_SUFFIXES:
            return None
        raise DataError(
            f"{path} is not a DICOM file (no DICM mark at byte 128)",
            hint="copy the file again from its source, or remove it",
        ) from error
    with damage_refused(path):
        kind = text(header.file_meta, "MediaStorageSOPClassUID") or text(header, "SOPClassUID")
        uid = text(header, "SeriesInstanceUID")
    if kind in SEGMENTATION_CLASSES:
        return None
    if kind and "Rows" not in header and "Image Storage" not in UID(kind).name:
        return None
    if not uid:
        raise DataError(
            f"{path} is an image without SeriesInstanceUID, likely cut short",
            hint="copy the file again from its source, or export the series again",
        )
    return uid


def load_series(paths: Sequence[Path]) -> Series:
    """Read the files of one series into a volume.

    Parameters
    ----------
    paths : sequence of Path
        All files of the series, in any order.

    Raises
    ------
    DataError
        Mixed series, sizes, spacings, orientations or frames of reference; position, orientation or
        spacing missing, zero or not finite; axes not at right angles; sheared slices (gantry tilt);
        missing or doubled slices; localizers, colour and multi-frame images; MONOCHROME1 but for CT in HU,
        whose numbers mean the same however they are shown; CT without rescale, slope 0; truncated
        pixels; a compression without a decoder.
    """
    if not paths:
        raise DataError("a series without files", hint="name the files of one series")
    slices = [read_slice(path) for path in paths]
    first = slices[0]
    for other in slices[1:]:
        _require_alike(first, other)
    slices.sort(key=lambda one: one.height)
    label = f"series {first.uid}"
    affine = np.eye(4)
    affine[:3, 0] = _slice_step(slices, label)
    affine[:3, 1] = first.down * first.spacing[0]
    affine[:3, 2] = first.across * first.spacing[1]
    affine[:3, 3] = slices[0].position
    require_amount(first.path, (len(slices), *first.raster.size))
    array = np.empty((len(slices), *first.raster.size), dtype=np.float32)
    for index, one in enumerate(slices):
        array[index] = read_pixels(one.raster)
    return Series(
        volume=Volume(array, Geometry(array.shape, affine), units=first.raster.units),
        paths=tuple(one.path for one in slices),
        uid=first.uid,
        patient_id=first.patient_id,
        frame_of_reference=first.frame,
    )


def _require_alike(first: Slice, other: Slice) -> None:
    """Refuse two slices that cannot lie on one grid."""
    first_axes = np.concatenate([first.across, first.down])
    other_axes = np.concatenate([other.across, other.down])
    for what, same, one, two in (
        ("series", first.uid == other.uid, first.uid, other.uid),
        ("patients", first.patient_id == other.patient_id, first.patient_id, other.patient_id),
        ("sizes", first.raster.size == other.raster.size, first.raster.size, other.raster.size),
        (
            "pixel spacings",
            np.allclose(first.spacing, other.spacing, rtol=1e-4),
            first.spacing,
            other.spacing,
        ),
        (
            "orientations",
            np.allclose(first_axes, other_axes, rtol=0, atol=COSINE_TOLERANCE),
            first_axes.round(4).tolist(),
            other_axes.round(4).tolist(),
        ),
        ("frames of reference", first.frame == other.frame, first.frame, other.frame),
        ("units", first.raster.units == other.raster.units, first.raster.units, other.raster.units),
    ):
        if not same:
            raise DataError(
                f"series {first.uid} mixes {what}: {one} in {first.path}, {two} in {other.path}",
                hint="put the images that belong together into a folder of their own",
            )


def _slice_step(slices: Sequence[Slice], label: str) -> NDArray[np.float64]:
    """Vector in mm from one slice to the next; refuses sheared, missing and doubled slices."""
    first = slices[0]
    normal = np.cross(first.across, first.down)
    if len(slices) == 1:
        if first.thickness is None or not first.thickness > 0:
            raise DataError(
                f"{label} is one slice without SliceThickness",
                hint="send the whole series, or a slice with its thickness",
            )
        return np.asarray(normal * first.thickness)
    gaps = np.diff([one.height for one in slices])
    doubled = np.flatnonzero(gaps < 1e-3)
    if doubled.size:
        one, two = slices[doubled[0]], slices[doubled[0] + 1]
        raise DataError(
            f"{label} has {doubled.size} doubled slice position(s), first {one.path} and {two.path}",
            hint="remove copies; put acquisitions at several times (phases) into folders of their own",
        )
    step = np.asarray((slices[-1].position - first.position) / (len(slices) - 1))
    along = float(step @ normal)
    shear = np.degrees(np.arctan2(np.linalg.norm(step - along * normal), along))
    if shear > _SHEAR_TOLERANCE_DEGREES:
        raise DataError(
            f"{label} is sheared by {shear:.1f} degrees: slices move aside of their normal (gantry tilt)",
            hint="un-shear the series (for example with dcm2niix) or scan without gantry tilt",
        )
    usual = float(np.median(gaps))
    wrong = np.flatnonzero(np.abs(gaps - usual) > max(_GAP_TOLERANCE_MM, _GAP_TOLERANCE_SHARE * usual))
    if wrong.size:
        worst = int(wrong[np.argmax(np.abs(gaps[wrong] - usual))])
        what = "a gap of" if gaps[worst] > usual else "only"
        more = f", and {wrong.size - 1} more like it" if wrong.size > 1 else ""
        raise DataError(
            f"{label} has {what} {gaps[worst]:.3g} mm between slices {worst + 1} and {worst + 2} "
            f"(spacing elsewhere {usual:.3g} mm){more}",
            hint="send the missing slices, or put each evenly spaced part into a folder of its own",
        )
    line = first.position + np.arange(len(slices))[:, None] * step
    aside = np.linalg.norm([one.position for one in slices] - line, axis=1)
    if aside.max() > max(first.spacing):
        raise DataError(
            f"{label}: slice {int(aside.argmax()) + 1} lies {aside.max():.3g} mm off the line of the others",
            hint="put the images that belong together into a folder of their own",
        )
    return step
