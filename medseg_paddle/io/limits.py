"""How much one file may hold: a header that lies must not take the machine's memory."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path

from medseg_paddle.errors import DataError

# 1024 x 1024 x 1024: four times a CT of the whole body.
MAX_VALUES = 2**30

# Where Pillow refuses a picture.
MAX_PIXELS = 2 * 89_478_485

# zlib expands no byte to more than 1032 (https://zlib.net/zlib_tech.html); the slack is for headers.
_DEFLATE_RATIO = 1032
_DEFLATE_SLACK = 1024

_BLOCK = 1 << 20


def require_amount(path: Path, shape: Sequence[int], *, most: int = MAX_VALUES) -> None:
    """Refuse a shape that holds nothing, or more than `most` values, before memory is taken for it.

    Raises
    ------
    DataError
    """
    size = " x ".join(str(length) for length in shape)
    if min(shape, default=0) < 1:
        raise DataError(
            f"{path} declares a size of {size}: nothing in it", hint="copy the file again from its source"
        )
    if math.prod(shape) > most:
        raise DataError(
            f"{path} declares a size of {size}, more than the {most:,} values that are read from one file",
            hint="cut it into parts, or copy the file again if it should be smaller",
        )


def require_bytes(path: Path, declared: int, stored: int, *, compressed: bool) -> None:
    """Refuse a file that cannot hold what its header declares, before memory is taken for it.

    Parameters
    ----------
    path : Path
    declared : int
        Bytes of the values by the header.
    stored : int
        Bytes in the file for them.
    compressed : bool
        By deflate (zlib, gzip); else `stored` must be `declared`.

    Raises
    ------
    DataError
    """
    fits = declared <= stored * _DEFLATE_RATIO + _DEFLATE_SLACK if compressed else declared == stored
    if not fits:
        raise DataError(
            f"{path} holds {max(stored, 0):,} bytes{' of compressed values' if compressed else ''}, "
            f"but its header declares {declared:,}",
            hint="copy the file again from its source; it was cut short, or its header changed",
        )


def require_inflated(path: Path, offset: int, declared: int) -> None:
    """Refuse compressed values that are damaged, or of another amount than declared; little memory is used.

    Parameters
    ----------
    path : Path
        The file that ends with the compressed values.
    offset : int
        Where they begin.
    declared : int
        Bytes that they must inflate to.

    Raises
    ------
    DataError
    """
    total, ended = _inflate(path, offset, zlib.MAX_WBITS | 32, declared)  # zlib's or gzip's header
    if total != declared or not ended:
        amount = "more than" if total > declared else "only"
        raise DataError(
            f"{path} holds {amount} {min(total, declared):,} bytes of values, but its header declares {declared:,}",
            hint="copy the file again from its source; it was cut short, or its header changed",
        )


def require_small(path: Path, offset: int, *, most: int) -> None:
    """Refuse a deflated file (without zlib's header) that would inflate to more than `most` bytes.

    Raises
    ------
    DataError
    """
    total, _ = _inflate(path, offset, -zlib.MAX_WBITS, most)
    if total > most:
        raise DataError(
            f"{path} inflates to more than {most:,} bytes", hint="copy the file again from its source"
        )


def _inflate(path: Path, offset: int, form: int, limit: int) -> tuple[int, bool]:
    """Bytes that the end of a file inflates to (counted to little more than `limit`), and whether it is whole."""
    total = 0
    inflate = zlib.decompressobj(form)
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            while not inflate.eof and total <= limit:
                block = inflate.unconsumed_tail or stream.read(_BLOCK)
                if not block:
                    break
                total += len(inflate.decompress(block, _BLOCK))
    except (OSError, zlib.error) as error:
        raise DataError(
            f"{path}: its compressed values are damaged ({error})", hint="copy the file again from its source"
        ) from error
    return total, inflate.eof
