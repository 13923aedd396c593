"""DICOM images as pictures to look at or to train on: window or full depth, 8 or 16 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from medseg_paddle.core import Units


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
        The rescaled values that are black and white (white and black where `inverted`).
    units : {"HU", "arbitrary"}
        Of `range`.
    inverted : bool
        MONOCHROME1: the file's low values are white.
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
    DataError
        Files of several series; colour, multi-frame; a slope of 0; damaged pixels; as for
        :func:`~medseg_paddle.io.dicom.load_series`.
    """
    raise NotImplementedError
