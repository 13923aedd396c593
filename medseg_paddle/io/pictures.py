"""Picture files decoded strictly: PNG, JPEG, TIFF, GIF and BMP, one page or many.

Nothing is guessed: a picture that would need a conversion that loses or invents something (alpha,
EXIF rotation, colour to grey, float intensities) is refused with what to do.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from medseg_paddle.errors import DataError
from medseg_paddle.io.limits import require_amount

_FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP")
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_PHOTOMETRIC = 262
_TIFF_DESCRIPTION = 270
_TIFF_SAMPLE_FORMAT = 339
_COLORS_SHOWN = 8
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


def decode(path: Path, *, keep_palette: bool = False) -> NDArray[Any]:
    """Decode a picture of one page to HW bool, uint8, uint16, int32 or float32, or HW3 uint8 or uint16 (RGB).

    Parameters
    ----------
    path : Path
    keep_palette : bool
        Give the indices of a palette picture, not its colours; refuse JPEG, which changes indices.

    Raises
    ------
    DataError
        As for :func:`~medseg_paddle.io.images.read_image`, but for what it says of channels and samples.
    """
    data = read_data(path)
    with _opened(path, data) as picture:
        pages = getattr(picture, "n_frames", 1)
        if pages > 1:
            raise DataError(
                f"{path} holds {pages} pages or frames, one picture is read",
                hint="save each page as a file of its own",
            )
        return _page(picture, data, path, keep_palette=keep_palette)


def decode_pages(path: Path, *, keep_palette: bool = False) -> Iterator[NDArray[Any]]:
    """Decode the pages of a TIFF one by one, as :func:`decode` does with one; they are of one size and kind.

    Raises
    ------
    DataError
        See :func:`~medseg_paddle.io.stacks.read_stack`.
    """
    data = read_data(path)
    with _opened(path, data) as picture:
        if picture.format != "TIFF":
            raise DataError(
                f"{path} is {picture.format}, a stack of pages is a TIFF",
                hint="save the stack as multi-page TIFF",
            )
        pages = picture.n_frames
        _require_whole_stack(picture, pages, path)
        require_amount(path, (pages, picture.height, picture.width, len(picture.getbands())))
        first = ""
        for index in range(pages):
            picture.seek(index)
            # Before a page is decoded: the pages together have the size that was just allowed.
            kind = f"{picture.width} x {picture.height} {picture.mode}, {_bits(picture, data)} bits"
            if kind != (first := first or kind):
                raise DataError(
                    f"{path}: page {index + 1} is {kind}, the first {first}",
                    hint="save pages of one size and kind; thumbnails belong into files of their own",
                )
            yield _page(picture, data, path, keep_palette=keep_palette)


def samples(path: Path) -> int:
    """How many samples a pixel has by a picture's header, without alpha; those of a palette have three.

    Raises
    ------
    DataError
        The file cannot be read or is no picture.
    """
    with _opened(path, read_data(path)) as picture:
        return 3 if picture.mode == "P" else len(set(picture.getbands()) - {"A"})


def palette(path: Path) -> NDArray[np.uint8] | None:
    """Colours of a palette picture by index, ``(entries, 3)``; None for a picture without palette.

    Raises
    ------
    DataError
        The file cannot be read or is no picture.
    """
    with _opened(path, read_data(path)) as picture:
        if picture.mode != "P":
            return None
        return np.array(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)


def intensities(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Samples of 8 or 16 bits, black and white as 0 and 255; a DataError for others."""
    if np.issubdtype(array.dtype, np.floating) or array.dtype.itemsize > 2:
        raise DataError(
            f"{path}: {array.dtype} samples, 8 or 16 bits are read",
            hint="scale the picture to 8 or 16 bits on purpose, so that its values have a meaning",
        )
    return array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array


def indices(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Class indices ``(height, width)``, uint8 or uint16; a DataError for colour, float and wide integers."""
    array = grey_if_equal(array)
    if array.ndim == 3:
        raise DataError(
            f"{path} is a picture in colour, a label map holds one class index per pixel: {_colors(array)}",
            hint="save it as an 8-bit grey or palette PNG, 0 for the background and 1, 2, ... for classes; "
            "`medseg prepare` reads colours, too: say in `prepare` which class each is, such as "
            "`label_colors: {0 0 0: 0, 255 0 0: 1}`",
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


def _colors(array: NDArray[Any]) -> str:
    """The most frequent colours with their pixels, for people."""
    colors, counts = np.unique(array.reshape(-1, array.shape[2]), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown = [
        f"{' '.join(map(str, colors[place]))} ({counts[place]} pixels)" for place in order[:_COLORS_SHOWN]
    ]
    more = f" and {len(colors) - _COLORS_SHOWN} more colours" if len(colors) > _COLORS_SHOWN else ""
    return ", ".join(shown) + more


def grey_if_equal(array: NDArray[Any]) -> NDArray[Any]:
    """One channel of a picture that stores grey as three equal channels; others as they are."""
    if array.ndim == 3 and (array[:, :, :1] == array).all():
        return array[:, :, 0]
    return array


def png(array: NDArray[Any]) -> bytes:
    """A grey ``(height, width)`` or RGB ``(height, width, 3)`` uint8 or uint16 array as the bytes of a PNG."""
    if array.ndim == 3 and array.dtype == np.uint16:  # a kind that Pillow does not write
        _, encoded = cv2.imencode(".png", array[:, :, ::-1])
        return bytes(encoded.tobytes())
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG")
    return buffer.getvalue()


def read_data(path: Path) -> bytes:
    """The bytes of a file; a DataError where it cannot be read or is empty."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="check the path and the file's permissions",
        ) from error
    if not data:
        raise DataError(f"{path} is empty", hint="copy the file again from its source")
    return data


@contextlib.contextmanager
def _opened(path: Path, data: bytes) -> Iterator[Any]:
    """Pillow's picture of some bytes; its errors, while it is open too, become DataErrors."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            yield picture
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


def _page(picture: Any, data: bytes, path: Path, *, keep_palette: bool) -> NDArray[Any]:
    picture.load()
    _require_plain(picture, path)
    return _samples(picture, data, path, keep_palette=keep_palette)


def _require_whole_stack(picture: Any, pages: int, path: Path) -> None:
    """Refuse what ImageJ says in words alone: more images than pages, channels among the slices.

    Above 4 GB it writes one directory and puts the other images behind the first; its hyperstacks put
    channels, slices and times in turn into pages.
    """
    description = picture.tag_v2.get(_TIFF_DESCRIPTION, "")
    if not str(description).startswith("ImageJ="):
        return
    said = {
        key: int(value)
        for key, value in re.findall(r"(?m)^(images|channels|slices|frames)=(\d{1,9})", description)
    }
    if said.get("images", pages) != pages:
        raise DataError(
            f"{path}: ImageJ's description says {said['images']} images, the file's directory {pages}",
            hint="save the stack from ImageJ in parts below 4 GB",
        )
    axes = [f"{said[axis]} {axis}" for axis in ("channels", "slices", "frames") if said.get(axis, 1) > 1]
    if len(axes) > 1:
        raise DataError(
            f"{path} is a hyperstack of {', '.join(axes)}: its pages are not of one kind",
            hint="save each channel and each time as a stack of its own",
        )


def _samples(picture: Image.Image, data: bytes, path: Path, *, keep_palette: bool) -> NDArray[Any]:
    if keep_palette and picture.format == "JPEG":
        raise DataError(
            f"{path} is a JPEG, whose compression changes class indices",
            hint="export the mask from its source again as PNG",
        )
    if picture.mode == "P" and keep_palette:
        stored = np.asarray(picture)
        _require_rising_greys(path, stored, picture.getpalette("RGB") or [])
        return stored
    if picture.mode == "P":
        return np.asarray(picture.convert("RGB"))
    if picture.mode.startswith("I"):
        return _integers(picture, data)
    if picture.mode.startswith("RGB") and _bits(picture, data) == 16:
        # Pillow keeps only the high byte of 16-bit colour; it has just proved the file whole.
        return _decode_deep_colour(data, path, picture.tell() if picture.format == "TIFF" else 0)
    plain = {"LA": "L", "RGBA": "RGB", "YCbCr": "RGB"}.get(picture.mode, picture.mode)
    if plain not in ("1", "L", "RGB", "F"):
        raise DataError(
            f"{path} is a {picture.mode} picture, grey and RGB are read", hint="save it as grey or RGB PNG"
        )
    return np.asarray(picture.convert(plain))


def _require_plain(picture: Image.Image, path: Path) -> None:
    """Refuse what would have to be guessed: a rotation in the header, transparency."""
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


def _require_rising_greys(path: Path, stored: NDArray[Any], colors: list[int]) -> None:
    """Refuse indices into greys that are not in order, as programs leave them that reduce a mask's colours."""
    used = np.flatnonzero(np.bincount(stored.ravel()))
    shown = np.array(colors, dtype=int).reshape(-1, 3)
    if used[-1] >= len(shown):
        raise DataError(f"{path} has an index beyond its palette", hint="export the mask again")
    shown = shown[used]
    if (shown == shown[:, :1]).all() and (np.diff(shown[:, 0]) < 0).any():
        pairs = ", ".join(
            f"{index} is grey {grey}" for index, grey in zip(used[:4], shown[:4, 0], strict=True)
        )
        line = ", ".join(f"{grey} {grey} {grey}: ?" for grey in sorted(set(shown[:4, 0].tolist())))
        raise DataError(
            f"{path} has a palette of greys that are not in rising order ({pairs}): its indices are no classes",
            hint=f"say in `prepare` which class each grey is, `label_colors: {{{line}}}`, or save it as grey PNG",
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


def _decode_deep_colour(data: bytes, path: Path, page: int) -> NDArray[Any]:
    _, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(page, page + 1))
    decoded = pages[0] if pages else None
    if decoded is None or decoded.ndim != 3 or decoded.dtype != np.uint16:
        raise DataError(f"{path}: 16-bit colour of a kind that is not read", hint="save it as 8-bit RGB PNG")
    return np.asarray(decoded[:, :, 2::-1])
