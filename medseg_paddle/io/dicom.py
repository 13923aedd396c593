"""DICOM series in, strictly: what cannot be placed in the patient beyond doubt is refused."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_paddle.core import Geometry, Units, Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom_file import Glance, Raster, glance, read_slices, read_stored
from medseg_paddle.io.dicom_stack import NOTHING, Allowed, stack
from medseg_paddle.io.limits import require_amount
from medseg_paddle.io.sliced import SlicedVolume, settled
from medseg_paddle.io.stored import StoredSlices
from medseg_paddle.io.straight import Straightened
from medseg_paddle.io.voxels import grid_of

# Files with these endings promise to be DICOM; one that is not is an error and no stray file.
DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")

AIR_HU = -1024.0


@dataclass(frozen=True, eq=False)
class Series:
    """A CT or MR series in slice order.

    Attributes
    ----------
    volume : Volume
        float32, rescaled slice by slice; HU for CT.
    paths : tuple of Path
        The file of each slice.
    uid : str
        SeriesInstanceUID.
    patient_id : str
        PatientID as the header has it, ``""`` where it is missing.
    """

    volume: Volume
    paths: tuple[Path, ...]
    uid: str
    patient_id: str


@dataclass(frozen=True, eq=False)
class OpenSeries:
    """A series whose slices are read one at a time.

    Attributes
    ----------
    slices : StoredSlices or Straightened
        Exact numbers: integers, or float64 where slope or intercept are none.
    geometry : Geometry
    units : {"HU", "arbitrary"}
    paths : tuple of Path
        The file of each slice, as stored.
    uid, patient_id : str
        As for :class:`Series`.
    padding : float or None
        Value that stands for no measurement, as the slices have it.
    notes : tuple of str
        What was done by allowance, for people.
    """

    slices: StoredSlices | Straightened
    geometry: Geometry
    units: Units
    paths: tuple[Path, ...]
    uid: str
    patient_id: str
    padding: float | None
    notes: tuple[str, ...]


def read_series(folder: Path, *, compact: bool = False) -> Volume:
    """Read the one series of a folder (and its subfolders).

    Parameters
    ----------
    folder : Path
    compact : bool
        As for :func:`load_series`.

    Returns
    -------
    Volume
        float32 (but see `compact`), ``array[slice, row, column]``, slices ascending along the normal of the image plane
        (for a standard axial CT from the feet to the head).

    Raises
    ------
    DataError
        No DICOM image or several series in the folder, or as for :func:`load_series`.
    """
    found = find_series(folder)
    if not found:
        raise DataError(
            f"{folder}: no DICOM image in it", hint="name the folder that holds the series' files"
        )
    if len(found) > 1:
        firsts = glance([paths[0] for paths in found.values()])
        listed = list_series([(one, len(paths)) for one, paths in zip(firsts, found.values(), strict=True)])
        raise DataError(
            f"{folder} holds {len(found)} series, one is read:{listed}",
            hint="put each series into a folder of its own",
        )
    return load_series(next(iter(found.values())), compact=compact).volume


def list_series(series: Sequence[tuple[Glance, int]]) -> str:
    """Lines that tell series apart: UID, what they are, and how many files they have."""
    return "".join(f"\n  {one.uid}  {one.what}, {count} files" for one, count in series)


def find_series(folder: Path) -> dict[str, list[Path]]:
    """Files of each series in a folder and its subfolders, by SeriesInstanceUID.

    Hidden files, files that are not DICOM and do not claim to be by their name, directories of a
    medium (DICOMDIR), objects without an image (reports, contours) and segmentations are passed over.

    Raises
    ------
    DataError
        The folder is missing, or a file named like DICOM cannot be read as DICOM.
    """
    return group_by_series(files_below(folder))


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders but hidden ones; neither pipes nor other special files.

    Raises
    ------
    DataError
        There is no such folder, or one below it cannot be read; a link leads nowhere.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", hint="name the folder that holds the series' files")

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be read ({error.strerror or error}): slices may be missing",
            hint="check the folder's permissions, or name a folder without it",
        ) from error

    found = [
        Path(parent) / name
        for parent, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if name[0] != "."
    ]
    for path in found:
        if path.is_symlink() and not path.exists():
            raise DataError(
                f"{path} is a link that leads nowhere: a slice may be missing",
                hint="copy the file that it stands for, or remove the link",
            )
    return [path for path in sorted(found) if path.is_file()]


def group_by_series(
    paths: Iterable[Path], *, on_bad: Callable[[Path, DataError], None] | None = None
) -> dict[str, list[Path]]:
    """Group the image files among `paths` by SeriesInstanceUID, as for :func:`find_series`.

    Parameters
    ----------
    paths : iterable of Path
    on_bad : callable, optional
        Called with a file that cannot be read and what is wrong with it, in place of raising.
    """
    series: dict[str, list[Path]] = {}
    for one in glance(list(paths)):
        error = one.error
        if not one.is_dicom and one.path.suffix.lower() in DICOM_SUFFIXES:
            error = DataError(
                f"{one.path} is not a DICOM file (no DICM mark at byte 128)",
                hint="copy the file again from its source, or remove it",
            )
        if error is not None:
            if on_bad is None:
                raise error
            on_bad(one.path, error)
        elif one.uid:
            series.setdefault(one.uid, []).append(one.path)
    return series


@contextlib.contextmanager
def open_series(paths: Sequence[Path], allowed: Allowed = NOTHING) -> Iterator[OpenSeries]:
    """Read the files of one series, for its slices to be taken one at a time.

    Parameters
    ----------
    paths : sequence of Path
        All files of the series, in any order.
    allowed : Allowed
        What may be done that changes or leaves out slices.

    Raises
    ------
    DataError
        As for :func:`load_series`, but for what is `allowed`.
    """
    if not paths:
        raise DataError("a series without files", hint="name the files of one series")
    ordered = stack(read_slices(paths), allowed)
    first = ordered.slices[0]
    rasters = [one.raster for one in ordered.slices]
    shape = (len(rasters), *first.raster.size)
    require_amount(first.path, shape)
    with read_stored(rasters) as stored:
        padding = _padding_value(rasters)
        slices: StoredSlices | Straightened = stored
        geometry, notes = grid_of(first.path, shape, ordered.affine, first.reference), ordered.notes
        if ordered.is_crooked:
            air = AIR_HU if first.raster.units == "HU" else 0.0
            slices = Straightened(
                stored, ordered.slices, fill=air if padding is None else padding, even=not ordered.is_uneven
            )
            geometry = slices.geometry
            require_amount(first.path, geometry.shape)
            notes = (*notes, f"voxels that no slice reaches are {slices.fill:g}")
        yield OpenSeries(
            slices=slices,
            geometry=geometry,
            units=first.raster.units,
            paths=tuple(one.path for one in ordered.slices),
            uid=first.uid,
            patient_id=first.patient_id,
            padding=padding,
            notes=notes,
        )


def _padding_value(rasters: Sequence[Raster]) -> float | None:
    """The rescaled padding value that all slices share; None where they have none, several or a range."""
    values = {
        one.padding[0] * one.slope + one.intercept
        for one in rasters
        if one.padding is not None and one.padding[0] == one.padding[1]
    }
    return values.pop() if len(values) == 1 else None


def load_series(paths: Sequence[Path], *, compact: bool = False) -> Series:
    """Read the files of one series into a volume.

    Parameters
    ----------
    paths : sequence of Path
        All files of the series, in any order; enhanced multi-frame objects, too.
    compact : bool
        The same values in the smallest type that holds them all, see :func:`~medseg_paddle.io.sliced.settled`: half
        the memory of a CT.

    Raises
    ------
    DataError
        Mixed series, sizes, spacings, orientations or frames of reference; position, orientation or
        spacing missing, zero or not finite; axes not at right angles; sheared slices (gantry tilt);
        missing or doubled slices; localizers and colour images; frames without a place; MONOCHROME1 but for CT in HU,
        whose numbers mean the same however they are shown; CT without rescale, slope 0; truncated
        pixels; a compression without a decoder; files that take the reader more than its memory or time.
    """
    with open_series(paths) as series:
        geometry, units = series.geometry, series.units
        if compact:
            volume = settled(f"series {series.uid}", series.slices, geometry, units, keep=False).whole()
        else:
            volume = SlicedVolume(series.slices, geometry, units, np.dtype(np.float32)).whole()
        return Series(
            volume=volume,
            paths=series.paths,
            uid=series.uid,
            patient_id=series.patient_id,
        )
