"""Volumes as series of DICOM images, CT or MR: one classic single-frame file for each slice.

Attributes follow DICOM PS3.3, A.3 (CT image) and A.4 (MR image).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from medseg_paddle.core import Geometry
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_header import LEAST_SLOPE, MOST_INTERCEPT
from medseg_paddle.io.dicom_made import IMAGES_SERIES, made_with
from medseg_paddle.io.dicom_reference import OF_PATIENT_AND_STUDY, Reference, date_in_zone_of, image_headers
from medseg_paddle.io.files import whole_file
from medseg_paddle.io.itk_out import square_axes
from medseg_paddle.io.sliced import SlicedVolume

Modality = Literal["CT", "MR"]

_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage}
# Where slices, rows and columns run to in the usual view of planes across the patient's left-right, front-back and
# feet-head axis.
_USUAL = ("RIP", "PIL", "SPL")
_MOST_PIXELS = np.iinfo(np.uint16).max  # of a side
_STEPS = np.iinfo(np.uint16).max  # between the least and the greatest stored value
_DS_DIGITS = 10  # always fit the 16 characters of a DS
_NAME_DIGITS = 4

# Type 2 of patient, study, series, frame of reference and image: there, and empty where nobody knows.
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator", "PatientPosition", "AcquisitionNumber",
    "Laterality",
)  # fmt: skip
_EMPTY_IN = {
    "CT": ("KVP",),
    "MR": ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"),
}


@dataclass(frozen=True)
class _Scale:
    """How values become 16 bits: ``value = stored * slope + intercept``.

    Attributes
    ----------
    signed : bool
    slope, intercept : str
        As DICOM writes them.
    is_exact : bool
        Every value is kept.
    """

    signed: bool
    slope: str
    intercept: str
    is_exact: bool

    def store(self, values: NDArray[Any]) -> NDArray[Any]:
        """What stands in the file."""
        dtype = np.dtype("<i2" if self.signed else "<u2")
        if self.is_exact:
            return np.ascontiguousarray(values.astype(np.int64) - int(self.intercept), dtype=dtype)
        steps = np.rint((values.astype(np.float64) - float(self.intercept)) / float(self.slope))
        return np.ascontiguousarray(steps.clip(0, _STEPS), dtype=dtype)

    def error(self, values: NDArray[Any], stored: NDArray[Any]) -> float:
        """How far the farthest value is from what is stored."""
        if self.is_exact:
            return 0.0
        found = stored.astype(np.float64) * float(self.slope) + float(self.intercept)
        return float(np.abs(found - values).max())


def write_series(
    folder: Path, volume: SlicedVolume, modality: Modality, reference: Reference | None = None
) -> tuple[str, ...]:
    """Write a volume as DICOM images, one file for each slice, into a folder that is there.

    The files are ``0001.dcm`` and on, in the order of their positions along the normal of the image plane. Rows and
    columns are turned as people look at such planes (axial: to the left and the back, coronal: to the left and the
    feet, sagittal: to the back and the feet); every voxel keeps its place.

    Whole numbers that lie within 65,536 of each other are kept. Others are rounded to 65,536 even steps.

    Parameters
    ----------
    folder : Path
    volume : SlicedVolume
    modality : {"CT", "MR"}
        CT are Hounsfield units.
    reference : Reference, optional
        Whose patient, study and frame of reference these images get; without it they are nobody's.

    Returns
    -------
    tuple of str
        For people: what was rounded, and whose images these are.

    Raises
    ------
    DataError
        Slices sheared by more than 0.1 mm; more than 65,535 rows or columns; values that 32 bits do not hold; units
        other than those of the modality.
    SetupError
        A file cannot be written.
    """
    _require_fit(volume, modality)
    order, flips = _as_seen(volume.geometry)
    geometry = volume.geometry.transposed(order).flipped(flips)
    axes, origin = square_axes(geometry, "a DICOM series")
    scale = _scale(volume)
    made = _common(modality, reference)
    _place(made, axes, geometry.shape[0])
    _describe_values(made, modality, scale)
    made.Rows, made.Columns = geometry.shape[1:]
    indices = range(geometry.shape[0])
    worst, digits = 0.0, max(_NAME_DIGITS, len(str(len(indices))))
    for number, index in enumerate(reversed(indices) if 0 in flips else indices, start=1):
        values = volume.slices.read(index)
        stored = scale.store(values)
        worst = max(worst, scale.error(values, stored))
        seen = np.flip(
            stored.transpose([axis - 1 for axis in order[1:]]), [axis - 1 for axis in flips if axis]
        )
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        made.InstanceNumber = number
        made.ImagePositionPatient = _strings(origin + (number - 1) * axes[2])
        made.PixelData = seen.tobytes()
        with whole_file(folder / f"{number:0{digits}d}.dcm") as temporary:
            made.save_as(temporary, enforce_file_format=True)
    notes = []
    if not scale.is_exact:
        notes.append(
            f"values do not fit 16 bits as they are: rounded to steps of {float(scale.slope):.3g}, the farthest by "
            f"{_at_most(worst)}"
        )
    if reference is not None:
        notes.append(
            "patient, study and frame of reference are those of the reference, series "
            f"{reference.slices[0].uid}: right where the volume lies in that patient's space"
        )
    return tuple(notes)


def _require_fit(volume: SlicedVolume, modality: Modality) -> None:
    if volume.units != "unknown" and (volume.units == "HU") != (modality == "CT"):
        units = "Hounsfield units" if volume.units == "HU" else "a scale of their own, not Hounsfield units"
        raise DataError(
            f"the values are in {units}, and {modality} images are asked for",
            hint=f"write them as --modality {'CT' if volume.units == 'HU' else 'MR'}",
        )
    if max(volume.geometry.shape[1:]) > _MOST_PIXELS:
        raise DataError(
            f"slices of {volume.geometry.shape[1]} x {volume.geometry.shape[2]} voxels, and DICOM images have at most "
            f"{_MOST_PIXELS} rows and columns",
            hint="cut the volume, or write another format",
        )


def _as_seen(geometry: Geometry) -> tuple[tuple[int, int, int], list[int]]:
    """What brings a grid to the usual view, its slices along the normal: order of the axes, and those to flip then."""
    order, flips = geometry.turn_to(_USUAL[geometry.patient_axes[0]])
    within = [axis for axis in flips if axis != 0]
    slices, rows, columns = geometry.transposed(order).flipped(within).affine[:3, :3].T
    return order, [0, *within] if np.cross(columns, rows) @ slices < 0 else within


def _scale(volume: SlicedVolume) -> _Scale:
    low, high, is_whole = math.inf, -math.inf, True
    for index in range(len(volume.slices)):
        values = volume.slices.read(index)
        low, high = min(low, values.min().item()), max(high, values.max().item())
        is_whole = is_whole and (values.dtype.kind in "iu" or bool((values == np.rint(values)).all()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError(
            "the volume holds values that are not finite",
            hint="export the volume again, or fill these voxels on purpose",
        )
    if is_whole and max(abs(low), abs(high)) <= MOST_INTERCEPT and high - low <= _STEPS:
        signed = np.iinfo(np.int16)
        if signed.min <= low and high <= signed.max:
            return _Scale(signed=True, slope="1", intercept="0", is_exact=True)
        least = 0 if low >= 0 and high <= _STEPS else int(low)
        return _Scale(signed=False, slope="1", intercept=str(least), is_exact=True)
    # Rounded so that the steps reach over all values.
    intercept = _rounded(low, ROUND_FLOOR)
    step = max((high - float(intercept)) / _STEPS, abs(float(intercept)) / MOST_INTERCEPT, LEAST_SLOPE)
    slope = _rounded(step, ROUND_CEILING)
    if not float(slope) <= 1 / LEAST_SLOPE:
        raise DataError(
            f"values from {low:.3g} to {high:.3g}, which are no grey values",
            hint="fill what is no measurement on purpose",
        )
    return _Scale(signed=False, slope=slope, intercept=intercept, is_exact=False)


def _rounded(value: float, rounding: str) -> str:
    digits = Context(prec=_DS_DIGITS, rounding=rounding).create_decimal_from_float(value)
    return format_number_as_ds(float(digits))


def _at_most(value: float) -> str:
    return f"{Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(value):.2g}"


def _common(modality: Modality, reference: Reference | None) -> Dataset:
    """Patient, study, series and equipment."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = _CLASSES[modality]
    made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (*_EMPTY, *_EMPTY_IN[modality]):
        setattr(made, keyword, None)
    made.StudyInstanceUID, made.FrameOfReferenceUID = generate_uid(prefix=None), generate_uid(prefix=None)
    if reference is not None:
        header = image_headers(reference)[0][0]
        # What its own pixels show or lost is not known of these.
        for keyword in (*OF_PATIENT_AND_STUDY, "FrameOfReferenceUID", "PositionReferenceIndicator"):
            if keyword in header:
                made[keyword] = header[keyword]
        date_in_zone_of(made, reference)
    made.Modality, made.SeriesInstanceUID = modality, generate_uid(prefix=None)
    made.SeriesNumber, made.SeriesDescription = IMAGES_SERIES, "Converted volume"
    for words, text in made_with().items():
        setattr(made, words.title().replace("_", ""), text)
    return made


def _place(made: Dataset, axes: NDArray[np.float64], count: int) -> None:
    lengths = np.linalg.norm(axes, axis=1)
    made.ImageOrientationPatient = _strings((axes[:2] / lengths[:2, None]).ravel())
    made.PixelSpacing = _strings(lengths[1::-1])
    (made.SliceThickness,) = _strings(lengths[2:])
    if count > 1:
        made.SpacingBetweenSlices = made.SliceThickness


def _describe_values(made: Dataset, modality: Modality, scale: _Scale) -> None:
    made.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if modality == "CT" else "OTHER"]
    if modality == "MR":
        made.ScanningSequence, made.SequenceVariant = (
            "RM",
            "NONE",
        )  # of these that must be named, the least claim
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelRepresentation = int(scale.signed)
    # Many readers pass over the slope of an MR, so it is there only where it says something.
    if modality == "CT" or (scale.slope, scale.intercept) != ("1", "0"):
        made.RescaleSlope, made.RescaleIntercept = scale.slope, scale.intercept
        made.RescaleType = "HU" if modality == "CT" else "US"


def _strings(values: NDArray[np.float64]) -> list[str]:
    """At most 16 characters each; 0.0 takes the sign off a zero."""
    return [format_number_as_ds(float(value) + 0.0) for value in values]
