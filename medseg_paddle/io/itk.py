"""NRRD and MetaImage volumes, ITK's formats.

ITK itself takes much in silence: a file without orientation lies straight, compressed values of another amount
than declared leave memory as it was, sheared axes lose their shear. So it is not used: headers are read strictly,
what would have to be guessed is refused, and the values are copied little by little.

Formats: https://teem.sourceforge.net/nrrd/format.html and https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Geometry
from medseg_paddle.errors import DataError
from medseg_paddle.io.limits import copy_values, inflated_blocks, plain_blocks, require_amount, require_bytes
from medseg_paddle.io.stored import StoredSlices
from medseg_paddle.io.voxels import grid_of

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")

# Slicer writes a line or more for every segment.
_MAX_HEADER_BYTES = 1 << 20

# Direction cosines are often written with four digits.
_COSINE_TOLERANCE = 1e-3

_NRRD_TYPES = {
    name: kind
    for kind, names in (
        ("i1", "signed char|int8|int8_t"),
        ("u1", "uchar|unsigned char|uint8|uint8_t"),
        ("i2", "short|short int|signed short|signed short int|int16|int16_t"),
        ("u2", "ushort|unsigned short|unsigned short int|uint16|uint16_t"),
        ("i4", "int|signed int|int32|int32_t"),
        ("u4", "uint|unsigned int|uint32|uint32_t"),
        ("i8", "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t"),
        ("u8", "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t"),
        ("f4", "float"),
        ("f8", "double"),
    )
    for name in names.split("|")
}
_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_FLOAT": "f4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_DOUBLE": "f8",
}  # fmt: skip
_NRRD_END = r"\r?\n\r?\n"
_NRRD_TO_LPS = {
    name: signs
    for names, signs in (
        (("left-posterior-superior", "lps"), (1, 1, 1)),
        (("right-anterior-superior", "ras"), (-1, -1, 1)),
        (("left-anterior-superior", "las"), (1, -1, 1)),
    )
    for name in names
}


@dataclass(frozen=True, eq=False)
class _Header:
    """What a header says, as far as it is read."""

    sizes: tuple[int, ...]  # fastest index first
    dtype: np.dtype[Any]
    compressed: bool
    data: Path
    offset: int  # of the values in `data`
    axes: NDArray[np.float64]  # step of each index in LPS mm, a row each
    origin: NDArray[np.float64]  # LPS mm


def read_itk(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a NRRD or MetaImage volume.

    Returns
    -------
    array : ndarray
        ``array[slice, row, column]`` = the file's ``[k, j, i]``, in the file's dtype.
    geometry : Geometry

    Raises
    ------
    DataError
        As for :func:`~medseg_paddle.io.volumes.read_volume`.
    """
    with open_itk(path) as (stored, geometry):
        return stored.whole(), geometry


@contextlib.contextmanager
def open_itk(path: Path) -> Iterator[tuple[StoredSlices, Geometry]]:
    """As :func:`read_itk`, for its slices to be taken one at a time; little memory is used."""
    header = (_nrrd_header if path.name.lower().endswith(NRRD_SUFFIXES) else _meta_header)(path)
    require_amount(path, header.sizes)
    _require_square_axes(path, header.axes)
    declared = math.prod(header.sizes) * header.dtype.itemsize
    stored = header.data.stat().st_size - header.offset
    require_bytes(header.data, declared, stored, compressed=header.compressed)
    affine = np.eye(4)
    affine[:3, :3] = header.axes[::-1].T
    affine[:3, 3] = header.origin
    columns, rows, count = header.sizes
    geometry = grid_of(path, (count, rows, columns), affine)
    with StoredSlices.collected((rows, columns), count, header.dtype) as slices:
        with header.data.open("rb") as stream:
            stream.seek(header.offset)
            blocks = inflated_blocks(stream) if header.compressed else plain_blocks(stream)
            copy_values(header.data, blocks, declared, slices.file)
        yield slices, geometry


def nrrd_segment_names(path: Path) -> dict[int, str]:
    """Label value to name of the segments that 3D Slicer writes into a NRRD header; empty where it has none.

    Raises
    ------
    DataError
        The file cannot be read, or its header has no end.
    """
    text, _ = _header_text(path, _NRRD_END, may_end_with_file=path.name.lower().endswith(".nhdr"))
    said = dict(re.findall(r"(?m)^(Segment\d+_(?:Name|LabelValue)):=([^\r\n]*)", text))
    return {
        int(value): said[key.replace("LabelValue", "Name")].strip()
        for key, value in said.items()
        if key.endswith("LabelValue")
        and value.strip().isdigit()
        and key.replace("LabelValue", "Name") in said
    }


def _require_square_axes(path: Path, axes: NDArray[np.float64]) -> None:
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(axes, axis=1)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise DataError(
            f"{path}: spacing {' x '.join(f'{length:g}' for length in lengths)} mm must be finite and above 0",
            hint="export the volume again from its source; the spacing cannot be guessed",
        )
    cosines = (axes / lengths[:, None]) @ (axes / lengths[:, None]).T
    if np.abs(cosines - np.eye(3)).max() > _COSINE_TOLERANCE:
        raise DataError(
            f"{path}: its axes are not at right angles (sheared, for example by gantry tilt)",
            hint="resample the volume to a grid at right angles",
        )


def _nrrd_header(path: Path) -> _Header:
    text, end = _header_text(path, _NRRD_END, may_end_with_file=path.name.lower().endswith(".nhdr"))
    if not re.match(r"NRRD000[1-5]\r?\n", text):
        raise DataError(f"{path} is not NRRD (no NRRD mark)", hint="copy the file again from its source")
    lines = [line for line in text.splitlines()[1:] if line and line[0] != "#" and ":=" not in line]
    fields = _fields(path, lines, ":")
    sizes = _integers(path, "sizes", fields)
    if fields.get("dimension") != "3" or len(sizes) != 3:
        raise _not_three_dimensional(path, sizes)
    kinds = set(fields.get("kinds", "").split()) - {"domain", "space", "???", "none"}
    if kinds:
        raise DataError(
            f"{path} has an axis of kind {', '.join(sorted(kinds))}, a volume has three of space",
            hint="save each time point or channel as a volume of its own",
        )
    signs = np.array(_NRRD_TO_LPS.get(fields.get("space", "").lower(), ()))
    if not signs.size:
        raise DataError(
            f"{path} does not say how it lies in the patient (space: {fields.get('space', 'missing')})",
            hint="export it again with orientation (3D Slicer writes it), or set `space`, `space directions` and "
            "`space origin` on purpose",
        )
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", ""))) - {"mm", ""}
    if units:
        raise DataError(f"{path} is measured in {', '.join(sorted(units))}", hint="save it in millimetres")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise DataError(
            f"{path} is encoded as {encoding or 'nothing stated'}; raw and gzip are read",
            hint="save it as gzip",
        )
    if any(fields.get(key, "0") != "0" for key in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise DataError(f"{path} skips a part of its data file", hint="save it as one NRRD file")
    axes = _nrrd_vectors(path, "space directions", fields, 3)
    (origin,) = _nrrd_vectors(path, "space origin", fields, 1)
    kind = _value_type(path, fields.get("type", "").lower(), _NRRD_TYPES)
    endian = fields.get("endian", "little" if kind.endswith("1") else "").lower()
    if endian not in ("little", "big"):
        raise DataError(
            f"{path} does not say its byte order (endian)", hint="save it again, for example with 3D Slicer"
        )
    detached = fields.get("data file", fields.get("datafile"))
    return _Header(
        sizes=sizes,
        dtype=np.dtype(("<" if endian == "little" else ">") + kind),
        compressed=encoding != "raw",
        data=path if detached is None else _data_file(path, detached),
        offset=end if detached is None else 0,
        axes=axes * signs,
        origin=origin * signs,
    )


def _nrrd_vectors(path: Path, key: str, fields: Mapping[str, str], count: int) -> NDArray[np.float64]:
    """Vectors such as ``(1,0,0) (0,1,0)``, one a row."""
    vectors: NDArray[np.float64] = np.empty((0, 0))
    with contextlib.suppress(ValueError):
        vectors = np.array(
            [vector.split(",") for vector in re.findall(r"\(([^)]*)\)", fields.get(key, ""))], float
        )
    if vectors.shape != (count, 3) or not np.isfinite(vectors).all():
        raise _without_place(path, key)
    return vectors


def _meta_header(path: Path) -> _Header:
    text, end = _header_text(path, r"(?m)^ElementDataFile *=[^\n]*(\n|\Z)", may_end_with_file=False)
    fields = _fields(path, [line for line in text.splitlines() if line.strip()], "=")
    if fields.get("ObjectType", "Image").lower() != "image":
        raise DataError(f"{path} holds a {fields['ObjectType']}, not an image", hint="save the image")
    sizes = _integers(path, "DimSize", fields)
    if fields.get("NDims") != "3" or len(sizes) != 3:
        raise _not_three_dimensional(path, sizes)
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise DataError(
            f"{path} holds {fields['ElementNumberOfChannels']} values per voxel, one is read",
            hint="save each channel as a volume of its own",
        )
    if fields.get("BinaryData", "True").lower() != "true" or fields.get("HeaderSize", "0") != "0":
        raise DataError(
            f"{path} holds its values as text, or behind a second header", hint="save it as one .mha file"
        )
    order = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    is_big = next((fields[key] for key in order if key in fields), "False").lower() == "true"
    directions = _numbers(path, ("TransformMatrix", "Rotation", "Orientation"), fields, 9).reshape(3, 3)
    spacing = _numbers(path, ("ElementSpacing",), fields, 3)
    origin = _numbers(path, ("Offset", "Position", "Origin"), fields, 3)
    local = fields["ElementDataFile"].upper() == "LOCAL"
    data, offset = (path, end) if local else (_data_file(path, fields["ElementDataFile"]), 0)
    compressed = fields.get("CompressedData", "False").lower() == "true"
    stored = data.stat().st_size - offset
    if compressed and _integers(path, "CompressedDataSize", fields)[0] != stored:
        raise DataError(
            f"{path} declares {fields['CompressedDataSize']} bytes of compressed values and holds {stored}",
            hint="copy the file again from its source; it was cut short, or its header changed",
        )
    return _Header(
        sizes=sizes,
        dtype=np.dtype(
            (">" if is_big else "<") + _value_type(path, fields.get("ElementType", ""), _META_TYPES)
        ),
        compressed=compressed,
        data=data,
        offset=offset,
        axes=directions * spacing[:, None],
        origin=origin,
    )


def _header_text(path: Path, end: str, *, may_end_with_file: bool) -> tuple[str, int]:
    """A file's header and where it ends; `end` is a pattern of its last characters."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_HEADER_BYTES).decode("latin-1")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="check the path and the file's permissions",
        ) from error
    found = re.search(end, text)
    if found is None and not (may_end_with_file and len(text) < _MAX_HEADER_BYTES):
        raise DataError(
            f"{path} is damaged, truncated or of another format (its header has no end)",
            hint="copy the file again from its source",
        )
    length = len(text) if found is None else found.end()
    return text[:length], length


def _fields(path: Path, lines: list[str], separator: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        key, found, value = line.partition(separator)
        if not found or key.strip() in fields:
            raise DataError(
                f"{path}: its header has a line that {'says a thing twice' if found else 'is none'} ({line!r:.60})",
                hint="copy the file again from its source",
            )
        fields[key.strip()] = value.strip()
    return fields


def _integers(path: Path, key: str, fields: Mapping[str, str]) -> tuple[int, ...]:
    if not re.fullmatch(r"\d{1,18}(\s+\d{1,18})*", fields.get(key, "")):
        raise DataError(
            f"{path}: its header's {key} is {fields.get(key, 'missing')!r:.60}",
            hint="copy the file again from its source",
        )
    return tuple(int(number) for number in fields[key].split())


def _numbers(path: Path, keys: tuple[str, ...], fields: Mapping[str, str], count: int) -> NDArray[np.float64]:
    values = np.empty(0)
    with contextlib.suppress(ValueError):
        values = np.array(next((fields[key] for key in keys if key in fields), "").split(), dtype=np.float64)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise _without_place(path, keys[0])
    return values


def _value_type(path: Path, kind: str, known: Mapping[str, str]) -> str:
    if kind not in known:
        raise DataError(
            f"{path} holds values of type {kind or 'nothing stated'}", hint="save one grey value per voxel"
        )
    return known[kind]


def _data_file(path: Path, name: str) -> Path:
    """The file beside a header that holds its values; a header may not name one elsewhere."""
    if not name or Path(name).name != name or "\\" in name:
        raise DataError(
            f"{path} names '{name:.60}' as its data; a single file in the same folder is read",
            hint="save the volume as one file (.nrrd, .mha)",
        )
    data = path.parent / name
    if not data.is_file():
        raise DataError(f"{path} names '{name}' as its data, which is not there", hint="copy both files")
    return data


def _not_three_dimensional(path: Path, sizes: tuple[int, ...]) -> DataError:
    return DataError(
        f"{path} has a size of {' x '.join(str(size) for size in sizes)}, three dimensions are read",
        hint="save each time point or channel as a volume of its own",
    )


def _without_place(path: Path, key: str) -> DataError:
    return DataError(
        f"{path} does not say how it lies in the patient ({key} is missing or not finite numbers)",
        hint="export it again from its source with orientation; it cannot be guessed",
    )
