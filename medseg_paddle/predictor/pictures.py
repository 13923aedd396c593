"""Pictures as a model of pictures takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.description import Description
from medseg_paddle.errors import DataError
from medseg_paddle.io.channels import read_channels
from medseg_paddle.io.dicom import DICOM_SUFFIXES
from medseg_paddle.io.dicom_pictures import read_dicom_picture
from medseg_paddle.io.images import read_image
from medseg_paddle.preprocess.window import windowed_picture


def checked_picture(description: Description, image: NDArray[Any]) -> NDArray[np.float32]:
    """A picture on the 0..255 scale, as the model takes it.

    Raises
    ------
    DataError
        Shape, channels, type or values are not what it takes.
    """
    windows = description.picture_windows
    if windows and image.dtype == np.uint16:
        plain = windowed_picture(image, [(one.level, one.width) for one in windows], windows[0].bits)
        image = plain.astype(np.float32) / (257.0 if plain.dtype == np.uint16 else 1.0)
    return _checked(image, description.in_channels)


def read_picture(description: Description, path: Path, *others: Path) -> NDArray[np.float32]:
    """Read a picture; see :meth:`Predictor.read_picture`."""
    if description.dimensions == 3:
        raise DataError(
            f"{path} is one picture or slice, the model takes whole volumes",
            hint="give a volume (NIfTI, NRRD, MHA) or the folder of a DICOM series",
        )
    if path.suffix.lower() in DICOM_SUFFIXES and not others:
        return _read_dicom(description, path)
    if not description.picture_windows and not others:
        return read_image(path, description.in_channels)
    samples = read_channels([path, *others])
    if not description.picture_windows:
        return _checked(
            samples if samples.dtype == np.uint8 else samples / np.float32(257), description.in_channels
        )
    if samples.dtype != np.uint16:
        raise DataError(
            f"{path} has 8 bits, the model was trained on pictures of 16 bits seen through a window",
            hint="give the picture as the detector wrote it",
        )
    if samples.shape[2] == 1:
        samples = samples.repeat(description.in_channels, axis=2)
    return checked_picture(description, samples)


def _read_dicom(description: Description, path: Path) -> NDArray[np.float32]:
    """One DICOM image, such as an X-ray."""
    if description.window is not None or description.channel_windows:
        raise DataError(
            f"{path} is one DICOM file, series are segmented",
            hint="give the folder that holds its series",
        )
    windows = description.picture_windows
    bits: Literal[8, 16] = 8 if windows and windows[0].bits == 8 else 16
    array = read_dicom_picture(path, [(one.level, one.width) for one in windows], bits)
    grey = array.astype(np.float32) / np.float32(257 if bits == 16 else 1)
    return _checked(grey[:, :, None].repeat(description.in_channels, axis=2), description.in_channels)


def _checked(image: NDArray[Any], channels: int) -> NDArray[np.float32]:
    if image.ndim != 3 or image.shape[2] != channels or 0 in image.shape:
        raise DataError(
            f"a picture of shape {image.shape}, the model takes [height, width, {channels}]",
            hint="give rows, columns, channels in this order; a grey picture as image[:, :, None]",
        )
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise DataError(
            f"a picture of {image.dtype}, the model takes the 0..255 scale as uint8 or float",
            hint="divide 16-bit values by 257",
        )
    picture = np.asarray(image, dtype=np.float32)
    if not np.isfinite(picture).all():
        raise DataError("the picture holds values that are not finite", hint="fill them on purpose first")
    return picture
