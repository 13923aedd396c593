"""DICOM images as pictures to look at or to train on: window or full depth, 8 or 16 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Units
from medseg_paddle.errors import DataError, RecipeError
from medseg_paddle.io.dicom_file import Raster, read_pixels, read_rasters


@dataclass(frozen=True, eq=False)
class DicomPicture:
    """One DICOM image as a grey picture.

    Attributes
    ----------
    path : Path
    uid : str
        SeriesInstanceUID.
    patient_id : str
    array : ndarray, shape (height, width), uint8 or uint16
        0 is black.
    range : tuple of float
        The rescaled values that are black and white: the lower one is white where `inverted`.
    units : {"HU", "arbitrary"}
        Of `range`.
    inverted : bool
        Low values are white, as the file asks for (MONOCHROME1). Never in HU, where air is black in
        every picture, however a file wishes to be shown.
    """

    path: Path
    uid: str
    patient_id: str
    array: NDArray[Any]
    range: tuple[float, float]
    units: Units
    inverted: bool


def dicom_pictures(
    paths: Sequence[Path], *, window: tuple[float, float] | None = None, bits: Literal[8, 16] = 16
) -> Iterator[DicomPicture]:
    """Read DICOM images of one series as pictures, one at a time, in the order given.

    Also for X-rays and other images without a place in the patient, which
    :func:`~medseg_paddle.io.dicom.load_series` refuses.

    Parameters
    ----------
    paths : sequence of Path
    window : tuple of float, optional
        Rescaled values (HU for CT) that become black and white. None for the full depth: everything
        that the headers' bits, slope and intercept can express, one range for the whole series.
    bits : {8, 16}
        Of the pictures: 0..255 or 0..65535.

    Raises
    ------
    RecipeError
        The window is not two rising, finite numbers.
    DataError
        Files of several series; colour, multi-frame; a slope of 0; more than 16 bits stored, without a window;
        damaged pixels; as for
        :func:`~medseg_paddle.io.dicom.load_series`.
    """
    rasters = read_rasters(paths)
    for one in rasters:
        _require_alike(rasters[0], one)
    low, high = _full_depth(rasters) if window is None else window
    if not (np.isfinite([low, high]).all() and low < high):
        raise RecipeError(
            f"window {low} to {high}", hint="name the values that become black and white, the lower one first"
        )
    for one in rasters:
        yield _picture(one, low, high, bits)


def read_dicom_picture(
    path: Path, windows: Sequence[tuple[float, float]] = (), bits: Literal[8, 16] = 16
) -> NDArray[Any]:
    """Read one DICOM image as a grey picture, as preparing and predicting both do.

    Parameters
    ----------
    path : Path
    windows : sequence of (level, width)
        One, in rescaled values; none for the full depth that the header can express.
    bits : {8, 16}

    Returns
    -------
    ndarray, shape (height, width), uint8 or uint16

    Raises
    ------
    DataError
        As for :func:`dicom_pictures`; several windows for the one channel.
    """
    if len(windows) > 1:
        raise DataError(f"{path} has one channel, there are {len(windows)} windows", hint="give one window")
    ends = [(level - width / 2, level + width / 2) for level, width in windows]
    (picture,) = dicom_pictures([path], window=ends[0] if ends else None, bits=bits)
    return picture.array


def _require_alike(first: Raster, other: Raster) -> None:
    for what, one, two in (("series", first.uid, other.uid), ("units", first.units, other.units)):
        if one != two:
            raise DataError(
                f"{what} are mixed: {one} in {first.path}, {two} in {other.path}",
                hint="read the images of each series by themselves",
            )


def _full_depth(rasters: Sequence[Raster]) -> tuple[float, float]:
    """Smallest and largest rescaled value that the headers of a series can express."""
    ends = []
    for one in rasters:
        if one.stored[1] - one.stored[0] > 65535:
            raise DataError(f"{one.path} stores more than 16 bits, a picture holds 16", hint="name a window")
        ends += [one.slope * end + one.intercept for end in one.stored]
    return (min(ends), max(ends)) if ends else (0.0, 1.0)


def _picture(one: Raster, low: float, high: float, bits: int) -> DicomPicture:
    white = (1 << bits) - 1
    values = (read_pixels(one).astype(np.float64) - low) * (white / (high - low))
    grey = np.rint(np.clip(values, 0, white)).astype(np.uint8 if bits == 8 else np.uint16)
    inverted = one.inverted and one.units != "HU"
    return DicomPicture(
        path=one.path,
        uid=one.uid,
        patient_id=one.patient_id,
        array=white - grey if inverted else grey,
        range=(low, high),
        units=one.units,
        inverted=inverted,
    )
