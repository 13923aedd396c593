"""NIfTI volumes in and label maps out.

NIfTI's patient frame is RAS (x to the right, y to the front), ours is DICOM's LPS: the first two
axes change sign. NIfTI's index is ``(i, j, k)``, ours ``(slice, row, column)`` is ``(k, j, i)``; voxels
stay in the order in which the file has them.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from medseg_paddle.core import Geometry, LabelMap, Volume, corners, straightened
from medseg_paddle.errors import DataError
from medseg_paddle.io.files import whole_file, write_bytes
from medseg_paddle.io.limits import copy_values, plain_blocks, require_amount, require_bytes
from medseg_paddle.io.sliced import ArraySlices, SlicedVolume
from medseg_paddle.io.stored import StoredSlices
from medseg_paddle.io.voxels import grey_volume, grid_of, label_volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# Reorders the columns of an affine from (i, j, k) to (slice, row, column) and back.
_REVERSE_INDEX = np.eye(4)[[2, 1, 0, 3]]

_FORMS_TOLERANCE_MM = 0.1
_QFORM_TOLERANCE_MM = 0.01
_SHEAR = 1e-6  # of a slice distance: beyond float32
_VALUES_START = 352  # after the header and four bytes that say "no extensions" (nifti1.h)
_LONGEST_SIDE = 2**15 - 1  # of 16 bits with a sign (nifti1.h, dim)
_LONGEST_EXTENSIONS = 1 << 24
_COMPRESSION = 3  # of 9: a tenth larger than 9, and several times as fast

_READ_ERRORS = (
    OSError, EOFError, ValueError, TypeError, KeyError, struct.error, zlib.error,
    ImageFileError, HeaderDataError, WrapStructError,
)  # fmt: skip


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI volume.

    Returns
    -------
    Volume
        float32 ``array[slice, row, column]`` = NIfTI ``[k, j, i]``, scaled by the header's slope and
        intercept; units ``"unknown"``, for NIfTI does not say.

    Raises
    ------
    DataError
        Missing, truncated, not NIfTI; not three-dimensional; no orientation (sform and qform codes
        both 0), or two that disagree; not in millimetres; a voxel that is not finite.
    """
    array, geometry = _read(path)
    return grey_volume(path, array[0], geometry)


def read_nifti_channels(path: Path) -> tuple[Volume, ...]:
    """Read a NIfTI file of one volume, or of several on one grid, its fourth axis.

    Raises
    ------
    DataError
        As for :func:`read_nifti`, but for a fourth axis.
    """
    array, geometry = _read(path, most_axes=4)
    return tuple(grey_volume(path, one, geometry) for one in array)


def nifti_grid(path: Path) -> tuple[Geometry, int]:
    """Where the voxels of a NIfTI file lie and how many channels it has, by its header alone.

    Raises
    ------
    DataError
        As for :func:`read_nifti_channels`, but for its values.
    """
    image = _opened(path, most_axes=4)
    return _geometry(image, path), image.shape[3] if len(image.shape) == 4 else 1


def read_label_nifti(path: Path) -> Volume:
    """Read a label volume's indices as they are stored; uint8 or uint16.

    Raises
    ------
    DataError
        As for :func:`read_nifti`, or a voxel that is not an integer in 0..65535.
    """
    array, geometry = _read(path)
    return label_volume(path, array[0], geometry)


def write_label_nifti(path: Path, label_map: LabelMap) -> None:
    """Write a label map so that NIfTI readers find every voxel at its place in the patient; atomic.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.
    label_map : LabelMap
        uint8 or uint16.

    Raises
    ------
    DataError
        `path` has another ending.
    """
    _require_name(path)
    array, geometry = label_map.array, label_map.geometry
    write_nifti_slices(path, SlicedVolume(ArraySlices(array), geometry, "unknown", array.dtype))


def write_nifti(path: Path, volumes: Sequence[Volume], *, flush: bool = True) -> None:
    """Write volumes on one grid so that NIfTI readers find every voxel at its place in the patient; atomic.

    Parameters
    ----------
    path : Path
        ``.nii`` or ``.nii.gz``.
    volumes : sequence of Volume
        Several become a fourth axis. Whole numbers are written as integers, others as float32.
    flush : bool
        As for :func:`medseg_paddle.io.files.write_bytes`.

    Raises
    ------
    DataError
        `path` has another ending.
    """
    _require_name(path)
    array = volumes[0].array if len(volumes) == 1 else np.stack([one.array for one in volumes])
    image = _image(np.ascontiguousarray(_narrowed(array).T), volumes[0].geometry)
    data = image.to_bytes()
    write_bytes(
        path, gzip.compress(data, _COMPRESSION, mtime=0) if path.name.endswith(".gz") else data, flush=flush
    )


def _require_name(path: Path) -> None:
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise DataError(f"{path} is not a NIfTI name", hint="let it end in .nii or .nii.gz")


def write_nifti_slices(path: Path, volume: SlicedVolume) -> None:
    """As :func:`write_nifti`, for a volume whose slices come one at a time."""
    shape = volume.geometry.shape[::-1]
    # An image of one voxel that is seen everywhere: for its header.
    image = _image(np.broadcast_to(np.zeros((), volume.dtype), shape), volume.geometry)
    header = image.header.copy()
    header["magic"], header["vox_offset"] = b"n+1", _VALUES_START
    header.set_slope_inter(1, 0)
    start: bytes = header.binaryblock
    with whole_file(path) as temporary, temporary.open("xb") as stream, contextlib.ExitStack() as stack:
        target: IO[bytes] = stream
        if path.name.lower().endswith(".gz"):
            packed = gzip.GzipFile("", "wb", _COMPRESSION, stream, mtime=0)
            target = stack.enter_context(packed)  # type: ignore[arg-type]  # a binary file in all but its stubs
        target.write(start.ljust(_VALUES_START, b"\0"))
        for plane in volume.planes():
            target.write(plane.data)


def _image(array: NDArray[Any], geometry: Geometry) -> Any:
    """A NIfTI image of ``array[i, j, k]`` that nibabel would write."""
    if max(array.shape) > _LONGEST_SIDE:
        raise DataError(
            f"{' x '.join(map(str, array.shape))} voxels: NIfTI holds at most {_LONGEST_SIDE:,} along an axis",
            hint="write NRRD or MetaImage (.nrrd, .mha), or cut the volume into parts",
        )
    affine = _RAS_TO_LPS @ geometry.affine @ _REVERSE_INDEX
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.set_sform(affine, code="scanner")
    # A qform holds no shear (of rounded positions), and turns by nearly 180 degrees only coarsely (_turn_rounding):
    # where it would put a voxel elsewhere, the sform speaks alone. But programs built on ITK open no file that has a
    # sheared sform alone, so there it may be as far off as two forms that are taken for one.
    straight, _ = straightened(geometry)
    image.set_qform(_RAS_TO_LPS @ straight @ _REVERSE_INDEX, code="scanner")
    sheared = np.abs(straight - geometry.affine)[:3, 0].max() > _SHEAR * geometry.spacing[0]
    if _forms_apart(image) > (_FORMS_TOLERANCE_MM if sheared else _QFORM_TOLERANCE_MM):
        image.set_qform(affine, code="unknown")
    image.header.set_xyzt_units("mm")
    return image


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    """Integers as they are; of other numbers, whole ones within 16 bits as such, and the rest in float32."""
    if array.dtype.kind in "iu":
        return array
    limits = np.iinfo(np.int16)
    if limits.min <= array.min() and array.max() <= limits.max and (array == np.rint(array)).all():
        return array.astype(np.int16)
    return array.astype(np.float32)


@contextlib.contextmanager
def open_nifti(path: Path) -> Iterator[tuple[StoredSlices, Geometry]]:
    """As :func:`read_nifti`, for slices to be taken one at a time, in the file's own type; little memory is used."""
    image = _opened(path, most_axes=3)
    proxy = image.dataobj
    geometry = _geometry(image, path)
    count, rows, columns = geometry.shape
    declared = math.prod(geometry.shape) * proxy.dtype.itemsize
    scale = {"slope": float(proxy.slope), "intercept": float(proxy.inter)}
    with StoredSlices.collected((rows, columns), count, proxy.dtype, **scale) as slices:
        packed = path.name.lower().endswith(".gz")
        with damage_refused(path), gzip.open(path) if packed else path.open("rb") as stream:
            stream.seek(proxy.offset)
            # What some programs append to a NIfTI file is left.
            copy_values(path, plain_blocks(stream, declared), declared, slices.file)
        yield slices, geometry


def _read(path: Path, *, most_axes: int = 3) -> tuple[NDArray[Any], Geometry]:
    """Voxels ``[channel, slice, row, column]`` in the file's own type, or scaled."""
    image = _opened(path, most_axes=most_axes)
    with damage_refused(path):
        # In the file's own type where it is not scaled: a third of the memory of a 16-bit volume.
        array = np.asarray(image.dataobj)
    voxels = array.T if array.ndim == 4 else array.T[np.newaxis]
    return voxels, _geometry(image, path)


def _geometry(image: Any, path: Path) -> Geometry:
    columns, rows, count = image.shape[:3]
    return grid_of(path, (count, rows, columns), _RAS_TO_LPS @ image.affine @ _REVERSE_INDEX)


def _opened(path: Path, *, most_axes: int) -> Any:
    """A NIfTI file whose header was checked; its values are not read."""
    if not path.is_file():
        raise DataError(f"{path} is not there", hint="check the path")
    with damage_refused(path):
        _require_near_values(path)
        image: Any = nib.load(path, mmap=False)
        if not isinstance(image, nib.Nifti1Image):
            raise DataError(
                f"{path} is {type(image).__name__}, not NIfTI", hint="convert it to NIfTI (.nii.gz)"
            )
        _require_plain_header(image, path, most_axes)
    return image


@contextlib.contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """Raise a DataError for what nibabel raises on damaged files."""
    try:
        yield
    except _READ_ERRORS as error:
        raise DataError(
            f"{path} is damaged, truncated or not NIfTI ({error})", hint="copy the file again from its source"
        ) from error


def _require_near_values(path: Path) -> None:
    """Refuse a header that puts gigabytes between itself and the values: nibabel reads them as extensions."""
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
        start = stream.read(176)
    if len(start) < 176:
        raise EOFError("no header")
    for order in "<>":
        if struct.unpack_from(order + "i", start)[0] == 348:  # NIfTI-1, nifti1.h
            offset = struct.unpack_from(order + "f", start, 108)[0]
        elif struct.unpack_from(order + "i", start)[0] == 540:  # NIfTI-2, nifti2.h
            offset = struct.unpack_from(order + "q", start, 168)[0]
        else:
            continue
        if not 0 <= offset <= _LONGEST_EXTENSIONS:
            raise ValueError(f"its values begin at byte {offset:g}")


def _require_plain_header(image: Any, path: Path, most_axes: int) -> None:
    header = image.header
    # Some programs write every volume with a fourth axis of length 1.
    if len(image.shape) not in (3, 4) or math.prod(image.shape[most_axes:]) != 1:
        raise DataError(
            f"{path} has shape {image.shape}, three dimensions are read",
            hint="save each time point or channel as a volume of its own",
        )
    if header.get_data_dtype().kind not in "iuf":
        raise DataError(
            f"{path} holds {header.get_data_dtype()} values", hint="save one grey value per voxel"
        )
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise DataError(
            f"{path} does not say how it lies in the patient (sform and qform codes are 0)",
            hint="convert it again from DICOM (for example with dcm2niix), or set the codes on purpose",
        )
    require_amount(path, image.shape)
    declared = math.prod(image.shape) * header.get_data_dtype().itemsize
    stored = path.stat().st_size
    if path.name.lower().endswith(".gz"):
        require_bytes(path, declared, stored, compressed=True)
    else:
        # Some programs append to a NIfTI file; only what is missing is in doubt.
        require_bytes(path, declared, min(declared, stored - image.dataobj.offset), compressed=False)
    _require_one_place(image, path)
    units = header.get_xyzt_units()[0]
    if units not in ("mm", "unknown"):
        raise DataError(f"{path} is measured in {units}", hint="save it in millimetres")


def _require_one_place(image: Any, path: Path) -> None:
    """Refuse a sform and a qform, both in force, that put a corner of the volume at two places."""
    if int(image.header["sform_code"]) == 0 or int(image.header["qform_code"]) == 0:
        return
    apart = _forms_apart(image)
    if not apart <= max(_FORMS_TOLERANCE_MM, _turn_rounding(image)):
        raise DataError(
            f"{path} says twice how it lies in the patient: by its sform and its qform, which are {apart:.3g} mm apart",
            hint="find out which one is right (a viewer shows left and right), and copy it over the other "
            "(for example `fslorient -copysform2qform` or `-copyqform2sform`)",
        )


def _forms_apart(image: Any) -> float:
    """Distance in mm of the places at which sform and qform put a corner of the volume, the greatest."""
    ends = corners(image.shape[:3])
    one, two = (apply_affine(form, ends) for form in (image.get_sform(), image.get_qform()))
    return float(np.linalg.norm(one - two, axis=1).max())


def _turn_rounding(image: Any) -> float:
    """Mm by which the rounding of a qform's numbers moves the farthest corner.

    The header holds b, c and d of a quaternion in float32, and ``a = sqrt(1 - b**2 - c**2 - d**2)`` follows
    (nifti1.h). Near a turn by 180 degrees, as between DICOM's axes and NIfTI's, a is near 0 and its rounding that of a
    root: 0.8 mm in a CT of the trunk that is turned by some hundredths of a degree.
    """
    header = image.header
    b, c, d = (float(header[f"quatern_{letter}"]) for letter in "bcd")
    square, rounding = 1 - b * b - c * c - d * d, 2 * float(np.finfo(np.float32).eps)
    half_angle = math.sqrt(max(square + rounding, 0)) - math.sqrt(max(square - rounding, 0))
    size = np.linalg.norm(np.array(image.shape[:3]) * header.get_zooms()[:3])
    return float(2 * half_angle * size)
