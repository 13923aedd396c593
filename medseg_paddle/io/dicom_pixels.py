"""Pixels of DICOM files, decoded into a file: runs in the child process of `io.isolated`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID

from medseg_paddle.errors import DataError
from medseg_paddle.io import dicom_jpeg12
from medseg_paddle.io.dicom_header import damage_refused, require_header
from medseg_paddle.io.isolated import Job


def decode(job: Job, pictures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Write the stored values of pictures one after another.

    Parameters
    ----------
    job : Job
    pictures : sequence of mapping
        What a :class:`~medseg_paddle.io.dicom_file.Raster` says of each.

    Returns
    -------
    list of dict
        ``offset`` in the file and ``dtype`` of each picture, in the order given.
    """
    dicom_jpeg12.add()
    places: list[dict[str, Any]] = [{} for _ in pictures]
    # In the order of the files: frames of one file are decoded in one go, wherever they lie in the volume.
    order = sorted(range(len(pictures)), key=lambda i: (pictures[i]["path"], pictures[i]["frame"]))
    end = 0
    for name, members in groupby(order, key=lambda i: str(pictures[i]["path"])):
        job.at(name)
        numbers = list(members)
        frames = _frames(Path(name), [pictures[i] for i in numbers])
        for number, stored in zip(numbers, frames, strict=True):
            job.goes_on()
            places[number] = {"offset": end, "dtype": stored.dtype.str}
            job.sink.write(stored.data)
            end += stored.nbytes
    return places


def _frames(path: Path, pictures: Sequence[Mapping[str, Any]]) -> Iterator[NDArray[Any]]:
    header = require_header(path)
    syntax = UID(str(header.file_meta.TransferSyntaxUID))
    _require_decoder(syntax, path)
    _require_whole(header, syntax, path)
    source: Path | pydicom.Dataset = path
    options: dict[str, Any] = {"transfer_syntax_uid": syntax}
    if syntax.is_deflated:
        # The one kind of file that pydicom cannot read piece by piece.
        with damage_refused(path):
            source, options = pydicom.dcmread(path), {}
    wanted = [int(one["frame"]) for one in pictures]
    indices = None if len(wanted) == int(pictures[0]["frames"]) else wanted
    found = _decoded(source, options, indices, path, syntax)
    for one in pictures:
        raw = next(found, None)
        if raw is None or raw.shape != tuple(one["size"]) or raw.dtype.kind not in "iu":
            shape = "nothing" if raw is None else f"{raw.dtype} pixels of shape {raw.shape}"
            raise DataError(
                f"{path} holds {shape}, its header says {tuple(one['size'])}", hint="export it again"
            )
        yield _low_bits(raw, int(one["bits"]), path)


def _decoded(
    source: Path | pydicom.Dataset,
    options: Mapping[str, Any],
    indices: list[int] | None,
    path: Path,
    syntax: UID,
) -> Iterator[NDArray[Any]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from iter_pixels(source, indices=indices, **options)
    except DataError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        # Of a decoder that stumbles, the words say nothing to who sent the file.
        said = "" if isinstance(error, (AttributeError, TypeError)) else f" ({error})"
        coded = f", compressed as {syntax.name}," if syntax.is_compressed else ""
        raise DataError(
            f"{path}: pixels{coded} are damaged, truncated or of a kind that is not read{said}",
            hint="copy the file again from its source, or export it without compression",
        ) from error


def _require_decoder(syntax: UID, path: Path) -> None:
    if not syntax.is_transfer_syntax:
        raise DataError(
            f"{path} is encoded as {syntax}, which is no transfer syntax that is known",
            hint="export it without compression",
        )
    if not syntax.is_compressed or syntax.is_deflated:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise DataError(
            f"{path} is compressed as {syntax.name} ({syntax}), for which there is no decoder",
            hint="export the series without compression, or decompress it first (for example with `gdcmconv --raw`)",
        )


def _require_whole(header: pydicom.Dataset, syntax: UID, path: Path) -> None:
    """Refuse a file that is shorter than the uncompressed pixels it declares, before memory is taken for them."""
    if syntax.is_compressed or syntax.is_deflated:
        return
    with damage_refused(path):
        frames = int(header.get("NumberOfFrames") or 1)
        declared = frames * int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    stored = path.stat().st_size
    if declared > stored:
        raise DataError(
            f"{path}: pixels are damaged, truncated or of a kind that is not read "
            f"(the header declares {declared:,} bytes, the whole file has {stored:,})",
            hint="copy the file again from its source",
        )


def _low_bits(raw: NDArray[Any], bits: int, path: Path) -> NDArray[Any]:
    """Take the `bits` low bits; the others may hold old overlays."""
    allocated = 8 * raw.dtype.itemsize
    if bits > allocated:
        raise DataError(f"{path}: {bits} bits stored in {allocated}", hint="export it again")
    # pydicom 3.0.2 corrects unused bits by itself, the first of 3.0 are not known to.
    # Shifting up and down again extends the sign for signed types and clears the rest for unsigned.
    shift = allocated - bits
    native = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray((native << shift) >> shift)
