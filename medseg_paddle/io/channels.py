"""Pictures of any number of channels."""

from __future__ import annotations

import io
import math
import struct
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from medseg_paddle.errors import DataError
from medseg_paddle.io.files import write_bytes
from medseg_paddle.io.limits import require_amount, require_bytes
from medseg_paddle.io.pictures import decode, grey_if_equal, intensities, png, read_data
from medseg_paddle.io.stacks import read_stack

ARRAY_SUFFIX = ".npy"

# What numpy raises on damaged headers: they are Python's notation, and are parsed as such.
_ARRAY_ERRORS = (
    OSError, ValueError, EOFError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError,
)  # fmt: skip

_TIFF_SUFFIXES = (".tif", ".tiff")
_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _SAMPLES, _EXTRA, _FORMAT = 256, 257, 258, 274, 277, 338, 339
_ALPHA = (1, 2)  # of _EXTRA, TIFF 6.0, section 18


def picture_suffix(channels: int) -> str:
    """Ending of a prepared picture's file: ``".png"`` for 1 and 3 channels, ``".npy"`` else."""
    return ".png" if channels in (1, 3) else ARRAY_SUFFIX


def read_channels(paths: Sequence[Path]) -> NDArray[Any]:
    """Read the channels of one picture: from one file per channel, or all from one file.

    Parameters
    ----------
    paths : sequence of Path
        Several: one grey picture each, in the order of the channels. One: a picture (grey is one
        channel, colour three, also where all three are equal), a multi-page TIFF (a page is a
        channel), a TIFF of several samples per pixel, or ``.npy`` of shape (height, width, channels).

    Returns
    -------
    ndarray, shape (height, width, channels), uint8 or uint16
        As stored.

    Raises
    ------
    DataError
        Channels of several sizes or depths, a file in colour among several, an array of another dtype
        or shape, or one that is larger or smaller than its header says; and as for
        :func:`~medseg_paddle.io.images.read_samples`.
    """
    if len(paths) == 1:
        return _read_one(paths[0])
    if not paths:
        raise DataError("a picture without files", hint="name at least one file per picture")
    channels = [_read_grey(path) for path in paths]
    first = channels[0]
    for path, channel in zip(paths, channels, strict=True):
        if (channel.shape, channel.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"channels of one picture differ: {paths[0]} is {_described(first)}, {path} {_described(channel)}",
                hint="bring all channels to one size and one number of bits",
            )
    return np.stack(channels, axis=-1)


def write_channels(path: Path, array: NDArray[Any], *, flush: bool = True) -> None:
    """Write a picture ``(height, width, channels)``, uint8 or uint16; atomic.

    Parameters
    ----------
    path : Path
        ``.png`` for 1 or 3 channels, ``.npy`` for any number.
    flush : bool
        As for :func:`~medseg_paddle.io.files.write_bytes`.

    Raises
    ------
    DataError
        The array is of another shape or dtype, or does not fit the ending.
    """
    if array.ndim != 3 or 0 in array.shape or array.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path}: a picture is (height, width, channels) of 8 or 16 bits, got {array.shape} {array.dtype}",
            hint="scale the picture to 8 or 16 bits on purpose",
        )
    suffix = path.suffix.lower()
    if suffix == ".png" and picture_suffix(array.shape[2]) == ".png":
        write_bytes(path, png(array[:, :, 0] if array.shape[2] == 1 else array), flush=flush)
    elif suffix == ARRAY_SUFFIX:
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        write_bytes(path, buffer.getvalue(), flush=flush)
    else:
        raise DataError(
            f"{path} cannot hold {array.shape[2]} channels",
            hint=f"let it end in {picture_suffix(array.shape[2])}",
        )


def _read_one(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ARRAY_SUFFIX:
        return _read_array(path)
    if suffix in _TIFF_SUFFIXES:
        layout = _layout(path)
        if layout is not None and layout.shape[2] not in (1, 3) and not layout.alpha:
            return _read_samples(path, layout)
        if layout is not None and layout.more_pages:
            pages = read_stack(path)
            if pages.ndim == 4:
                raise DataError(
                    f"{path} holds {len(pages)} pages in colour, a channel is a grey page",
                    hint="save one grey page per channel",
                )
            return np.ascontiguousarray(np.moveaxis(pages, 0, -1))
    picture = intensities(path, decode(path))
    return picture[:, :, None] if picture.ndim == 2 else picture


def _read_grey(path: Path) -> NDArray[Any]:
    if path.suffix.lower() == ARRAY_SUFFIX:
        array = _read_array(path)
        picture = array[:, :, 0] if array.shape[2] == 1 else array
    else:
        picture = intensities(path, grey_if_equal(decode(path)))
    if picture.ndim != 2:
        raise DataError(
            f"{path} is one of several files of a picture, and has {picture.shape[2]} channels itself",
            hint="name one grey file per channel, or one file with all channels",
        )
    return picture


def _read_array(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as stream:
            form: Any = np.lib.format
            # Version 3 is for names that are not Latin-1; a picture has none.
            read = (
                form.read_array_header_1_0
                if form.read_magic(stream) == (1, 0)
                else form.read_array_header_2_0
            )
            shape, _, dtype = read(stream)
            offset = stream.tell()
        if dtype.kind != "u" or dtype.itemsize > 2 or len(shape) != 3:
            raise DataError(
                f"{path} is an array of shape {shape} {dtype}; a picture is (height, width, channels), uint8 or uint16",
                hint="save it so, with numpy.save",
            )
        require_amount(path, shape)
        stored = path.stat().st_size - offset
        require_bytes(path, math.prod(shape) * dtype.itemsize, stored, compressed=False)
        array = np.load(path, allow_pickle=False)
    except _ARRAY_ERRORS as error:
        raise DataError(
            f"{path} is missing, damaged or not an array of numpy's ({error})",
            hint="check the path, or write the file again",
        ) from error
    return np.ascontiguousarray(array, dtype=np.uint8 if dtype.itemsize == 1 else np.uint16)


@dataclass(frozen=True)
class _Layout:
    """How the samples of a TIFF's first page lie."""

    shape: tuple[int, int, int]
    bits: frozenset[int]
    plain: bool  # integers without sign, upright
    alpha: bool
    more_pages: bool


def _layout(path: Path) -> _Layout | None:
    """None where the file is no TIFF, or too damaged for Pillow as well."""
    data = read_data(path)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:16] if data[2:3] == b"+" else data[:8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        shape = (int(tags[_HEIGHT]), int(tags[_WIDTH]), int(tags.get(_SAMPLES, 1)))
        extra = tuple(tags.get(_EXTRA, ()))
        return _Layout(
            shape,
            frozenset(int(bits) for bits in tags.get(_BITS, (1,))),
            plain=set(tags.get(_FORMAT, (1,))) == {1} and int(tags.get(_ORIENTATION, 1)) == 1,
            alpha=shape[2] in (2, 4) and bool(extra) and extra[-1] in _ALPHA,
            more_pages=bool(tags.next),
        )
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return None


def _read_samples(path: Path, layout: _Layout) -> NDArray[Any]:
    """Channels as samples, which Pillow and OpenCV do not read beyond four."""
    samples = layout.shape[2]
    if not layout.plain or layout.more_pages or layout.bits not in ({8}, {16}):
        raise DataError(
            f"{path} holds {samples} samples per pixel, of {sorted(layout.bits)} bits; read is one page of 8 or "
            "16 bits without sign, upright",
            hint="save it as .npy, or one file per channel",
        )
    require_amount(path, layout.shape)
    declared = math.prod(layout.shape) * max(layout.bits) // 8
    require_bytes(path, declared, path.stat().st_size, compressed=True)
    # Here, since every process that loads pictures imports this module, and few meet such a file.
    import SimpleITK as sitk  # noqa: N813, PLC0415

    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="TIFFImageIO"))
    except RuntimeError as error:
        raise DataError(
            f"{path} is damaged, or a TIFF of a kind that is not read ({str(error).strip().splitlines()[-1]})",
            hint="save it as .npy, or one file per channel",
        ) from error
    if array.shape != layout.shape:
        raise DataError(
            f"{path}: ITK finds a shape of {array.shape} in it, its header says {layout.shape}",
            hint="save it as .npy, or one file per channel",
        )
    return array


def _described(array: NDArray[Any]) -> str:
    return f"{array.shape[0]} x {array.shape[1]} pixels of {8 * array.dtype.itemsize} bits"
