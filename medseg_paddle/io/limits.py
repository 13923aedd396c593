"""How much one file may hold: a header that lies must not take the machine's memory."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from medseg_paddle.errors import DataError

# 1024 x 1024 x 1024: four times a CT of the whole body.
MAX_VALUES = 2**30

# Where Pillow refuses a picture.
MAX_PIXELS = 2 * 89_478_485

# zlib expands no byte to more than 1032 (https://zlib.net/zlib_tech.html); the slack is for headers.
_DEFLATE_RATIO = 1032
_DEFLATE_SLACK = 1024

_BLOCK = 1 << 20


class Readable(Protocol):
    """A binary file, also one that inflates itself."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


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


def copy_values(path: Path, blocks: Iterable[bytes], declared: int, target: IO[bytes]) -> None:
    """Write the values of a file, and refuse them where they are damaged or of another amount than declared.

    Parameters
    ----------
    path : Path
        The file, for messages.
    blocks : iterable of bytes
        The values, as :func:`plain_blocks` and :func:`inflated_blocks` give them.
    declared : int
        How many bytes they must be.
    target : file

    Raises
    ------
    DataError
    """
    total = 0
    try:
        for block in blocks:
            total += len(block)
            if total > declared:
                break
            target.write(block)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: its compressed values are damaged ({error})", hint="copy the file again from its source"
        ) from error
    if total != declared:
        raise DataError(
            f"{path} holds {'more than' if total > declared else 'only'} {min(total, declared):,} bytes of values, "
            f"but its header declares {declared:,}",
            hint="copy the file again from its source; it was cut short, or its header changed",
        )


def plain_blocks(stream: Readable, most: int | None = None) -> Iterator[bytes]:
    """What is left of a file, or `most` bytes of it, little by little."""
    left = most
    while block := stream.read(_BLOCK if left is None else min(left, _BLOCK)):
        left = None if left is None else left - len(block)
        yield block


def inflated_blocks(stream: Readable) -> Iterator[bytes]:
    """What is left of a file, inflated (zlib or gzip, one piece), little by little; EOFError where it is cut short."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
    while not inflate.eof:
        block = inflate.unconsumed_tail or stream.read(_BLOCK)
        if not block:
            raise EOFError("cut short")
        yield inflate.decompress(block, _BLOCK)


def require_small(path: Path, offset: int, *, most: int) -> None:
    """Refuse a deflated file (without zlib's header) that would inflate to more than `most` bytes.

    Raises
    ------
    DataError
    """
    total = 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            while not inflate.eof and total <= most:
                block = inflate.unconsumed_tail or stream.read(_BLOCK)
                if not block:
                    break
                total += len(inflate.decompress(block, _BLOCK))
    except (OSError, zlib.error) as error:
        raise DataError(
            f"{path}: its compressed values are damaged ({error})", hint="copy the file again from its source"
        ) from error
    if total > most:
        raise DataError(
            f"{path} inflates to more than {most:,} bytes", hint="copy the file again from its source"
        )
