"""Volumes of the segments of a DICOM segmentation as a measurement report (DICOM SR, TID 1500)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import highdicom as hd
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import generate_uid

from medseg_paddle.io.dicom_codes import same_code
from medseg_paddle.io.dicom_made import LONGEST_TEXT, MAKER, REPORT_SERIES, Algorithm, made_with
from medseg_paddle.io.dicom_reference import Reference, date_in_zone_of
from medseg_paddle.io.files import whole_file

# pydicom's tables lack it; DICOM writes the unit of UCUM so in others ("mg/ml").
_MILLILITRE = PydicomCode("ml", "UCUM", "milliliter")
_SIDES = tuple(codes.cid244.concepts.values())  # "Laterality"


def write_report(
    path: Path,
    segmentation: Path,
    reference: Reference,
    millilitres: Mapping[int, float],
    *,
    algorithm: Algorithm,
) -> None:
    """Write the volume of every segment as a report that refers to the segmentation; atomic.

    A measurement group for each segment has its tracking UID, its finding by code and side, and its volume in ml,
    by the sum of its voxels. A segment that was not found has 0 ml. The report is not verified by anyone.

    Parameters
    ----------
    path : Path
    segmentation : Path
        As :func:`~medseg_paddle.io.dicom_seg_out.write_segmentation` wrote it.
    reference : Reference
        The series of both.
    millilitres : mapping
        Volume of each segment, by its number.
    algorithm : Algorithm
        Who drew the segmentation.

    Raises
    ------
    SetupError
        `path` cannot be written.
    """
    segments = pydicom.dcmread(segmentation, stop_before_pixels=True)
    device = hd.sr.ObserverContext(
        codes.DCM.Device,
        hd.sr.DeviceObserverIdentifyingAttributes(
            algorithm.uid,
            name=algorithm.name,
            manufacturer_name=MAKER,
            model_name=algorithm.name,
            serial_number=algorithm.version,
        ),
    )
    groups = [
        _group(segment, segments, reference, millilitres[int(segment.SegmentNumber)], algorithm)
        for segment in segments.SegmentSequence
        if int(segment.SegmentNumber) in millilitres  # a LABELMAP has one of the background
    ]
    content = hd.sr.MeasurementReport(
        hd.sr.ObservationContext(observer_device_context=device),
        codes.SCT.ImagingProcedure,
        groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on values that the series' own header has
        report = hd.sr.ComprehensiveSR(
            [segments],
            content[0],
            series_instance_uid=generate_uid(prefix=None),
            series_number=REPORT_SERIES,
            sop_instance_uid=generate_uid(prefix=None),
            instance_number=1,
            is_complete=True,
            series_description=f"Volumes, {algorithm.name} {algorithm.version}"[:LONGEST_TEXT],
            specific_character_set="ISO_IR 192",
            **made_with(),
        )
        date_in_zone_of(report, reference)
        with whole_file(path) as temporary:
            report.save_as(temporary)


def _group(
    segment: Dataset, segments: Dataset, reference: Reference, millilitres: float, algorithm: Algorithm
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    number, finding = int(segment.SegmentNumber), segment.SegmentedPropertyTypeCodeSequence[0]
    tracking = hd.sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID)
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking,
        referenced_segment=hd.sr.ReferencedSegment(
            segments.SOPClassUID,
            segments.SOPInstanceUID,
            number,
            source_series=hd.sr.SourceSeriesForSegmentation(reference.slices[0].uid),
        ),
        finding_category=same_code(segment.SegmentedPropertyCategoryCodeSequence[0]),
        finding_type=same_code(finding),
        finding_sites=_sites(segment, finding),
        algorithm_id=hd.sr.AlgorithmIdentification(algorithm.name, algorithm.version),
        measurements=[
            hd.sr.Measurement(
                codes.SCT.Volume,
                float(f"{millilitres:.6g}"),
                _MILLILITRE,
                method=codes.DCM.SumOfSegmentedVoxelMethodForVolume,
            )
        ],
    )


def _sites(segment: Dataset, finding: Dataset) -> list[hd.sr.FindingSite] | None:
    """The organ that something lies in, or the organ itself where its side is known."""
    (region,) = segment.get("AnatomicRegionSequence") or (None,)
    (modifier,) = (region or finding).get(
        "SegmentedPropertyTypeModifierCodeSequence" if region is None else "AnatomicRegionModifierSequence"
    ) or (None,)
    side = modifier if modifier is not None and same_code(modifier) in _SIDES else None
    if region is None and side is None:
        return None
    other = None if modifier is None or side is not None else same_code(modifier)
    return [
        hd.sr.FindingSite(
            same_code(region or finding),
            laterality=side and same_code(side),
            topographical_modifier=other,
        )
    ]
