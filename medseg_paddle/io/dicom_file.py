"""What is known of DICOM files: the nouns, and the questions that a child process answers (`io.isolated`).

Nothing here parses a file: :mod:`medseg_paddle.io.dicom_header` and :mod:`medseg_paddle.io.dicom_pixels` do, in
the child.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Units
from medseg_paddle.errors import DataError
from medseg_paddle.io.isolated import run_isolated
from medseg_paddle.io.stored import StoredSlice, StoredSlices

# Direction cosines are often written with four digits.
COSINE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Raster:
    """Whose picture a file, or a frame of it, is, and what its numbers mean; checked on its own."""

    path: Path
    frame: int  # index in the file, 0 for a file of one picture
    frames: int  # in the file
    uid: str
    instance: str  # SOPInstanceUID
    patient_id: str
    size: tuple[int, int]
    bits: int  # stored
    signed: bool
    slope: float
    intercept: float
    units: Units
    inverted: bool  # MONOCHROME1: low values are shown white
    padding: tuple[int, int] | None  # stored values that stand for no measurement, from and to

    @property
    def stored(self) -> tuple[int, int]:
        """Smallest and largest value that the stored bits can hold."""
        lowest = -(1 << (self.bits - 1)) if self.signed else 0
        return lowest, lowest + (1 << self.bits) - 1


@dataclass(frozen=True, eq=False)
class Slice:
    """What is needed of one picture's header to place it in the patient, checked on its own."""

    raster: Raster
    reference: str  # FrameOfReferenceUID
    spacing: tuple[float, float]  # between rows, between columns
    thickness: float | None
    position: NDArray[np.float64]
    across: NDArray[np.float64]  # unit vector along rising column index
    down: NDArray[np.float64]  # unit vector along rising row index
    moments: Mapping[str, str]  # what tells apart the time points, echoes, ... of one place

    @property
    def height(self) -> float:
        """Position along the normal, mm."""
        return float(self.position @ np.cross(self.across, self.down))

    def along(self, other: Slice) -> Slice:
        """The same picture with the directions of another one, which are its own but for rounding."""
        return replace(self, across=other.across, down=other.down)

    @property
    def name(self) -> str:
        """The file, and the frame where it has several."""
        return str(self.raster.path) + (f" (frame {self.raster.frame + 1})" if self.raster.frames > 1 else "")

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


@dataclass(frozen=True)
class Glance:
    """What a first look at a file finds.

    Attributes
    ----------
    path : Path
    uid : str
        SeriesInstanceUID of an image; ``""`` for anything else.
    what : str
        For people: modality and description of an image; of another file what it is instead.
    is_dicom, is_segmentation : bool
    error : DataError or None
        The file cannot be read.
    """

    path: Path
    uid: str = ""
    what: str = ""
    is_dicom: bool = True
    is_segmentation: bool = False
    error: DataError | None = None


def glance(paths: Sequence[Path]) -> list[Glance]:
    """Look at each file: a series' image, another object, damaged, or no DICOM at all."""
    found = _asked("medseg_paddle.io.dicom_header:glance", paths)
    return [
        Glance(path, **{**one, "error": DataError(**one["error"]) if "error" in one else None})
        for path, one in zip(paths, found, strict=True)
    ]


def read_slices(paths: Sequence[Path]) -> list[Slice]:
    """Read and check the headers of images; a file of many frames gives many slices.

    Raises
    ------
    DataError
        It says what cannot be placed or scaled.
    """
    return [_slice(one) for one in _asked("medseg_paddle.io.dicom_header:slices", paths)]


def read_slice(path: Path) -> Slice:
    """As :func:`read_slices`, the first slice of one file."""
    return read_slices([path])[0]


def read_rasters(paths: Sequence[Path]) -> list[Raster]:
    """As :func:`read_slices`, for images of one picture that need not have a place in the patient."""
    return [_raster(one) for one in _asked("medseg_paddle.io.dicom_header:rasters", paths)]


def read_stored(rasters: Sequence[Raster]) -> StoredSlices:
    """Decode pictures of one size; the values stay in a temporary file until they are asked for.

    Raises
    ------
    DataError
        Damaged or truncated pixels; a compression without a decoder; more than the limits on memory and time.
    """
    pictures = [asdict(one) | {"path": str(one.path)} for one in rasters]
    answer = run_isolated("medseg_paddle.io.dicom_pixels:decode", {"pictures": pictures})
    slices = [
        StoredSlice(int(place["offset"]), np.dtype(str(place["dtype"])), one.slope, one.intercept)
        for one, place in zip(rasters, answer.result, strict=True)
    ]
    return StoredSlices(answer.values, rasters[0].size, tuple(slices))


def read_pixels(one: Raster) -> NDArray[np.float32]:
    """Rescaled values of one picture."""
    with read_stored([one]) as stored:
        return stored.read(0).astype(np.float32)


def _asked(function: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    answer = run_isolated(function, {"paths": [str(path) for path in paths]})
    with answer.values:
        found: list[dict[str, Any]] = answer.result
    return found


def _raster(said: Mapping[str, Any]) -> Raster:
    padding = said["padding"]
    return Raster(
        **{
            **said,
            "path": Path(said["path"]),
            "size": tuple(said["size"]),
            "padding": None if padding is None else tuple(padding),
        }
    )


def _slice(said: Mapping[str, Any]) -> Slice:
    arrays = {key: np.array(said[key], dtype=np.float64) for key in ("position", "across", "down")}
    return Slice(
        **{**said, **arrays, "raster": _raster(said["raster"]), "spacing": tuple(said["spacing"])},
    )
