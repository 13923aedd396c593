"""Label maps as contours (DICOM RT Structure Set) on the images of the series that they were made from."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from medseg_paddle.core import Box, Label, LabelMap
from medseg_paddle.io.contours import outlines
from medseg_paddle.io.dicom_codes import coded
from medseg_paddle.io.dicom_file import Slice
from medseg_paddle.io.dicom_made import (
    LONGEST_TEXT,
    MAKER,
    STRUCTURES_SERIES,
    Algorithm,
    drawn_by,
    require_name,
)
from medseg_paddle.io.dicom_reference import (
    OF_PATIENT_AND_STUDY,
    Reference,
    date_in_zone_of,
    image_headers,
    labels_on,
)
from medseg_paddle.io.files import whole_file

# "Detached Study Management", retired, and still the class that a structure set names a study by.
_STUDY_CLASS = UID("1.2.840.10008.3.1.2.3.1")
_CONTOUR_DATA = Tag("ContourData")


def write_structures(
    path: Path, label_map: LabelMap, reference: Reference, *, algorithm: Algorithm | None
) -> bool:
    """Write a label map as a structure set of a series; atomic.

    ROI n is the label of index n, under its name, in its colour, with its volume. On every image, each part of it is
    a closed contour along the borders of its pixels, in the plane of the image: it holds the centres of the label's
    pixels and no other, and as much area as they have. Holes hang on it by a keyhole (:func:`outlines`). A label
    without a voxel is an ROI without contours.

    Patient and study are those of the series, as in :func:`~medseg_paddle.io.dicom_seg_out.write_segmentation`.

    Parameters
    ----------
    path : Path
    label_map : LabelMap
        On the voxels of `reference`, counted in any order and direction.
    reference : Reference
    algorithm : Algorithm or None
        None where people drew it.

    Returns
    -------
    bool
        Whether any voxel belongs to an ROI.

    Raises
    ------
    DataError
        Voxels elsewhere than those of `reference`, or labels beyond them; a number without a label; a name that DICOM
        cannot hold.
    SetupError
        `path` cannot be written.
    """
    array = labels_on(reference, label_map)
    labels = label_map.labels.foreground
    for label in labels:
        require_name(label)
    headers, _ = image_headers(reference)
    made = _head(headers[0], reference, algorithm)
    references = [_image(reference, one) for one in reference.slices]
    made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(reference, headers)]
    made.StructureSetROISequence = []
    made.ROIContourSequence = []
    made.RTROIObservationsSequence = []
    for label in labels:
        made.StructureSetROISequence.append(_roi(label, array, reference, algorithm))
        drawn = Dataset()
        drawn.ReferencedROINumber = label.index
        drawn.ROIDisplayColor = list(label.color)
        contours = list(_contours(array == label.index, reference, references))
        if contours:
            drawn.ContourSequence = contours
        made.ROIContourSequence.append(drawn)
        made.RTROIObservationsSequence.append(_observation(label))
    with whole_file(path) as temporary:
        made.save_as(temporary, enforce_file_format=True)
    return bool(array.any())


def _head(header: Dataset, reference: Reference, algorithm: Algorithm | None) -> Dataset:
    """Patient, study, series, equipment and the set itself."""
    by = drawn_by(algorithm)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    # Explicit VR has no room for a contour of more than 64 KiB.
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in OF_PATIENT_AND_STUDY:
        if keyword in header:
            made[keyword] = header[keyword]
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    made.Modality, made.SeriesInstanceUID = "RTSTRUCT", generate_uid(prefix=None)
    made.SeriesNumber, made.InstanceNumber = STRUCTURES_SERIES, 1
    made.SeriesDescription = f"Contours, {by}"[:LONGEST_TEXT]
    made.OperatorsName = ""
    made.Manufacturer = made.ManufacturerModelName = MAKER
    made.SoftwareVersions = version(MAKER)
    made.FrameOfReferenceUID = header.FrameOfReferenceUID
    made.PositionReferenceIndicator = header.get("PositionReferenceIndicator", "")
    made.InstanceCreationDate = made.StructureSetDate = ""
    date_in_zone_of(made, reference)
    made.StructureSetLabel = "SEGMENTATION"
    made.StructureSetDescription = by
    made.ApprovalStatus = "UNAPPROVED"
    return made


def _frame_of_reference(reference: Reference, headers: list[Dataset]) -> Dataset:
    """All images of the series."""
    series = Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    series.ContourImageSequence = [
        _instance(reference, instance)
        for instance in dict.fromkeys(one.raster.instance for one in reference.slices)
    ]
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY_CLASS, headers[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = headers[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _instance(reference: Reference, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.origin["SOPClassUID"]
    item.ReferencedSOPInstanceUID = instance
    return item


def _image(reference: Reference, one: Slice) -> Dataset:
    """An image, or a frame of one."""
    item = _instance(reference, one.raster.instance)
    if one.raster.frames > 1:
        item.ReferencedFrameNumber = one.raster.frame + 1
    return item


def _roi(label: Label, array: NDArray[Any], reference: Reference, algorithm: Algorithm | None) -> Dataset:
    voxel = abs(float(np.linalg.det(reference.geometry.affine[:3, :3])))
    roi = Dataset()
    roi.ROINumber = label.index
    roi.ReferencedFrameOfReferenceUID = reference.geometry.frame_of_reference
    roi.ROIName = label.name
    roi.ROIVolume = f"{np.count_nonzero(array == label.index) * voxel / 1000:.6g}"  # in cubic centimetres
    roi.ROIGenerationAlgorithm = "MANUAL" if algorithm is None else "AUTOMATIC"
    roi.ROIGenerationDescription = drawn_by(algorithm)[:LONGEST_TEXT]
    return roi


def _contours(mask: NDArray[np.bool_], reference: Reference, references: list[Dataset]) -> Iterable[Dataset]:
    if not mask.any():
        return
    box, number = Box.around(mask), 0
    for k in range(box.start[0], box.stop[0]):
        for corners in outlines(mask[k][box.slices[1:]]):
            number += 1
            points = _in_patient(corners + box.start[1:], reference.slices[k])
            contour = Dataset()
            contour.ContourNumber = number
            contour.ContourImageSequence = [references[k]]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour[_CONTOUR_DATA] = _numbers(points)
            yield contour


def _in_patient(corners: NDArray[np.int64], one: Slice) -> NDArray[np.float64]:
    """Corners of pixels in LPS mm; an image's position is the centre of its first pixel."""
    rows, columns = (corners - 0.5).T * np.array(one.spacing)[:, None]
    return np.asarray(one.position + rows[:, None] * one.down + columns[:, None] * one.across)


def _numbers(points: NDArray[np.float64]) -> RawDataElement:
    """Decimal strings to 0.1 micrometres, thousands of times nearer than the next pixel's centre.

    Encoded here: pydicom checks every string by itself, which took two thirds of the time.
    """
    text = "\\".join([f"{value:.4f}" for value in points.ravel().tolist()]).encode()
    text += b" " * (len(text) % 2)
    return RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, True, True)


def _observation(label: Label) -> Dataset:
    concept = label.meaning
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = label.index
    item.RTROIInterpretedType = item.ROIInterpreter = ""  # organ or target: the plan's decision
    code = coded(concept.type)
    if concept.type_modifier is not None:
        code.SegmentedPropertyTypeModifierCodeSequence = [coded(concept.type_modifier)]
    item.RTROIIdentificationCodeSequence = [code]
    return item
