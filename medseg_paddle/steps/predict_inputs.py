"""What `medseg predict` was given: pictures, volumes and series, each with a name for its results."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg_paddle.errors import DataError, MedsegError
from medseg_paddle.io.archive import ZIP_SUFFIX, Archive, unpack_zip
from medseg_paddle.io.channels import ARRAY_SUFFIX
from medseg_paddle.io.dicom import group_by_series
from medseg_paddle.io.files import short_name
from medseg_paddle.io.images import IMAGE_SUFFIXES
from medseg_paddle.io.volumes import is_volume

_LONGEST_NAME = 160  # bytes; a file's name has 255, of which the longest ending, a mesh's, takes 79
_PICTURES = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)


@dataclass(frozen=True)
class Input:
    """One thing to segment.

    Attributes
    ----------
    name : str
        Beginning of its results' file names, unique among all inputs.
    is_shortened : bool
        Whether it stands for a name that leaves no room for endings.
    source : Path
        The file, or the folder of a series; what lies in an archive as if that were a folder.
    files : tuple of Path
        The files of a DICOM series; empty for a picture or a volume in one file.
    uid : str
        SeriesInstanceUID of a series.
    others : tuple of Path
        Further files, where every channel has one.
    other_series : tuple of tuple of Path
        Files of further series, where every channel is one.
    archive : Archive, optional
        Where it was unpacked from.
    unpacked : Path, optional
        Where a volume of an archive lies.
    """

    name: str
    source: Path
    files: tuple[Path, ...] = ()
    uid: str = ""
    others: tuple[Path, ...] = ()
    other_series: tuple[tuple[Path, ...], ...] = ()
    archive: Archive | None = None
    unpacked: Path | None = None
    is_shortened: bool = False

    @property
    def is_volume(self) -> bool:
        """Whether it is a series or a volume in a file."""
        return bool(self.files) or is_volume(self.source)

    @property
    def path(self) -> Path:
        """The file to read of what is a single one."""
        return self.unpacked or self.source

    @property
    def given(self) -> Path:
        """What lies on the disk: the source, or its archive."""
        return self.source if self.archive is None else self.archive.path

    def failure(self, error: MedsegError) -> Failure:
        """That it could not be segmented."""
        return Failure.of(self.source, error if self.archive is None else self.archive.of(error))


@dataclass(frozen=True)
class Failure:
    """What could not be segmented, and what to do about it."""

    source: Path
    message: str
    hint: str

    @classmethod
    def of(cls, source: Path, error: MedsegError) -> Failure:
        """From the error that was raised."""
        message = error.message if str(source) in error.message else f"{source}: {error.message}"
        return cls(source, message, error.hint)


@dataclass(frozen=True)
class Found:
    """What the given paths stand for.

    Attributes
    ----------
    inputs : tuple of Input
        In natural order (2 before 10).
    failures : tuple of Failure
        Paths that are none, and files that cannot be read.
    left_out : tuple of str
        What lies in the folders and is not segmented, folder by folder, for people.
    """

    inputs: tuple[Input, ...]
    failures: tuple[Failure, ...]
    left_out: tuple[str, ...]


@dataclass
class _Harvest:
    """What was found so far."""

    inputs: list[Input] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    deeper: list[Path] = field(default_factory=list)  # pictures and volumes in subfolders
    packed: list[Path] = field(default_factory=list)  # in an archive: these, and all pictures
    foreign: list[Path] = field(default_factory=list)  # neither picture nor volume

    def fail(self, path: Path, error: MedsegError) -> None:
        self.failures.append(Failure.of(path, error))


def find_inputs(paths: Sequence[Path], *, results: Path | None = None, unpack_to: Path) -> Found:
    """Everything to segment that `paths` stand for, and what is left out.

    A file stands for itself. A folder stands for the pictures and volumes (NIfTI, NRRD, MHA) directly in it,
    and for the DICOM series in it and below. Pictures and volumes below are left out, for they are often masks;
    hidden files are passed over. A zip archive stands for the volumes and series of the folder that is packed in it.

    Parameters
    ----------
    paths : sequence of Path
    results : Path, optional
        A folder that holds no inputs, even if it lies in one of `paths`.
    unpack_to : Path
        A folder where archives are unpacked, which must be there as long as the inputs are read.
    """
    harvest = _Harvest()
    for path in paths:
        try:
            if path.is_dir():
                _in_folder(path, results, harvest)
            elif path.suffix.lower() == ZIP_SUFFIX and path.is_file():
                _in_archive(path, unpack_to, harvest)
            else:
                harvest.inputs.append(_file(path))
        except MedsegError as error:
            harvest.fail(path, error)
    once: dict[tuple[Path, tuple[Path, ...]], Input] = {}
    for one in harvest.inputs:
        once.setdefault((one.source.resolve(), one.files), one)
    given = {one.source.resolve() for one in once.values()}
    deeper = [path for path in harvest.deeper if path.resolve() not in given]
    return Found(
        named_apart(list(once.values())),
        tuple(dict.fromkeys(harvest.failures)),
        (
            *_by_folder(deeper, "in a subfolder, where masks often lie; give it by itself to segment them"),
            *_by_folder(harvest.packed, "in an archive; unpack it and give their folder to segment them"),
            *_by_folder(harvest.foreign, "no picture, volume or DICOM image"),
        ),
    )


def _file(path: Path) -> Input:
    if not path.is_file():
        raise DataError(f"{path} is not there", hint="check the path")
    return Input(stem(path), path)


def _in_folder(folder: Path, results: Path | None, harvest: _Harvest) -> None:
    failed = len(harvest.failures)
    plain: list[Path] = []
    others: list[Path] = []
    for path in _files_below(folder, results, harvest):
        (plain if path.suffix.lower() in _PICTURES or is_volume(path) else others).append(path)
    series = group_by_series(others, on_bad=harvest.fail)
    here = [path for path in plain if path.parent == folder]
    deeper = [path for path in plain if path.parent != folder]
    if not here and not series and len(harvest.failures) == failed:
        raise _nothing(folder, deeper)
    harvest.inputs += [Input(stem(path), path) for path in here]
    harvest.inputs += _series(folder, [(files[0].parent, uid, files) for uid, files in series.items()])
    harvest.deeper += deeper
    known = {path for paths in series.values() for path in paths}
    known |= {failure.source for failure in harvest.failures[failed:]}
    harvest.foreign += [path for path in others if path not in known]


def _in_archive(path: Path, unpack_to: Path, harvest: _Harvest) -> None:
    """As a folder of the archive's name would be taken, but for pictures."""
    failed = len(harvest.failures)
    archive = unpack_zip(path, Path(tempfile.mkdtemp(dir=unpack_to)))
    inner = {one: _inside(name) for one, name in archive.names.items()}
    tops = {place.parts[0] for place in inner.values()}
    if len(tops) == 1 and all(len(place.parts) > 1 for place in inner.values()):  # a packed folder
        inner = {one: Path(*place.parts[1:]) for one, place in inner.items()}
    shown = {one: path / place for one, place in inner.items()}

    def bad(one: Path, error: MedsegError) -> None:
        harvest.fail(shown[one], archive.of(error))

    plain: list[Path] = []
    others: list[Path] = []
    for one in sorted(shown, key=lambda one: _natural(shown[one])):
        (plain if shown[one].suffix.lower() in _PICTURES or is_volume(shown[one]) else others).append(one)
    series = group_by_series(others, on_bad=bad)
    volumes: list[Path] = []
    left: list[Path] = []
    for one in plain:
        is_taken = is_volume(one) and len(inner[one].parts) == 1
        (volumes if is_taken else left).append(one if is_taken else shown[one])
    if not volumes and not series and len(harvest.failures) == failed:
        raise _nothing(path, left)
    found = [(shown[files[0]].parent, uid, files) for uid, files in series.items()]
    harvest.inputs += [Input(stem(shown[one]), shown[one], archive=archive, unpacked=one) for one in volumes]
    harvest.inputs += [replace(one, archive=archive) for one in _series(path, found)]
    harvest.packed += left
    known = {one for files in series.values() for one in files}
    failures = {failure.source for failure in harvest.failures[failed:]}
    harvest.foreign += [shown[one] for one in others if one not in known and shown[one] not in failures]


def _inside(name: str) -> Path:
    """A name of an archive as one below it, whatever it climbs to."""
    return Path(*(part for part in re.split(r"[/\\]+", name) if part not in ("", ".", "..")))


def _nothing(given: Path, deeper: Sequence[Path]) -> DataError:
    archive = given.suffix.lower() == ZIP_SUFFIX
    where = (
        f" itself; {len(deeper)} pictures or volumes lie in {'it' if archive else 'subfolders'}"
        if deeper
        else ""
    )
    if archive:
        hint = (
            "give an archive with DICOM series or volumes (NIfTI, NRRD, MHA) at its top; unpack it for others"
        )
    elif deeper:
        hint = f"give the folder itself, such as {deeper[0].parent}"
    else:
        hint = "give a folder with pictures (PNG, JPEG, TIFF, GIF, BMP), volumes (NIfTI, NRRD, MHA) or DICOM series"
    return DataError(f"{given}: nothing to segment in it{where}", hint=hint)


def _files_below(folder: Path, results: Path | None, harvest: _Harvest) -> list[Path]:
    """All files in `folder` and below, in natural order, but hidden ones and results."""

    def unreadable(error: OSError) -> None:
        place = Path(error.filename)
        said = DataError(f"{place} cannot be read: {error.strerror}", hint="check the folder's permissions")
        harvest.fail(place, said)

    files: list[Path] = []
    seen = {folder.resolve()} | ({results.resolve()} if results else set())  # links may lead in circles
    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        inside = Path(place)
        new = {name: (inside / name).resolve() for name in folders if not name.startswith(".")}
        folders[:] = [name for name, target in new.items() if target not in seen]
        seen.update(new.values())
        files += [inside / name for name in names if not name.startswith(".") and (inside / name).is_file()]
    return sorted(files, key=_natural)


def _by_folder(files: Sequence[Path], what: str) -> list[str]:
    """One line per folder, with the number of files and an example."""
    folders: dict[Path, list[str]] = {}
    for path in dict.fromkeys(files):
        folders.setdefault(path.parent, []).append(path.name)
    return [
        f"{folder}: {len(names)} file{'s' * (len(names) > 1)} ({names[0]}{', ...' * (len(names) > 1)}), {what}"
        for folder, names in folders.items()
    ]


def _series(given: Path, found: Iterable[tuple[Path, str, list[Path]]]) -> list[Input]:
    """One input per series, named by its folders from `given` on, and by its UID's end among several."""
    items = sorted(found, key=lambda item: (_natural(item[0]), item[1]))
    sharing = Counter(folder for folder, _, _ in items)
    endings = [f"_{uid.rsplit('.', 1)[-1]}" if sharing[folder] > 1 else "" for folder, uid, _ in items]
    top = given.resolve().name if given.suffix.lower() != ZIP_SUFFIX else given.stem
    return [
        Input("_".join((top, *folder.relative_to(given).parts)) + ending, folder, tuple(files), uid)
        for (folder, uid, files), ending in zip(items, endings, strict=True)
    ]


def named_apart(inputs: list[Input]) -> tuple[Input, ...]:
    """Give inputs of the same name their folder's name in front, and numbers where that does not help.

    All names leave room for the endings of their results.
    """
    inputs = [_fitting(one, one.name) for one in inputs]
    # File systems that ignore case would write Scan.png over scan.png.
    shared = Counter(one.name.casefold() for one in inputs)
    taken: set[str] = set()
    result = []
    for one in inputs:
        name, unique = one.name, one
        if shared[name.casefold()] > 1:
            name = f"{one.given.resolve().parent.name}_{name}".lstrip("_")
            unique = _fitting(one, name)
        number = 1
        while unique.name.casefold() in taken or (
            unique.name != one.name and unique.name.casefold() in shared
        ):
            number += 1
            unique = _fitting(one, f"{name}_{number}")
        taken.add(unique.name.casefold())
        result.append(unique)
    return tuple(result)


def _fitting(one: Input, name: str) -> Input:
    short = short_name(name, _LONGEST_NAME)
    return replace(one, name=short, is_shortened=one.is_shortened or short != name)


def stem(path: Path) -> str:
    """A file's name without its ending."""
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key in which numbers in names count as numbers."""
    parts = re.split(r"([0-9]+)", path.as_posix().casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
