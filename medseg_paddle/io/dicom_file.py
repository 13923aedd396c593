"""One DICOM file: what its header says of its place and scale, and its rescaled pixels."""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from medseg_paddle.core import Units
from medseg_paddle.errors import DataError
from medseg_paddle.io.limits import require_small

# Direction cosines are often written with four digits.
COSINE_TOLERANCE = 1e-3

# Segmentation Storage and Label Map Segmentation Storage (PS3.4, B.5), which pydicom 3.0 has no name for.
SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")

# Bytes before those that FileMetaInformationGroupLength counts (PS3.10, 7.1): preamble, mark, its own element.
_META_START = 128 + 4 + 12

# What pydicom raises on damaged files and values.
_READ_ERRORS = (
    OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError,
    NotImplementedError, struct.error, zlib.error, BytesLengthException,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Raster:
    """Whose picture a file is, and what its numbers mean; checked on its own."""

    path: Path
    uid: str
    patient_id: str
    size: tuple[int, int]
    slope: float
    intercept: float
    units: Units
    inverted: bool  # MONOCHROME1: low values are shown white
    stored: tuple[int, int]  # smallest and largest value that the stored bits can hold


@dataclass(frozen=True, eq=False)
class Slice:
    """What is needed of one file's header to place it in the patient, checked on its own."""

    raster: Raster
    frame: str
    spacing: tuple[float, float]  # between rows, between columns
    thickness: float | None
    position: NDArray[np.float64]
    across: NDArray[np.float64]  # unit vector along rising column index
    down: NDArray[np.float64]  # unit vector along rising row index
    height: float  # position along the normal, mm

    @property
    def path(self) -> Path:
        """The file."""
        return self.raster.path

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return self.raster.uid

    @property
    def patient_id(self) -> str:
        """PatientID, ``""`` where it is missing."""
        return self.raster.patient_id


def read_slice(path: Path) -> Slice:
    """Read and check one file's header; a DataError says what cannot be placed or scaled."""
    header = require_header(path)
    with damage_refused(path):
        return _slice(header, path)


def read_raster(path: Path) -> Raster:
    """As :func:`read_slice`, for an image that need not have a place in the patient."""
    header = require_header(path)
    with damage_refused(path):
        return _raster(header, path)


def _raster(header: pydicom.Dataset, path: Path) -> Raster:
    _require_plain_image(header, path)
    slope, intercept = _rescale(header, path)
    is_ct = text(header, "Modality") == "CT"
    bits = int(header.BitsStored)
    if not 1 <= bits <= 32:
        raise DataError(f"{path}: {bits} bits stored is not read", hint="export it with 8 or 16 bits")
    inverted = text(header, "PhotometricInterpretation") == "MONOCHROME1"
    units: Units = "HU" if is_ct and (text(header, "RescaleType") or "HU") == "HU" else "arbitrary"
    shape = text(header, "PresentationLUTShape")
    if units != "HU" and shape and inverted != (shape == "INVERSE"):
        raise DataError(
            f"{path} says twice and differently which end of its scale is white (PhotometricInterpretation "
            f"{text(header, 'PhotometricInterpretation')}, PresentationLUTShape {shape})",
            hint="export it again from the archive",
        )
    lowest = -(1 << (bits - 1)) if int(header.PixelRepresentation) else 0
    return Raster(
        path=path,
        uid=text(header, "SeriesInstanceUID"),
        patient_id=text(header, "PatientID"),
        size=(int(header.Rows), int(header.Columns)),
        slope=slope,
        intercept=intercept,
        units=units,
        inverted=inverted,
        stored=(lowest, lowest + (1 << bits) - 1),
    )


def _slice(header: pydicom.Dataset, path: Path) -> Slice:
    raster = _raster(header, path)
    if raster.inverted and raster.units != "HU":
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
    across, down = orientation[:3], orientation[3:]
    lengths = np.array([np.linalg.norm(across), np.linalg.norm(down)])
    if (np.abs(lengths - 1) > COSINE_TOLERANCE).any() or abs(across @ down) > COSINE_TOLERANCE:
        raise DataError(
            f"{path}: ImageOrientationPatient {orientation.tolist()} is not two unit vectors at right angles",
            hint="export the series again from the archive; the orientation cannot be guessed",
        )
    across, down = across / lengths[0], down / lengths[1]
    return Slice(
        raster=raster,
        frame=text(header, "FrameOfReferenceUID"),
        spacing=(float(spacing[0]), float(spacing[1])),
        thickness=float(_numbers(header, "SliceThickness", 1, path)[0])
        if header.get("SliceThickness")
        else None,
        position=position,
        across=across,
        down=down,
        height=float(position @ np.cross(across, down)),
    )


def read_header(path: Path) -> pydicom.FileDataset:
    """Read all but the pixels; pydicom's InvalidDicomError where the file is not DICOM."""
    with damage_refused(path):
        meta = read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            # pydicom inflates the whole file to read its header.
            require_small(path, _META_START + int(meta.FileMetaInformationGroupLength))
        return pydicom.dcmread(path, stop_before_pixels=True)


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
    except InvalidDicomError:
        raise
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
    kind = [str(part).upper() for part in header.get("ImageType") or ()]
    if "LOCALIZER" in kind:
        raise DataError(
            f"{path} is a localizer (scout view)", hint="leave localizers out of the series' folder"
        )
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise DataError(
            f"{path} is a multi-frame image of {header.NumberOfFrames} frames",
            hint="export the series as single-frame images",
        )
    photometric = text(header, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or int(header.get("SamplesPerPixel") or 1) != 1:
        raise DataError(
            f"{path} is a {photometric or 'unstated'} picture (a colour or screen capture), not a grey scan",
            hint="leave captures and reports out of the series' folder",
        )
    if "ModalityLUTSequence" in header:
        raise DataError(
            f"{path} scales its values by a table (ModalityLUTSequence)",
            hint="export it with slope and intercept",
        )


def _rescale(header: pydicom.Dataset, path: Path) -> tuple[float, float]:
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
    return slope, intercept


def read_pixels(one: Raster) -> NDArray[np.float32]:
    """Rescaled values of one file."""
    syntax = UID("")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(one.path)
            syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
            _require_decoder(syntax, one.path)
            stored = _stored_values(dataset, one.path)
    except _READ_ERRORS as error:
        coded = (
            f", compressed as {syntax.name}," if syntax.is_transfer_syntax and syntax.is_compressed else ""
        )
        raise DataError(
            f"{one.path}: pixels{coded} are damaged, truncated or of a kind that is not read ({error})",
            hint="copy the file again from its source, or export it without compression",
        ) from error
    if stored.shape != one.size:
        raise DataError(
            f"{one.path}: pixels of shape {stored.shape}, header says {one.size}", hint="export it again"
        )
    return np.asarray(stored * one.slope + one.intercept, dtype=np.float32)


def _require_decoder(syntax: UID, path: Path) -> None:
    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise DataError(
            f"{path} is compressed as {syntax.name} ({syntax}), for which no decoder is installed",
            hint="decompress the series first (for example with `gdcmconv --raw`), or install pylibjpeg",
        )


def _stored_values(dataset: pydicom.Dataset, path: Path) -> NDArray[np.float64]:
    """Take the ``BitsStored`` low bits; the others may hold old overlays."""
    raw: NDArray[Any] = dataset.pixel_array
    stored, allocated = int(dataset.BitsStored), 8 * raw.dtype.itemsize
    if int(dataset.HighBit) != stored - 1 or not 1 <= stored <= allocated or raw.dtype.kind not in "iu":
        raise DataError(
            f"{path}: {stored} bits stored of {allocated} with high bit {dataset.HighBit} is not read",
            hint="export the series with 16 allocated bits",
        )
    # pydicom 3.0.2 corrects unused bits by itself, the first of 3.0 are not known to.
    # Shifting up and down again extends the sign for signed types and clears the rest for unsigned.
    shift = allocated - stored
    return np.asarray((raw << shift) >> shift, dtype=np.float64)


def _numbers(header: pydicom.Dataset, keyword: str, count: int, path: Path) -> NDArray[np.float64]:
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


def text(header: pydicom.Dataset, keyword: str) -> str:
    """Value of an element as text, ``""`` where it is missing or empty."""
    return str(header.get(keyword) or "").strip()
