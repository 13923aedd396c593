"""NRRD and MetaImage volumes out, slice by slice.

Formats: https://teem.sourceforge.net/nrrd/format.html and https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import Geometry, straightened
from medseg_paddle.errors import DataError
from medseg_paddle.io.files import whole_file
from medseg_paddle.io.sliced import SlicedVolume

_COMPRESSION = 3  # of 9, as for NIfTI

# A voxel may lie this far from its place where the format holds no shear.
_SHEAR_TOLERANCE_MM = 0.1

_NRRD_TYPES = {
    "u1": "uint8", "i1": "int8", "u2": "uint16", "i2": "int16", "u4": "uint32", "i4": "int32", "u8": "uint64",
    "i8": "int64", "f4": "float", "f8": "double",
}  # fmt: skip
_META_TYPES = {
    "u1": "MET_UCHAR", "i1": "MET_CHAR", "u2": "MET_USHORT", "i2": "MET_SHORT", "u4": "MET_UINT", "i4": "MET_INT",
    "u8": "MET_ULONG_LONG", "i8": "MET_LONG_LONG", "f4": "MET_FLOAT", "f8": "MET_DOUBLE",
}  # fmt: skip
_SIZE_DIGITS = 16


def write_nrrd_slices(path: Path, volume: SlicedVolume) -> None:
    """Write a NRRD file (``.nrrd``), gzip inside, that lies in the patient as `volume` does; atomic.

    Raises
    ------
    DataError
        The slices are sheared by more than 0.1 mm, which programs that read NRRD lose.
    """
    axes, origin = square_axes(volume.geometry, path.suffix)
    header = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[volume.dtype.str[1:]]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {_numbers(volume.geometry.shape[::-1])}",
        "space directions: " + " ".join(_vector(axis) for axis in axes),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(origin)}",
    ]
    with whole_file(path) as temporary, temporary.open("xb") as stream:
        stream.write(("\n".join(header) + "\n\n").encode("ascii"))
        with gzip.GzipFile("", "wb", _COMPRESSION, stream, mtime=0) as packed:
            for plane in volume.planes():
                packed.write(plane.data)


def write_meta_slices(path: Path, volume: SlicedVolume) -> None:
    """Write a MetaImage file (``.mha``), as :func:`write_nrrd_slices`."""
    axes, origin = square_axes(volume.geometry, path.suffix)
    lengths = np.linalg.norm(axes, axis=1)
    before = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
    ]
    after = [
        f"TransformMatrix = {_numbers((axes / lengths[:, None]).ravel())}",
        f"Offset = {_numbers(origin)}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_numbers(lengths)}",
        f"DimSize = {_numbers(volume.geometry.shape[::-1])}",
        f"ElementType = {_META_TYPES[volume.dtype.str[1:]]}",
        "ElementDataFile = LOCAL",
    ]
    with whole_file(path) as temporary, temporary.open("xb") as stream:

        def write_header(size: int) -> None:
            lines = [*before, f"CompressedDataSize = {size:0{_SIZE_DIGITS}d}", *after]
            stream.write(("\n".join(lines) + "\n").encode("ascii"))

        write_header(0)  # again, when the size is known
        start = stream.tell()
        deflate = zlib.compressobj(_COMPRESSION)
        for plane in volume.planes():
            stream.write(deflate.compress(plane.data))
        stream.write(deflate.flush())
        size = stream.tell() - start
        stream.seek(0)
        write_header(size)


def square_axes(geometry: Geometry, kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps of the three indices in mm, fastest first and at right angles, and the place of the first voxel.

    Parameters
    ----------
    geometry : Geometry
    kind : str
        The format that holds no shear, for people.

    Raises
    ------
    DataError
        A voxel would be put more than 0.1 mm elsewhere.
    """
    straight, apart = straightened(geometry)
    columns, rows = geometry.affine[:3, 2], geometry.affine[:3, 1]
    cosine = abs(columns @ rows) / (np.linalg.norm(columns) * np.linalg.norm(rows))
    if apart > _SHEAR_TOLERANCE_MM or cosine > 1e-3:
        raise DataError(
            f"the volume's axes are not at right angles (up to {apart:.2g} mm off), which {kind} does not hold",
            hint="write NIfTI (.nii.gz), which does; or, from DICOM, move the slices onto a straight grid (--untilt)",
        )
    return straight[:3, 2::-1].T, straight[:3, 3]


def _vector(values: NDArray[np.float64]) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"


def _numbers(values: NDArray[np.float64] | tuple[int, ...]) -> str:
    return " ".join(repr(value.item() if isinstance(value, np.generic) else value) for value in values)
