"""Pictures in and out: PNG, JPEG, TIFF, GIF, BMP and arrays of any number of channels, read strictly.

Nothing is guessed: a picture that would need a conversion that loses or invents something (alpha,
EXIF rotation, colour to grey, float intensities, a stack of pages) is refused with what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import DataError
from medseg_paddle.io.channels import ARRAY_SUFFIX, read_channels
from medseg_paddle.io.files import write_bytes
from medseg_paddle.io.pictures import decode, grey_if_equal, indices, intensities, palette, png

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")


def read_image(path: Path, channels: int) -> NDArray[np.float32]:
    """Read a picture's intensities.

    Parameters
    ----------
    path : Path
        PNG, JPEG, TIFF, GIF, BMP or ``.npy`` (height, width, channels) with 8 or 16 bits a sample.
    channels : int
        1 (grey), 3 (red, green, blue) or any other number. A grey picture is repeated for 3; one in
        colour is not turned grey for 1, while one that merely stores grey as three equal channels is
        taken. For other numbers, and from ``.npy``, the file has exactly as many
        (:func:`~medseg_paddle.io.channels.read_channels`).

    Returns
    -------
    ndarray, shape (height, width, channels), float32
        0..255; 8-bit values as they are, 16-bit values divided by 257.

    Raises
    ------
    DataError
        Missing, empty, truncated or not a picture; transparent; rotated by EXIF only; in colour for
        ``channels=1``; another number of channels; float or 32-bit samples; several pages that are
        not channels.
    """
    if channels in (1, 3) and path.suffix.lower() != ARRAY_SUFFIX:
        samples = read_samples(path)
    else:
        samples = read_channels([path])
        if samples.shape[2] != channels:
            raise DataError(
                f"{path} has {samples.shape[2]} channels, the model takes {channels}",
                hint=f"set `in_channels: {samples.shape[2]}` in the recipe, or prepare the pictures again",
            )
    scaled = samples.astype(np.float32)
    if samples.dtype == np.uint16:
        scaled /= 257.0
    if scaled.ndim == 3 and scaled.shape[2] != channels:
        raise DataError(
            f"{path} is in colour, the model takes one grey channel",
            hint="set `in_channels: 3` in the recipe, or convert the pictures to grey on purpose",
        )
    if scaled.ndim == 2:
        scaled = np.repeat(scaled[:, :, None], channels, axis=2)
    return np.ascontiguousarray(scaled)


def read_samples(path: Path) -> NDArray[Any]:
    """Read a picture's samples as they are stored; black and white as 0 and 255.

    Returns
    -------
    ndarray, shape (height, width) or, in colour, (height, width, 3), uint8 or uint16

    Raises
    ------
    DataError
        As for :func:`read_image`.
    """
    return intensities(path, grey_if_equal(decode(path)))


def read_label(path: Path) -> NDArray[Any]:
    """Read a label map's indices as they are stored (a palette picture gives its palette indices).

    Returns
    -------
    ndarray, shape (height, width), uint8 or uint16

    Raises
    ------
    DataError
        As for :func:`read_image`; also colour and float pictures, which hold no indices, and JPEG,
        whose compression changes them.
    """
    return indices(path, decode(path, keep_palette=True))


def read_palette(path: Path, label: NDArray[Any]) -> dict[int, int]:
    """Colours of the indices that a label map uses, as ``red << 16 | green << 8 | blue``.

    Parameters
    ----------
    path : Path
    label : ndarray
        What :func:`read_label` gave for it.

    Returns
    -------
    dict
        Empty for a picture without palette.
    """
    colors = palette(path)
    if colors is None:
        return {}
    parts = colors.astype(int)
    return {
        int(index): int(parts[index] @ (1 << 16, 1 << 8, 1))
        for index in np.flatnonzero(np.bincount(label.ravel()))
    }


def read_roi(path: Path) -> NDArray[np.bool_]:
    """Read a region of interest: true where the picture is not 0.

    Returns
    -------
    ndarray, shape (height, width), bool
    """
    return np.asarray(read_label(path) != 0)


def write_label(path: Path, array: NDArray[Any], *, flush: bool = True) -> None:
    """Write indices as a grey PNG without a palette, 8 bits where they fit, else 16; atomic.

    `flush` is that of :func:`~medseg_paddle.io.files.write_bytes`.

    Raises
    ------
    DataError
        The array is not two-dimensional, not integer, or has values outside 0..65535.
    """
    if array.ndim != 2 or not (np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_):
        raise DataError(
            f"{path}: a label map is a 2-D integer array, got shape {array.shape} {array.dtype}",
            hint="write one slice at a time, as integers",
        )
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0 or high > 65535:
        raise DataError(f"{path}: labels {low}..{high} do not fit 16 bits", hint="number the classes from 0")
    write_bytes(path, png(array.astype(np.uint8 if high <= 255 else np.uint16)), flush=flush)


def write_image(path: Path, array: NDArray[Any], *, flush: bool = True) -> None:
    """Write a grey ``(height, width)`` or RGB ``(height, width, 3)`` uint8 or uint16 array as PNG; atomic.

    `flush` is that of :func:`~medseg_paddle.io.files.write_bytes`.
    """
    write_bytes(path, png(array), flush=flush)
