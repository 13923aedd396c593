"""One volume from one format into another: DICOM series and segmentations, NIfTI, NRRD, MetaImage."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg_paddle.core import Units
from medseg_paddle.errors import DataError, MedsegError, RecipeError, SetupError
from medseg_paddle.io.archive import ZIP_SUFFIX, unpack_zip
from medseg_paddle.io.dicom import DICOM_SUFFIXES, OpenSeries, files_below, list_series, open_series
from medseg_paddle.io.dicom_file import Glance, glance
from medseg_paddle.io.dicom_seg import open_segmentation
from medseg_paddle.io.dicom_stack import Allowed
from medseg_paddle.io.files import SHORTER_NAME, disk_is_full, free_space
from medseg_paddle.io.sliced import SlicedVolume, settled
from medseg_paddle.io.volumes import WRITTEN_SUFFIXES, is_volume, open_volume, write_volume

_MOST_NAMED = 3
_BLANK_BYTES = 1024  # at the start of a file that was never filled


@dataclass(frozen=True)
class Wishes:
    """What to read of the input, and how.

    Attributes
    ----------
    series : str, optional
        SeriesInstanceUID, where the input holds several series.
    segments : tuple of int
        Of a DICOM segmentation, where not all are wanted.
    threshold : float, optional
        For segmentations that hold fractions.
    reference : Path, optional
        Folder of the series on whose grid a segmentation is put.
    allowed : Allowed
        What may be done that changes or leaves out slices.
    """

    series: str | None = None
    segments: tuple[int, ...] = ()
    threshold: float | None = None
    reference: Path | None = None
    allowed: Allowed = field(default_factory=Allowed)


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes
    ----------
    output : Path
    shape : tuple of int
        Slices, rows, columns.
    spacing : tuple of float
        mm along each.
    dtype : str
    units : {"HU", "arbitrary", "unknown"}
    notes : tuple of str
        What was done by allowance, and what the input holds beside the volume, for people.
    """

    output: Path
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    dtype: str
    units: Units
    notes: tuple[str, ...]


@dataclass
class _Sorted:
    """The DICOM files of a folder."""

    series: dict[str, list[Glance]] = field(default_factory=dict)
    segmentations: list[Path] = field(default_factory=list)
    others: list[Glance] = field(default_factory=list)  # neither


def convert(
    source: Path, output: Path, *, wishes: Wishes | None = None, overwrite: bool = False
) -> Conversion:
    """Write the one volume that `source` holds as a file of another format.

    Parameters
    ----------
    source : Path
        A folder or a zip archive of one DICOM series, a DICOM file (a segmentation, an enhanced multi-frame object, a
        single slice), or a volume (NIfTI, NRRD, MetaImage).
    output : Path
        Its format follows from its ending: ``.nii``, ``.nii.gz``, ``.nrrd``, ``.mha``.
    wishes : Wishes, optional
    overwrite : bool
        Replace `output` if it is there.

    Raises
    ------
    RecipeError
        An ending that is not written; a wish that does not fit the input.
    DataError
        The input is refused, as for :func:`~medseg_paddle.io.dicom.load_series`,
        :func:`~medseg_paddle.io.dicom_seg.read_segmentation` and :func:`~medseg_paddle.io.volumes.read_volume`; it
        holds several series. Nothing is written then.
    SetupError
        `output` is there; no room for it.
    """
    wishes = wishes or Wishes()
    notes: list[str] = []
    with disk_errors_told(source):
        _require_output(output, overwrite=overwrite)
        with opened(source, wishes, notes) as volume:
            write_volume(output, volume)
    return conversion(output, volume, notes)


def conversion(output: Path, volume: SlicedVolume, notes: Sequence[str]) -> Conversion:
    """What was written of a volume."""
    geometry = volume.geometry
    return Conversion(output, geometry.shape, geometry.spacing, volume.dtype.name, volume.units, tuple(notes))


@contextlib.contextmanager
def disk_errors_told(source: Path) -> Iterator[None]:
    """Say what a disk refuses while `source` is converted.

    Raises
    ------
    SetupError
    """
    try:
        yield
    except OSError as error:
        folder = Path(tempfile.gettempdir())
        full = f" ({free_space(folder)} in {folder})" if disk_is_full(error) else ""
        raise SetupError(
            f"{error.filename or source}: {error.strerror or error}{full}; nothing was converted",
            hint=SHORTER_NAME
            if error.errno == errno.ENAMETOOLONG
            else "check permissions and make room; TMPDIR names the folder for decoded values",
        ) from error


def files_of_series(folder: Path, wishes: Wishes) -> list[Path]:
    """Files of the one DICOM series in a folder and below, or of the one that is wished for.

    Raises
    ------
    DataError
        No such folder or series, several series, or a damaged DICOM file.
    """
    return [one.path for one in _chosen(folder, _sorted(files_below(folder)), wishes)]


def _require_output(output: Path, *, overwrite: bool) -> None:
    if not output.name.lower().endswith(WRITTEN_SUFFIXES):
        raise RecipeError(
            f"{output} has no ending of a format that is written",
            hint=f"let it end in {', '.join(WRITTEN_SUFFIXES)}, or in .dcm for labels as a SEG; a folder of DICOM "
            "images needs --modality CT or MR",
        )
    require_free(output, overwrite=overwrite)


def require_free(output: Path, *, overwrite: bool) -> None:
    """Refuse a file that is there already, and a folder.

    Raises
    ------
    SetupError
    """
    # A link that leads nowhere is there, too: it would be replaced.
    if output.is_dir() or (os.path.lexists(output) and not overwrite):
        raise SetupError(f"{output} is there already", hint="name another file, or allow to --overwrite")


@contextlib.contextmanager
def opened(source: Path, wishes: Wishes, notes: list[str]) -> Iterator[SlicedVolume]:
    """The one volume that a folder, archive or file holds, for slices to be taken one at a time.

    Raises
    ------
    RecipeError, DataError
        As for :func:`convert`.
    """
    if source.is_dir():
        with _from_files(source, files_below(source), wishes, notes) as volume:
            yield volume
    elif not source.is_file():
        raise DataError(f"{source} is not there, or no plain file", hint="check the path")
    elif source.suffix.lower() == ZIP_SUFFIX:
        with _from_zip(source, wishes, notes) as volume:
            yield volume
    elif is_volume(source):
        _require_no_wishes(source, wishes)
        with open_volume(source) as volume:
            yield volume
    else:
        with _from_files(source, [source], wishes, notes) as volume:
            yield volume


@contextlib.contextmanager
def _from_zip(source: Path, wishes: Wishes, notes: list[str]) -> Iterator[SlicedVolume]:
    with tempfile.TemporaryDirectory(prefix="medseg-") as folder:
        archive = unpack_zip(source, Path(folder))
        volumes = [path for path in archive.names if is_volume(path)]
        try:
            if len(archive.names) == len(volumes) == 1:
                _require_no_wishes(source, wishes)
                with open_volume(volumes[0]) as volume:
                    yield volume
            else:
                with _from_files(source, list(archive.names), wishes, notes) as volume:
                    yield volume
        except MedsegError as error:
            raise archive.of(error) from error
        notes[:] = [archive.named(note) for note in notes]


@contextlib.contextmanager
def _from_files(
    source: Path, paths: Sequence[Path], wishes: Wishes, notes: list[str]
) -> Iterator[SlicedVolume]:
    found = _sorted(paths)
    if not found.series and len(found.segmentations) == 1:
        with _from_segmentation(found.segmentations[0], wishes) as volume:
            yield volume
    else:
        chosen = _chosen(source, found, wishes)
        notes += _left(found, chosen)
        if wishes.segments or wishes.threshold is not None or wishes.reference is not None:
            raise RecipeError(
                f"{source} is a series of images, and segments, a threshold or a reference are named",
                hint="name the segmentation's file, or leave these options out",
            )
        with open_series([one.path for one in chosen], wishes.allowed) as series:
            notes += series.notes
            label = f"series {series.uid}"
            yield settled(label, series.slices, series.geometry, series.units, keep=False)


@contextlib.contextmanager
def _from_segmentation(path: Path, wishes: Wishes) -> Iterator[SlicedVolume]:
    if wishes.series is not None and wishes.reference is None:
        raise RecipeError(
            f"{path} is a segmentation, and a series is named",
            hint="name the folder of its images as --reference",
        )
    with contextlib.ExitStack() as stack:
        reference: OpenSeries | None = None
        if wishes.reference is not None:
            files = files_of_series(wishes.reference, wishes)
            reference = stack.enter_context(open_series(files, wishes.allowed))
        opened = open_segmentation(
            path, reference, segments=wishes.segments or None, threshold=wishes.threshold
        )
        slices, geometry = stack.enter_context(opened)
        yield settled(str(path), slices, geometry, "unknown", keep=True)


def _sorted(paths: Sequence[Path]) -> _Sorted:
    """What each file is; a file that is DICOM and damaged may be a slice, so it is an error."""
    found = _Sorted()
    for one in glance(paths):
        if one.error is not None:
            raise one.error
        if not one.is_dicom and one.path.suffix.lower() in DICOM_SUFFIXES and _is_blank(one.path):
            raise DataError(
                f"{one.path} is empty, but named like DICOM: a slice may be missing",
                hint="copy the file again from its source, or remove it",
            )
        if one.is_segmentation:
            found.segmentations.append(one.path)
        elif one.uid:
            found.series.setdefault(one.uid, []).append(one)
        else:
            found.others.append(one)
    return found


def _is_blank(path: Path) -> bool:
    with path.open("rb") as stream:
        return not stream.read(_BLANK_BYTES).strip(b"\0")


def _chosen(source: Path, found: _Sorted, wishes: Wishes) -> list[Glance]:
    """Files of the series to read."""
    listed = list_series([(members[0], len(members)) for members in found.series.values()])
    if not found.series:
        volumes = [one.path for one in found.others if is_volume(one.path)]
        if found.segmentations:
            several = f", but {len(found.segmentations)} segmentations"
            hint = "name one of the segmentations' files"
        elif volumes:
            several = f", but {len(volumes)} volume(s): {_named(volumes)}"
            hint = "name the volume's file; of an archive, unpack it first, or leave other files out of it"
        else:
            several = ""
            hint = (
                "name a DICOM file, the folder or zip archive that holds a series, or a volume "
                "(.nii, .nii.gz, .nrrd, .mha)"
            )
        raise DataError(f"{source}: no DICOM image in it{several}", hint=hint)
    if wishes.series is not None:
        if wishes.series not in found.series:
            raise DataError(
                f"{source} holds no series {wishes.series}; it holds:{listed}",
                hint="choose one of these by its UID",
            )
        return found.series[wishes.series]
    if len(found.series) > 1:
        raise DataError(
            f"{source} holds {len(found.series)} series, one is read:{listed}",
            hint="choose one by its UID (`medseg convert --series UID`)",
        )
    return next(iter(found.series.values()))


def _left(found: _Sorted, chosen: Sequence[Glance]) -> list[str]:
    """What is not read, for people."""
    notes = []
    for what, paths in (
        ("no DICOM", [one.path for one in found.others if not one.is_dicom]),
        ("DICOM without an image", [one.path for one in found.others if one.is_dicom]),
        ("segmentations, which are converted by themselves", found.segmentations),
        ("of another series", [one.path for many in found.series.values() for one in many if many != chosen]),
    ):
        if paths:
            notes.append(f"{len(paths)} file(s) passed over, {what}: {_named(paths)}")
    return notes


def _named(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths[:_MOST_NAMED]) + ", ..." * (len(paths) > _MOST_NAMED)


def _require_no_wishes(source: Path, wishes: Wishes) -> None:
    if wishes != Wishes():
        raise RecipeError(
            f"{source} is a volume in a file; a series, segments and what may be done with slices are for DICOM",
            hint="leave these options out",
        )
