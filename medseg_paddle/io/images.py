"""Pictures in and out: PNG, JPEG, TIFF, GIF and BMP, read strictly.

Nothing is guessed: a picture that would need a conversion that loses or invents something (alpha,
EXIF rotation, colour to grey, float intensities, a stack of pages) is refused with what to do.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medseg_paddle.errors import DataError
from medseg_paddle.io.files import write_bytes

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")

_FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP")
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_TIFF_SAMPLE_FORMAT = 339
_PNG_BIT_DEPTH_OFFSET = 24  # signature 8, length 4, "IHDR" 4, width 4, height 4 (PNG specification, 11.2.2)

# What Pillow's decoders raise on damaged files.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)


def read_image(path: Path, channels: int) -> NDArray[np.float32]:
    """Read a picture's intensities.

    Parameters
    ----------
    path : Path
        PNG, JPEG, TIFF, GIF or BMP with 8 or 16 bits a sample.
    channels : int
        1 (grey) or 3 (red, green, blue). A grey file is repeated for 3; a file in colour is not
        turned grey for 1, while one that merely stores grey as three equal channels is taken.

    Returns
    -------
    ndarray, shape (height, width, channels), float32
        0..255; 8-bit values as they are, 16-bit values divided by 257.

    Raises
    ------
    DataError
        Missing, empty, truncated or not a picture; transparent; rotated by EXIF only; in colour for
        ``channels=1``; float or 32-bit samples; several pages.
    """
    samples = read_samples(path)
    scaled = samples.astype(np.float32)
    if samples.dtype == np.uint16:
        scaled /= 257.0
    if scaled.ndim == 3 and channels == 1:
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
    array = _grey_if_equal(_decode(path))
    if np.issubdtype(array.dtype, np.floating) or array.dtype.itemsize > 2:
        raise DataError(
            f"{path}: {array.dtype} samples, 8 or 16 bits are read",
            hint="scale the picture to 8 or 16 bits on purpose, so that its values have a meaning",
        )
    return array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array


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
    array = _grey_if_equal(_decode(path, keep_palette=True))
    if array.ndim == 3:
        raise DataError(
            f"{path} is a picture in colour, a label map holds one class index per pixel",
            hint="save it as an 8-bit grey or palette PNG, 0 for the background and 1, 2, ... for classes",
        )
    if np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"{path} holds {array.dtype} values, a label map holds integers",
            hint="round or threshold the mask on purpose and save it as an 8-bit PNG",
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype.itemsize > 2:
        raise DataError(
            f"{path} holds {array.dtype} values, labels are 8 or 16 bits",
            hint="save the mask as an 8-bit PNG",
        )
    return array


def read_roi(path: Path) -> NDArray[np.bool_]:
    """Read a region of interest: true where the picture is not 0.

    Returns
    -------
    ndarray, shape (height, width), bool
    """
    return np.asarray(read_label(path) != 0)


def write_label(path: Path, array: NDArray[Any]) -> None:
    """Write indices as a grey PNG without a palette, 8 bits where they fit, else 16; atomic.

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
    _write_png(path, array.astype(np.uint8 if high <= 255 else np.uint16))


def write_image(path: Path, array: NDArray[Any]) -> None:
    """Write a grey ``(height, width)`` or RGB ``(height, width, 3)`` uint8 or uint16 array as PNG; atomic."""
    if array.ndim == 3 and array.dtype == np.uint16:  # a kind that Pillow does not write
        _, encoded = cv2.imencode(".png", array[:, :, ::-1])
        write_bytes(path, encoded.tobytes())
    else:
        _write_png(path, array)


def _write_png(path: Path, array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _decode(path: Path, *, keep_palette: bool = False) -> NDArray[Any]:
    """Decode to HW bool, uint8, uint16, int32 or float32, or HW3 uint8 or uint16 (RGB)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="check the path and the file's permissions",
        ) from error
    if not data:
        raise DataError(f"{path} is empty", hint="copy the file again from its source")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            picture.load()
            _require_plain(picture, path)
            return _samples(picture, data, path, keep_palette=keep_palette)
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path} is not a PNG, JPEG, TIFF, GIF or BMP picture",
            hint="convert it to PNG, or leave it out of the data set",
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large: {error}", hint="cut the picture into tiles") from error
    except _DECODE_ERRORS as error:
        raise DataError(
            f"{path} is damaged or truncated ({error})", hint="copy the file again from its source"
        ) from error


def _samples(picture: Image.Image, data: bytes, path: Path, *, keep_palette: bool) -> NDArray[Any]:
    if keep_palette and picture.format == "JPEG":
        raise DataError(
            f"{path} is a JPEG, whose compression changes class indices",
            hint="export the mask from its source again as PNG",
        )
    if picture.mode == "P":
        return np.asarray(picture if keep_palette else picture.convert("RGB"))
    if picture.mode.startswith("I"):
        return _integers(picture, data)
    if picture.mode.startswith("RGB") and _bits(picture, data) == 16:
        # Pillow keeps only the high byte of 16-bit colour; it has just proved the file whole.
        return _decode_deep_colour(data, path)
    plain = {"LA": "L", "RGBA": "RGB", "YCbCr": "RGB"}.get(picture.mode, picture.mode)
    if plain not in ("1", "L", "RGB", "F"):
        raise DataError(
            f"{path} is a {picture.mode} picture, grey and RGB are read", hint="save it as grey or RGB PNG"
        )
    return np.asarray(picture.convert(plain))


def _require_plain(picture: Image.Image, path: Path) -> None:
    """Refuse what would have to be guessed: several pages, a rotation in the header, transparency."""
    pages = getattr(picture, "n_frames", 1)
    if pages > 1:
        raise DataError(
            f"{path} holds {pages} pages or frames, one picture is read",
            hint="save each page as a file of its own",
        )
    orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
    if orientation not in (0, 1):
        raise DataError(
            f"{path} is turned by its EXIF orientation ({orientation}); its pixels are not upright",
            hint="re-save the picture upright so that every program sees the same, and check its label",
        )
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        alpha = np.asarray(picture.convert("RGBA"))[:, :, 3]
        if alpha.min() < 255:
            raise DataError(
                f"{path} is partly transparent (alpha down to {alpha.min()})",
                hint="save it without an alpha channel, on the background you mean",
            )
    if picture.format == "TIFF" and _bits(picture, b"") > 8 and _tiff_tag(picture, _TIFF_PHOTOMETRIC, 1) == 0:
        raise DataError(
            f"{path} is an inverted TIFF (white is zero) with more than 8 bits",
            hint="save it with black as zero",
        )


def _bits(picture: Image.Image, data: bytes) -> int:
    """Bits per sample as stored."""
    if picture.format == "PNG" and data:
        return data[_PNG_BIT_DEPTH_OFFSET]
    if picture.format == "TIFF":
        return int(_tiff_tag(picture, _TIFF_BITS_PER_SAMPLE, 1))
    return 8


def _tiff_tag(picture: Image.Image, tag: int, default: int) -> int:
    value = picture.tag_v2.get(tag, default)  # type: ignore[attr-defined]
    return int(value[0] if isinstance(value, tuple) else value)


def _integers(picture: Image.Image, data: bytes) -> NDArray[Any]:
    array = np.asarray(picture)
    if array.dtype == np.uint16:
        return array
    # Pillow before 11.3 decodes 16-bit grey PNG to 32-bit integers.
    signed = picture.format == "TIFF" and _tiff_tag(picture, _TIFF_SAMPLE_FORMAT, 1) == 2
    if _bits(picture, data) == 16 and not signed:
        return array.astype(np.uint16)
    return array.astype(np.int32)


def _decode_deep_colour(data: bytes, path: Path) -> NDArray[Any]:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.ndim != 3 or decoded.dtype != np.uint16:
        raise DataError(f"{path}: 16-bit colour of a kind that is not read", hint="save it as 8-bit RGB PNG")
    return np.asarray(decoded[:, :, 2::-1])


def _grey_if_equal(array: NDArray[Any]) -> NDArray[Any]:
    """One channel of a picture that stores grey as three equal channels."""
    if array.ndim == 3 and (array[:, :, :1] == array).all():
        return array[:, :, 0]
    return array
