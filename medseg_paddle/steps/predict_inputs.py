"""What `medseg predict` was given: pictures, volumes and series, each with a name for its results."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg_paddle.core import Volume
from medseg_paddle.errors import DataError, MedsegError
from medseg_paddle.io.case_volumes import read_channels_of
from medseg_paddle.io.channels import ARRAY_SUFFIX
from medseg_paddle.io.dicom import group_by_series, load_series
from medseg_paddle.io.images import IMAGE_SUFFIXES
from medseg_paddle.io.volumes import is_volume, read_volume

_PICTURES = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Input:
    """One thing to segment.

    Attributes
    ----------
    name : str
        Beginning of its results' file names, unique among all inputs.
    source : Path
        The file, or the folder of a series.
    files : tuple of Path
        The files of a DICOM series; empty for a picture or a volume in one file.
    others : tuple of Path
        Further files, where every channel has one.
    """

    name: str
    source: Path
    files: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def is_volume(self) -> bool:
        """Whether it is a series or a volume in a file."""
        return bool(self.files) or is_volume(self.source)

    def read_volumes(self, *, whole: bool = False) -> tuple[Volume, ...]:
        """Read the volume of a series or a file, or those of all channels.

        Parameters
        ----------
        whole : bool
            For a 3-D model, which a single NIfTI file may give all channels, on its fourth axis.
        """
        if self.files:
            return (load_series(self.files).volume,)
        if whole and not self.others:
            return read_channels_of(self.source)
        return tuple(read_volume(path) for path in (self.source, *self.others))


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
    foreign: list[Path] = field(default_factory=list)  # neither picture nor volume

    def fail(self, path: Path, error: MedsegError) -> None:
        self.failures.append(Failure.of(path, error))


def find_inputs(paths: Sequence[Path], *, results: Path | None = None) -> Found:
    """Everything to segment that `paths` stand for, and what is left out.

    A file stands for itself. A folder stands for the pictures and volumes (NIfTI, NRRD, MHA) directly in it,
    and for the DICOM series in it and below. Pictures and volumes below are left out, for they are often masks;
    hidden files are passed over.

    Parameters
    ----------
    paths : sequence of Path
    results : Path, optional
        A folder that holds no inputs, even if it lies in one of `paths`.
    """
    harvest = _Harvest()
    for path in paths:
        try:
            if path.is_dir():
                _in_folder(path, results, harvest)
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
        _named_apart(list(once.values())),
        tuple(dict.fromkeys(harvest.failures)),
        (
            *_by_folder(deeper, "in a subfolder, where masks often lie; give it by itself to segment them"),
            *_by_folder(harvest.foreign, "no picture, volume or DICOM image"),
        ),
    )


def together(inputs: Sequence[Input], channels: int) -> tuple[list[Input], list[Failure]]:
    """Put the files ``CASE_0000``, ``CASE_0001``, ... together, the channels of one case, named as nnU-Net does.

    Parameters
    ----------
    inputs : sequence of Input
    channels : int
        How many files make a case; with 1 the inputs stay as they are.

    Returns
    -------
    inputs : list of Input
        Cases, and whatever is not named in this way.
    failures : list of Failure
        Cases that lack a channel.
    """
    if channels == 1:
        return list(inputs), []
    cases: dict[tuple[Path, str], dict[int, Input]] = {}
    whole, failures = [], []
    for one in inputs:
        match = None if one.files else _CHANNEL.fullmatch(_stem(one.source))
        if match is None:
            whole.append(one)
        else:
            cases.setdefault((one.source.parent, match[1]), {})[int(match[2])] = one
    for (folder, case), found in cases.items():
        if set(found) != set(range(channels)):
            said = f"{folder / case}: channels {sorted(found)} are there, the model takes {channels}"
            error = DataError(said, hint=f"give the files {case}_0000 to {case}_{channels - 1:04d}")
            failures.append(Failure.of(next(iter(found.values())).source, error))
            continue
        first, *others = (found[number].source for number in range(channels))
        whole.append(Input(case, first, others=tuple(others)))
    return list(_named_apart(whole)), failures


def _file(path: Path) -> Input:
    if not path.is_file():
        raise DataError(f"{path} is not there", hint="check the path")
    return Input(_stem(path), path)


def _in_folder(folder: Path, results: Path | None, harvest: _Harvest) -> None:
    failed = len(harvest.failures)
    files = _files_below(folder, results, harvest)
    plain: list[Path] = []
    others: list[Path] = []
    for path in files:
        (plain if path.suffix.lower() in _PICTURES or is_volume(path) else others).append(path)
    series = group_by_series(others, on_bad=harvest.fail)
    here = [path for path in plain if path.parent == folder]
    deeper = [path for path in plain if path.parent != folder]
    if not here and not series and len(harvest.failures) == failed:
        where = f" itself; {len(deeper)} pictures or volumes lie in subfolders" if deeper else ""
        raise DataError(
            f"{folder}: nothing to segment in it{where}",
            hint=f"give the folder itself, such as {deeper[0].parent}"
            if deeper
            else "give a folder with pictures (PNG, JPEG, TIFF, GIF, BMP), volumes (NIfTI, NRRD, MHA) or DICOM series",
        )
    harvest.inputs += [Input(_stem(path), path) for path in here] + _series(folder, series.items())
    harvest.deeper += deeper
    known = {path for paths in series.values() for path in paths}
    known |= {failure.source for failure in harvest.failures[failed:]}
    harvest.foreign += [path for path in others if path not in known]


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


def _series(given: Path, found: Iterable[tuple[str, list[Path]]]) -> list[Input]:
    """One input per series, named by its folders from `given` on, and by its UID's end among several."""
    items = [(files[0].parent, uid, tuple(files)) for uid, files in found]
    items.sort(key=lambda item: (_natural(item[0]), item[1]))
    sharing = Counter(folder for folder, _, _ in items)
    endings = [f"_{uid.rsplit('.', 1)[-1]}" if sharing[folder] > 1 else "" for folder, uid, _ in items]
    top = given.resolve().name
    return [
        Input("_".join((top, *folder.relative_to(given).parts)) + ending, folder, files)
        for (folder, _, files), ending in zip(items, endings, strict=True)
    ]


def _named_apart(inputs: list[Input]) -> tuple[Input, ...]:
    """Give inputs of the same name their folder's name in front, and numbers where that does not help."""
    # File systems that ignore case would write Scan.png over scan.png.
    shared = Counter(one.name.casefold() for one in inputs)
    taken: set[str] = set()
    result = []
    for one in inputs:
        name = one.name
        if shared[name.casefold()] > 1:
            name = f"{one.source.resolve().parent.name}_{name}".lstrip("_")
        unique, number = name, 1
        while unique.casefold() in taken or (unique != one.name and unique.casefold() in shared):
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique.casefold())
        result.append(replace(one, name=unique))
    return tuple(result)


def _stem(path: Path) -> str:
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key in which numbers in names count as numbers."""
    parts = re.split(r"([0-9]+)", path.as_posix().casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
