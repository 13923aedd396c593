"""The series that something was drawn on, as what is written of it refers to it; its pixels are not read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM, DSfloat

from medseg_paddle.core import Geometry, LabelMap, match
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_file import Slice, read_slices
from medseg_paddle.io.dicom_stack import NOTHING, Allowed, stack
from medseg_paddle.io.isolated import run_isolated
from medseg_paddle.io.limits import require_amount

# What an object takes over of its series' header.
OF_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientIdentityRemoved",
    "DeidentificationMethod", "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_UID = re.compile(r"[0-9.]{1,64}")
_DATES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
# What is as old as the object: itself, what it shows, its contours, its picture.
_DATED = {
    "InstanceCreationDate": "InstanceCreationTime", "ContentDate": "ContentTime",
    "StructureSetDate": "StructureSetTime", "DateOfSecondaryCapture": "TimeOfSecondaryCapture",
}  # fmt: skip
_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")
_SEXES = ("M", "F", "O")
# Those that the standard lets be empty (type 2); the others are left out where the series' header has no value.
_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Reference:
    """The series that a segmentation is of; its pixels are not read.

    Attributes
    ----------
    slices : tuple of Slice
        Ascending along the normal.
    geometry : Geometry
        Of the slices, as :func:`~medseg_paddle.io.dicom.load_series` has it.
    origin : mapping
        Patient and study, by keyword, as text (`REPEATED` of :mod:`medseg_paddle.io.dicom_origins`), and SOPClassUID.
    notes : tuple of str
        What was done by allowance, for people.
    """

    slices: tuple[Slice, ...]
    geometry: Geometry
    origin: Mapping[str, str]
    notes: tuple[str, ...]


def read_reference(paths: Sequence[Path], allowed: Allowed = NOTHING) -> Reference:
    """Read where the images of one series lie and whose they are.

    Parameters
    ----------
    paths : sequence of Path
        All files of the series, in any order.
    allowed : Allowed
        ``drop_copies`` and ``part`` alone: a grid that slices were resampled to has no images to refer to.

    Raises
    ------
    DataError
        As for :func:`~medseg_paddle.io.dicom.load_series`, but for the pixels; slices that are no straight, even grid;
        no frame of reference, study or instance UID; images of several studies, names or kinds, or multi-frame
        objects of which only a part is meant.
    """
    if not paths:
        raise DataError("a series without files", hint="name the files of one series")
    ordered = stack(read_slices(paths), allowed)
    slices, first = ordered.slices, ordered.slices[0]
    label = f"series {first.uid}"
    if ordered.is_crooked:
        raise DataError(
            f"{label} lies on no straight, even grid, and a segmentation refers to its images as they are",
            hint="segment an evenly spaced part of it",
        )
    files = tuple(dict.fromkeys(one.path for one in slices))
    require_amount(first.path, (len(slices), *first.raster.size))
    answer = run_isolated("medseg_paddle.io.dicom_origins:origins", {"paths": [str(path) for path in files]})
    with answer.values:
        origins: list[dict[str, str]] = answer.result
    for keyword in ("SOPClassUID", "StudyInstanceUID", "PatientName"):
        if len({origin[keyword] for origin in origins}) != 1:
            raise DataError(
                f"{label} has images of several values of {keyword}",
                hint="put the images that belong together into a folder of their own",
            )
    _require_whole_objects(slices, files, label)
    origin = origins[0] | {"BurnedInAnnotation": _of_all({one["BurnedInAnnotation"] for one in origins})}
    uids = [("SOPInstanceUID", one.raster.instance) for one in slices]
    uids += [(keyword, origin[keyword]) for keyword in ("StudyInstanceUID", "SOPClassUID")]
    for keyword, uid in [*uids, ("FrameOfReferenceUID", first.reference)]:
        if not _UID.fullmatch(uid):
            raise DataError(
                f"{label} has no {keyword} (or one that is none), and a segmentation is tied to its images by it",
                hint="export the series again from the archive",
            )
    geometry = Geometry((len(slices), *first.raster.size), ordered.affine, first.reference)
    return Reference(slices, geometry, origin, ordered.notes)


def _of_all(annotations: set[str]) -> str:
    """Whether any image has somebody's name burned into its pixels; empty where not all of them say."""
    if "YES" in annotations:
        return "YES"
    return "NO" if annotations == {"NO"} else ""


def _require_whole_objects(slices: Sequence[Slice], files: Sequence[Path], label: str) -> None:
    frames = slices[0].raster.frames
    if any(one.raster.frames > 1 for one in slices) and (len(files) > 1 or len(slices) != frames):
        raise DataError(
            f"{label} is a part of a multi-frame object or several of them, which a segmentation cannot refer to here",
            hint="export the series as single-frame images, or as one multi-frame object of one time point",
        )


def labels_on(reference: Reference, label_map: LabelMap) -> NDArray[Any]:
    """Labels on the voxels of a series, uint8 (uint16 for more than 256 labels), C-contiguous.

    Raises
    ------
    DataError
        Voxels elsewhere than those of `reference`, or labels beyond them; a number without a label.
    """
    found = match(label_map, reference.geometry).array
    lost = np.count_nonzero(label_map.array) - np.count_nonzero(found)
    if lost:
        raise DataError(
            f"{lost} labelled voxels lie beyond the series",
            hint="send the missing slices of the series, or cut the labels to it",
        )
    number = int(found.max())
    if number >= len(label_map.labels):  # before the cast, which would make 1 of 257
        raise DataError(
            f"a voxel has label {number}, and the labels end at {len(label_map.labels) - 1}",
            hint="name every label that occurs",
        )
    return np.ascontiguousarray(found, dtype=np.uint8 if len(label_map.labels) <= 256 else np.uint16)


def image_headers(reference: Reference) -> tuple[list[Dataset], list[int]]:
    """What may be repeated of each image's header, made of values that were checked; the slice of each frame.

    Returns
    -------
    headers : list of Dataset
        Of each file, as highdicom asks for them: patient, study, series, place. The modality is not the series'.
    order : list of int
        Index among the slices of each frame, the files' frames in a row.
    """
    slices = reference.slices
    first, origin = slices[0], reference.origin
    ordered = sorted(range(len(slices)), key=lambda index: slices[index].raster.frame)
    shared = _plane_orientation(first)
    measures = _measures(first, reference.geometry)
    common = Dataset()
    for keyword, text in origin.items():
        if text or keyword in _MAY_BE_EMPTY:
            setattr(common, keyword, _plausible(keyword, text))
    common.SeriesInstanceUID, common.FrameOfReferenceUID = first.uid, first.reference
    common.Rows, common.Columns = first.raster.size
    common.Modality = "OT"  # asked for, and not written
    images = []
    for members in _by_file(slices[index] for index in ordered):
        image = Dataset()
        image.update(common)
        image.update(shared)
        image.update(measures)
        image.SOPInstanceUID = members[0].raster.instance
        image.update(_position(members[0]))
        image.NumberOfFrames = len(members)
        groups = Dataset()
        groups.PlaneOrientationSequence, groups.PixelMeasuresSequence = [shared], [measures]
        image.SharedFunctionalGroupsSequence = [groups]
        image.PerFrameFunctionalGroupsSequence = [_placed(one) for one in members]
        images.append(image)
    return images, ordered


def date_in_zone_of(made: Dataset, reference: Reference) -> None:
    """Date an object, by the clock of the series' time zone where its header names one, else by this machine's.

    The zone that an object names holds for all its times (PS3.3, C.12.1), those of the study too, which are the
    series' own.
    """
    offset = _OFFSET.fullmatch(reference.origin["TimezoneOffsetFromUTC"])
    now = datetime.now().astimezone()
    if offset is not None:
        sign, hours, minutes = offset.groups()
        east = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
        now = datetime.now(timezone(east))
        made.TimezoneOffsetFromUTC = offset.group()
    for date, time in _DATED.items():
        if date in made:
            setattr(made, date, now.strftime("%Y%m%d"))
            setattr(made, time, now.strftime("%H%M%S"))
    for equipment in made.get("ContributingEquipmentSequence") or ():  # highdicom names itself
        equipment.ContributionDateTime = now.strftime("%Y%m%d%H%M%S%z")


def _by_file(slices: Iterable[Slice]) -> Iterable[list[Slice]]:
    files: dict[Path, list[Slice]] = {}
    for one in slices:
        files.setdefault(one.path, []).append(one)
    return files.values()


def _plane_orientation(one: Slice) -> Dataset:
    item = Dataset()
    item.ImageOrientationPatient = [_ds(value) for value in (*one.across, *one.down)]
    return item


def _measures(one: Slice, geometry: Geometry) -> Dataset:
    item = Dataset()
    item.PixelSpacing = [_ds(value) for value in one.spacing]
    between = abs(float(geometry.affine[:3, 0] @ np.cross(one.across, one.down)))
    # Where the series does not say it: a label reaches as far as its voxel.
    item.SliceThickness = _ds(one.thickness or between)
    if geometry.shape[0] > 1:
        item.SpacingBetweenSlices = _ds(between)
    return item


def _position(one: Slice) -> Dataset:
    item = Dataset()
    item.ImagePositionPatient = [_ds(value) for value in one.position]
    return item


def _placed(one: Slice) -> Dataset:
    item = Dataset()
    item.PlanePositionSequence = [_position(one)]
    return item


def _ds(value: float) -> float:
    return DSfloat(float(value), auto_format=True)


def _plausible(keyword: str, text: str) -> str:
    """A value of the series' header; empty, as the standard lets it be, where it is no date or no sex."""
    if keyword in _DATES:
        try:
            _DATES[keyword](text)
        except ValueError:
            return ""
    return "" if keyword == "PatientSex" and text not in _SEXES else text
