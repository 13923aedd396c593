"""Label maps as DICOM segmentations (SEG) of the series that they were made from."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as PydicomCode
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid
from pydicom.valuerep import DA, TM, DSfloat

from medseg_paddle.core import Geometry, Label, LabelMap, match
from medseg_paddle.core.concepts import Code, concept_of
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_file import Slice, read_slices
from medseg_paddle.io.dicom_stack import NOTHING, Allowed, stack
from medseg_paddle.io.files import whole_file
from medseg_paddle.io.isolated import run_isolated
from medseg_paddle.io.limits import require_amount

Kind = Literal["BINARY", "LABELMAP"]

_MAKER = "medseg-paddle"
_SERIES_NUMBER = 300  # beyond what a scanner makes in a study
_LONGEST_TEXT = 64  # of VR LO
_UID = re.compile(r"[0-9.]{1,64}")
_DATES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
_SEXES = ("M", "F", "O")
# Those that the standard lets be empty (type 2); the others are left out where the series' header has no value.
_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip


@dataclass(frozen=True)
class Algorithm:
    """Who drew a segmentation.

    Attributes
    ----------
    name, version : str
        Of a trained model.
    """

    name: str
    version: str


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
        no frame of reference, study or instance UID; images of several studies or kinds, or multi-frame objects
        of which only a part is meant.
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
    for keyword in ("SOPClassUID", "StudyInstanceUID"):
        if len({origin[keyword] for origin in origins}) != 1:
            raise DataError(
                f"{label} has images of several values of {keyword}",
                hint="put the images that belong together into a folder of their own",
            )
    _require_whole_objects(slices, files, label)
    origin = origins[0]
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


def _require_whole_objects(slices: Sequence[Slice], files: Sequence[Path], label: str) -> None:
    frames = slices[0].raster.frames
    if any(one.raster.frames > 1 for one in slices) and (len(files) > 1 or len(slices) != frames):
        raise DataError(
            f"{label} is a part of a multi-frame object or several of them, which a segmentation cannot refer to here",
            hint="export the series as single-frame images, or as one multi-frame object of one time point",
        )


def write_segmentation(
    path: Path,
    label_map: LabelMap,
    reference: Reference,
    *,
    algorithm: Algorithm | None,
    kind: Kind = "BINARY",
) -> bool:
    """Write a label map as a segmentation of a series; atomic.

    Segment n is the label of index n, under its name, with the codes that the name says (:func:`concept_of`) and its
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
    array = _on_grid(label_map, reference.geometry)
    if int(array.max(initial=0)) >= len(label_map.labels):
        raise DataError(
            f"a voxel has label {int(array.max())}, and the labels end at {len(label_map.labels) - 1}",
            hint="name every label that occurs",
        )
    images, order = _images(reference)
    array, places = array[order], None
    is_found = bool(array.any())
    if not is_found:
        array, position = array[:1], reference.slices[order[0]].position
        places = [hd.PlanePositionSequence(hd.CoordinateSystemNames.PATIENT, position.tolist())]
    is_map = kind == "LABELMAP"
    if is_map and "gdcm" in RLELosslessEncoder.available_plugins:
        RLELosslessEncoder.remove_plugin("gdcm")  # GDCM 3.2.6 aborts the process on some small frames
    by = "drawn by people" if algorithm is None else f"{algorithm.name} {algorithm.version}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on values that the series' own header has
            made = hd.seg.Segmentation(
                images,
                array,
                kind,
                [_described(label, algorithm) for label in label_map.labels.foreground],
                series_instance_uid=generate_uid(prefix=None),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=generate_uid(prefix=None),
                instance_number=1,
                manufacturer=_MAKER,
                manufacturer_model_name=_MAKER,
                software_versions=version(_MAKER),
                device_serial_number=version(_MAKER),
                content_label="SEGMENTATION",
                content_description=by[:_LONGEST_TEXT],
                series_description=f"Segmentation, {by}"[:_LONGEST_TEXT],
                plane_positions=places,
                omit_empty_frames=is_found,
                transfer_syntax_uid=RLELossless if is_map else ExplicitVRLittleEndian,
                specific_character_set="ISO_IR 192",
            )
            made.ContentCreatorName = None  # type 2; highdicom leaves it out
            with whole_file(path) as temporary:
                made.save_as(temporary)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"series {reference.slices[0].uid} cannot be referred to by a segmentation ({error})",
            hint="export the series again from the archive, as CT or MR images",
        ) from error
    return is_found


def _on_grid(label_map: LabelMap, geometry: Geometry) -> NDArray[Any]:
    found = match(label_map, geometry).array
    lost = np.count_nonzero(label_map.array) - np.count_nonzero(found)
    if lost:
        raise DataError(
            f"{lost} labelled voxels lie beyond the series",
            hint="send the missing slices of the series, or cut the labels to it",
        )
    return np.ascontiguousarray(found, dtype=np.uint8 if len(label_map.labels) <= 256 else np.uint16)


def _images(reference: Reference) -> tuple[list[Dataset], list[int]]:
    """What highdicom asks of each file's header, made of values that were checked; the slice of each frame."""
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
    item.SliceThickness = None if one.thickness is None else _ds(one.thickness)
    if geometry.shape[0] > 1:
        item.SpacingBetweenSlices = _ds(abs(geometry.affine[:3, 0] @ np.cross(one.across, one.down)))
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


def _described(label: Label, algorithm: Algorithm | None) -> hd.seg.SegmentDescription:
    if not 0 < len(label.name) <= _LONGEST_TEXT or re.search(r"[\\\x00-\x1f]", label.name):
        raise DataError(
            f"label {label.index} has a name that DICOM cannot hold: '{label.name[:80]}'",
            hint=f"give it 1 to {_LONGEST_TEXT} characters, and no backslash or line break",
        )
    concept = concept_of(label.name)
    described = hd.seg.SegmentDescription(
        label.index,
        label.name,
        _code(concept.category),
        _code(concept.type),
        "MANUAL" if algorithm is None else "AUTOMATIC",
        None
        if algorithm is None
        else hd.AlgorithmIdentificationSequence(
            algorithm.name[:_LONGEST_TEXT],
            codes.cid7162.ArtificialIntelligence,
            algorithm.version[:_LONGEST_TEXT],
        ),
        tracking_uid=generate_uid(prefix=None),
        tracking_id=label.name,
        anatomic_regions=None if concept.region is None else [_code(concept.region)],
        display_color=hd.color.CIELabColor.from_rgb(*label.color),
    )
    if concept.side is not None:
        side = hd.sr.CodedConcept.from_code(_code(concept.side))
        if concept.region is None:
            described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
        else:
            described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [side]
    return described


def _code(code: Code) -> PydicomCode:
    return PydicomCode(code.value, code.scheme, code.meaning)
