"""Headers of DICOM files, parsed and checked: runs in the child process of `io.isolated`.

Attributes by DICOM PS3.3: image plane C.7.6.2, pixel C.7.6.3, modality table C.11.1, functional groups C.7.6.16.
"""

from __future__ import annotations

import contextlib
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medseg_paddle.core import FARTHEST_MM
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_file import COSINE_TOLERANCE
from medseg_paddle.io.dicom_frames import frames_of
from medseg_paddle.io.isolated import MEMORY, Job
from medseg_paddle.io.limits import require_small

# Segmentation Storage and Label Map Segmentation Storage (PS3.4, B.5), which pydicom 3.0 has no name for.
SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")

# Of the attributes in which pictures of one place and series differ, the likeliest first.
MOMENTS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoTime", "EffectiveEchoTime", "EchoNumbers",
    "DiffusionBValue", "TriggerTime", "NominalCardiacTriggerDelayTime", "AcquisitionNumber", "AcquisitionTime",
    "FrameAcquisitionDateTime", "StackID", "InversionTime", "FlipAngle", "ImageType", "FrameType", "ContentTime",
)  # fmt: skip

# Bytes before those that FileMetaInformationGroupLength counts (PS3.10, 7.1): preamble, mark, its own element.
_META_START = 128 + 4 + 12

# Of a deflated file: it is held twice, inflated and as values.
_MOST_INFLATED = MEMORY // 2

# How a file without preamble begins: group 2, or group 8 in either byte order, and a low element number.
_BARE = re.compile(rb"(?:[\x02\x08]\x00[\x00-\x20]\x00|\x00[\x02\x08]\x00[\x00-\x20])(?s:....)")
# What float32 holds: beyond, values overflow, become 0, or neighbours become one.
LEAST_SLOPE = 1e-30
MOST_INTERCEPT = 2.0**23  # slopes

_FLOATS = (32, 64)  # bits of what FloatPixelData and DoubleFloatPixelData hold
_UID = re.compile(r"[0-9.]{1,64}")

# What pydicom raises on damaged files and values.
_READ_ERRORS = (
    OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError,
    NotImplementedError, struct.error, zlib.error, BytesLengthException,
)  # fmt: skip

Header = pydicom.Dataset | Mapping[str, Any]


def glance(job: Job, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Of each file what :class:`~medseg_paddle.io.dicom_file.Glance` says."""
    found = []
    for path in map(Path, paths):
        job.at(path)
        try:
            found.append(_glance(path))
        except DataError as error:
            found.append({"error": {"message": error.message, "hint": error.hint}})
    return found


def _glance(path: Path) -> dict[str, Any]:
    try:
        header = read_header(path)
    except InvalidDicomError:
        return {"is_dicom": False, "what": "no DICOM file"}
    with damage_refused(path):
        kind = text(header.file_meta, "MediaStorageSOPClassUID") or text(header, "SOPClassUID")
        uid = text(header, "SeriesInstanceUID")
        name = UID(kind).name if kind else "DICOM"
        if kind in SEGMENTATION_CLASSES:
            return {"is_segmentation": True, "what": "a segmentation"}
        if kind and "Rows" not in header and "Image Storage" not in name:
            return {"what": f"no image ({name})"}
        said = [text(header, "Modality"), text(header, "SeriesDescription") or "-"]
        if "LOCALIZER" in _types(header, "ImageType"):
            said.append("(localizer)")
    if not _UID.fullmatch(uid):
        what = (
            "with a SeriesInstanceUID that is none" if uid else "without SeriesInstanceUID, likely cut short"
        )
        raise DataError(
            f"{path} is an image {what}",
            hint="copy the file again from its source, or export the series again",
        )
    return {"uid": uid, "what": " ".join(part for part in said if part)}


def slices(job: Job, paths: Sequence[str]) -> list[dict[str, Any]]:
    """What :class:`~medseg_paddle.io.dicom_file.Slice` says of each picture of images with a place in the patient."""
    found = []
    for path in map(Path, paths):
        job.at(path)
        header = require_header(path)
        with damage_refused(path):
            _require_plain_image(header, path)
            views: Sequence[Header] = (
                frames_of(header, path) if "PerFrameFunctionalGroupsSequence" in header else [header]
            )
            if len(views) == 1:
                _require_one_frame(header, path)
            found += [_slice(view, path, index, len(views)) for index, view in enumerate(views)]
    return found


def rasters(job: Job, paths: Sequence[str]) -> list[dict[str, Any]]:
    """What :class:`~medseg_paddle.io.dicom_file.Raster` says of images of one picture."""
    found = []
    for path in map(Path, paths):
        job.at(path)
        header = require_header(path)
        with damage_refused(path):
            _require_plain_image(header, path)
            _require_one_frame(header, path)
            found.append(_raster(header, path, 0, 1))
    return found


def _raster(header: Header, path: Path, index: int, count: int) -> dict[str, Any]:
    slope, intercept = _rescale(header, path)
    is_ct = text(header, "Modality") == "CT"
    bits, allocated = _integer(header, "BitsStored", path), _integer(header, "BitsAllocated", path)
    if not 1 <= bits <= min(32, allocated) or _integer(header, "HighBit", path) != bits - 1:
        raise DataError(
            f"{path}: {bits} bits stored of {allocated} with high bit {header.get('HighBit')} is not read",
            hint="export the series with 16 allocated bits",
        )
    inverted = text(header, "PhotometricInterpretation") == "MONOCHROME1"
    units = "HU" if is_ct and (text(header, "RescaleType") or "HU") == "HU" else "arbitrary"
    shape = text(header, "PresentationLUTShape")
    if units != "HU" and shape and inverted != (shape == "INVERSE"):
        raise DataError(
            f"{path} says twice and differently which end of its scale is white (PhotometricInterpretation "
            f"{text(header, 'PhotometricInterpretation')}, PresentationLUTShape {shape})",
            hint="export it again from the archive",
        )
    size = (_integer(header, "Rows", path), _integer(header, "Columns", path))
    signed = bool(_integer(header, "PixelRepresentation", path))
    return {
        "path": str(path),
        "frame": index,
        "frames": count,
        "uid": text(header, "SeriesInstanceUID"),
        "instance": text(header, "SOPInstanceUID"),
        "patient_id": text(header, "PatientID"),
        "size": size,
        "bits": bits,
        "signed": signed,
        "slope": slope,
        "intercept": intercept,
        "units": units,
        "inverted": inverted,
        "padding": _padding(header, bits, signed=signed),
    }


def _padding(header: Header, bits: int, *, signed: bool) -> tuple[int, int] | None:
    """Stored values that are no measurement (PS3.3, C.7.5.1.1.2), or None."""
    first = header.get("PixelPaddingValue")
    if not isinstance(first, int):
        return None
    last = header.get("PixelPaddingRangeLimit")
    ends = [first, last if isinstance(last, int) else first]
    if signed:  # written as unsigned by some, for the tag has both kinds
        ends = [end - (1 << 16) if (1 << (bits - 1)) <= end < (1 << 16) else end for end in ends]
    return min(ends), max(ends)


def _slice(header: Header, path: Path, index: int, count: int) -> dict[str, Any]:
    _require_no_localizer(header, "FrameType", path)
    raster = _raster(header, path, index, count)
    if raster["inverted"] and raster["units"] != "HU":
        raise DataError(
            f"{path} is MONOCHROME1 (low values shown white) on a scale of its own, so which end is bright is in doubt",
            hint="export the series as MONOCHROME2 from the archive",
        )
    position = _numbers(header, "ImagePositionPatient", 3, path)
    orientation = _numbers(header, "ImageOrientationPatient", 6, path)
    spacing = _numbers(header, "PixelSpacing", 2, path)
    if (spacing <= 0).any():
        raise DataError(
            f"{path}: PixelSpacing {spacing[0]:g} x {spacing[1]:g} mm must be above 0",
            hint="export the series again from the archive; the spacing cannot be guessed",
        )
    if max(np.abs(position).max(), spacing.max()) > FARTHEST_MM:
        raise DataError(
            f"{path}: ImagePositionPatient {position.tolist()} or PixelSpacing {spacing.tolist()} is beyond "
            "any patient",
            hint="export the series again from the archive; it cannot be guessed",
        )
    across, down = orientation[:3], orientation[3:]
    lengths = np.array([np.linalg.norm(across), np.linalg.norm(down)])
    if (np.abs(lengths - 1) > COSINE_TOLERANCE).any() or abs(across @ down) > COSINE_TOLERANCE:
        raise DataError(
            f"{path}: ImageOrientationPatient {orientation.tolist()} is not two unit vectors at right angles",
            hint="export the series again from the archive; the orientation cannot be guessed",
        )
    thickness = header.get("SliceThickness")
    return {
        "raster": raster,
        "reference": text(header, "FrameOfReferenceUID"),
        "spacing": spacing.tolist(),
        "thickness": float(_numbers(header, "SliceThickness", 1, path)[0]) if thickness else None,
        "position": position.tolist(),
        "across": (across / lengths[0]).tolist(),
        "down": (down / lengths[1]).tolist(),
        "moments": {keyword: text(header, keyword) for keyword in MOMENTS if keyword in header},
    }


def read_header(path: Path) -> pydicom.FileDataset:
    """Read all but the pixels; pydicom's InvalidDicomError where the file is not DICOM.

    The data set's ``file_meta.TransferSyntaxUID`` is always set: a file without it is uncompressed.
    """
    with damage_refused(path):
        with path.open("rb") as stream:
            start = stream.read(132)
        bare = start[128:] != b"DICM"
        if bare and not _BARE.match(start):
            raise InvalidDicomError
        meta = read_file_meta_info(path) if not bare else pydicom.Dataset()
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            # pydicom inflates the whole file to read its header.
            require_small(path, _META_START + int(meta.FileMetaInformationGroupLength), most=_MOST_INFLATED)
        header = pydicom.dcmread(path, stop_before_pixels=True, force=bare)
        if bare and not ("SOPClassUID" in header or "Rows" in header):
            raise InvalidDicomError
        if not header.file_meta.get("TransferSyntaxUID"):
            header.file_meta.TransferSyntaxUID = _found_syntax(header)
        return header


def _found_syntax(header: pydicom.FileDataset) -> UID:
    """How pydicom found the elements to be written, where no file meta information says it."""
    is_implicit, is_little_endian = header.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little_endian else ExplicitVRBigEndian


def require_header(path: Path) -> pydicom.FileDataset:
    """As :func:`read_header`; a DataError where the file is not DICOM."""
    try:
        return read_header(path)
    except InvalidDicomError as error:
        raise DataError(f"{path} is not a DICOM file", hint="name DICOM files only") from error


@contextlib.contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Raise a DataError for what pydicom raises on damaged files; it decodes a value when that is asked for."""
    try:
        with warnings.catch_warnings():
            # pydicom warns of every value that is not quite by the book; what matters is checked here.
            warnings.simplefilter("ignore")
            yield
    except (InvalidDicomError, DataError):
        raise
    except RecursionError as error:
        raise DataError(
            f"{path} is damaged, or made to do harm (sequences within sequences without end)",
            hint="copy the file again from its source, or leave it out",
        ) from error
    except _READ_ERRORS as error:
        raise DataError(
            f"{path} is damaged or truncated ({error})", hint="copy the file again from its source"
        ) from error


def _require_plain_image(header: pydicom.Dataset, path: Path) -> None:
    if "Rows" not in header or "Columns" not in header:
        raise DataError(
            f"{path} is an image without its size (Rows, Columns), likely cut short",
            hint="copy the file again from its source, or export the series again",
        )
    _require_no_localizer(header, "ImageType", path)
    if "BitsStored" not in header and int(header.get("BitsAllocated") or 0) in _FLOATS:
        raise DataError(
            f"{path} holds floating point numbers (FloatPixelData), which are not read",
            hint="export it with whole numbers and a RescaleSlope",
        )
    photometric = text(header, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or int(header.get("SamplesPerPixel") or 1) != 1:
        raise DataError(
            f"{path} is a {photometric} picture (a colour or screen capture), not a grey scan"
            if photometric
            else f"{path} does not say what its pixels are (PhotometricInterpretation is missing)",
            hint="leave captures and reports out of the series' folder",
        )
    if "ModalityLUTSequence" in header:
        raise DataError(
            f"{path} scales its values by a table (ModalityLUTSequence)",
            hint="export it with slope and intercept",
        )


def _require_no_localizer(header: Header, keyword: str, path: Path) -> None:
    if "LOCALIZER" in _types(header, keyword):
        raise DataError(
            f"{path} is a localizer (scout view)", hint="leave localizers out of the series' folder"
        )


def _require_one_frame(header: pydicom.Dataset, path: Path) -> None:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise DataError(
            f"{path} is a multi-frame image of {header.NumberOfFrames} frames that does not say where each one lies",
            hint="export the series as single-frame images, or as an enhanced CT or MR object",
        )


def _types(header: Header, keyword: str) -> list[str]:
    return [str(part).upper() for part in header.get(keyword) or ()]


def _rescale(header: Header, path: Path) -> tuple[float, float]:
    """Slope and intercept (PS3.3, C.11.1): a must for CT, 1 and 0 where an MR has none."""
    present = [keyword in header for keyword in ("RescaleSlope", "RescaleIntercept")]
    if not any(present) and text(header, "Modality") != "CT":
        return 1.0, 0.0
    slope = float(_numbers(header, "RescaleSlope", 1, path)[0])
    intercept = float(_numbers(header, "RescaleIntercept", 1, path)[0])
    if slope == 0:
        raise DataError(
            f"{path}: RescaleSlope 0 turns every value into {intercept:g}",
            hint="export the series again from the archive",
        )
    if not (LEAST_SLOPE <= abs(slope) <= 1 / LEAST_SLOPE and abs(intercept) <= MOST_INTERCEPT * abs(slope)):
        raise DataError(
            f"{path}: RescaleSlope {slope:g} and RescaleIntercept {intercept:g} turn stored values into numbers that "
            "32 bits do not tell apart",
            hint="export the series again from the archive",
        )
    return slope, intercept


def _numbers(header: Header, keyword: str, count: int, path: Path) -> NDArray[np.float64]:
    try:
        values = np.atleast_1d(np.asarray(header.get(keyword), dtype=np.float64))
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise DataError(
            f"{path}: {keyword} is missing or not {count} finite number(s)",
            hint="export the series again from the archive; it cannot be guessed",
        )
    return values


def _integer(header: Header, keyword: str, path: Path) -> int:
    value: Any = header.get(keyword)
    if not isinstance(value, int):
        raise DataError(
            f"{path}: {keyword} is missing or no whole number",
            hint="copy the file again from its source, or export the series again",
        )
    return value


def text(header: Header, keyword: str) -> str:
    """Value of an element as text, ``""`` where it is missing or empty."""
    value = header.get(keyword)
    return "" if value is None or (isinstance(value, Sequence) and not value) else str(value).strip()
