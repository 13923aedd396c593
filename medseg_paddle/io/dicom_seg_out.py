"""Label maps as DICOM segmentations (SEG) of the series that they were made from."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import highdicom as hd
from numpy.typing import NDArray
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from medseg_paddle.core import Label, LabelMap, LabelSet
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_codes import coded
from medseg_paddle.io.dicom_made import (
    LONGEST_TEXT,
    SEGMENTATION_SERIES,
    Algorithm,
    drawn_by,
    made_with,
    require_name,
)
from medseg_paddle.io.dicom_reference import Reference, date_in_zone_of, image_headers, labels_on
from medseg_paddle.io.files import whole_file

Kind = Literal["BINARY", "LABELMAP"]


def write_segmentation(
    path: Path,
    label_map: LabelMap,
    reference: Reference,
    *,
    algorithm: Algorithm | None,
    kind: Kind = "BINARY",
) -> bool:
    """Write a label map as a segmentation of a series; atomic.

    Segment n is the label of index n, under its name, with the codes that it or its name has (`Label.meaning`) and its
    colour. Every frame has the position of the image that it lies on and refers to it; frames without a voxel are
    left out. A map without a voxel becomes one empty frame for each segment, on the first image.

    Patient and study are those of the series, as an archive needs them: name, number, birth date and sex of the
    patient, dates, numbers, description and referring physician of the study. Nothing else of its header is copied.

    Parameters
    ----------
    path : Path
    label_map : LabelMap
        On the voxels of `reference`, counted in any order and direction.
    reference : Reference
    algorithm : Algorithm or None
        None where people drew it.
    kind : {"BINARY", "LABELMAP"}
        A frame for each segment, which all viewers read; or one of numbers for all, compressed (RLE), which is newer.

    Returns
    -------
    bool
        Whether any voxel belongs to a segment.

    Raises
    ------
    DataError
        Voxels elsewhere than those of `reference`, or labels beyond them; a number without a label; a
        name that DICOM cannot hold; a kind of images that nothing can refer to.
    SetupError
        `path` cannot be written.
    """
    array = labels_on(reference, label_map)
    return write_segments(path, array, label_map.labels, reference, algorithm=algorithm, kind=kind)


def write_segments(
    path: Path,
    array: NDArray[Any],
    labels: LabelSet,
    reference: Reference,
    *,
    algorithm: Algorithm | None,
    kind: Kind = "BINARY",
) -> bool:
    """As :func:`write_segmentation`, of an array; atomic. Its segments may overlap.

    Parameters
    ----------
    path : Path
    array : ndarray, shape ``reference.geometry.shape``, or that and the number of segments; uint8 or uint16
        The label of each voxel; or, of each voxel and segment, 1 where it belongs to it. The latter is BINARY alone.
    labels : LabelSet
    reference, algorithm, kind
        As for :func:`write_segmentation`.

    Returns
    -------
    bool
        Whether any voxel belongs to a segment.

    Raises
    ------
    DataError, SetupError
        As for :func:`write_segmentation`.
    """
    images, order = image_headers(reference)
    # No copy where a file is an image: masks that overlap are large.
    array, places = array if order == list(range(len(order))) else array[order], None
    is_found = bool(array.any())
    if not is_found:
        array, position = array[:1], reference.slices[order[0]].position
        places = [hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, position.tolist())]
    is_map = kind == "LABELMAP"
    if is_map and "gdcm" in RLELosslessEncoder.available_plugins:
        RLELosslessEncoder.remove_plugin("gdcm")  # GDCM 3.2.6 aborts the process on some small frames
    by = drawn_by(algorithm)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on values that the series' own header has
            made = hd.seg.Segmentation(
                images,
                array,
                kind,
                [_described(label, algorithm) for label in labels.foreground],
                series_instance_uid=generate_uid(prefix=None),
                series_number=SEGMENTATION_SERIES,
                sop_instance_uid=generate_uid(prefix=None),
                instance_number=1,
                **made_with(),
                content_label="SEGMENTATION",
                content_description=by[:LONGEST_TEXT],
                series_description=f"Segmentation, {by}"[:LONGEST_TEXT],
                plane_positions=places,
                omit_empty_frames=is_found,
                transfer_syntax_uid=RLELossless if is_map else ExplicitVRLittleEndian,
                specific_character_set="ISO_IR 192",
            )
            date_in_zone_of(made, reference)
            made.ContentCreatorName = None  # type 2; highdicom leaves it out
            if len(reference.slices) == 1:  # highdicom makes up a distance of 1 mm
                del made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
            with whole_file(path) as temporary:
                made.save_as(temporary)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"series {reference.slices[0].uid} cannot be referred to by a segmentation ({error})",
            hint="export the series again from the archive, as CT or MR images",
        ) from error
    return is_found


def _described(label: Label, algorithm: Algorithm | None) -> hd.seg.SegmentDescription:
    require_name(label)
    concept = label.meaning
    described = hd.seg.SegmentDescription(
        label.index,
        label.name,
        coded(concept.category),
        coded(concept.type),
        "MANUAL" if algorithm is None else "AUTOMATIC",
        None
        if algorithm is None
        else hd.AlgorithmIdentificationSequence(
            algorithm.name,
            codes.cid7162.ArtificialIntelligence,
            algorithm.version,
        ),
        tracking_uid=generate_uid(prefix=None),
        tracking_id=label.name,
        anatomic_regions=None if concept.region is None else [coded(concept.region)],
        display_color=hd.color.CIELabColor.from_rgb(*label.color),
    )
    if concept.type_modifier is not None:
        (kind,) = described.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(concept.type_modifier)]
    if concept.region is not None and concept.region_modifier is not None:
        (region,) = described.AnatomicRegionSequence
        region.AnatomicRegionModifierSequence = [coded(concept.region_modifier)]
    return described
