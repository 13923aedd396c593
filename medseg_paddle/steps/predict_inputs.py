"""What `medseg predict` was given: pictures, volumes and series, each with a name for its results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg_paddle.core import Volume
from medseg_paddle.errors import DataError, MedsegError
from medseg_paddle.io.dicom import find_series, group_by_series, load_series
from medseg_paddle.io.images import IMAGE_SUFFIXES
from medseg_paddle.io.nifti import read_nifti
from medseg_paddle.predictor import NIFTI_SUFFIXES


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
        The files of a DICOM series; empty for a picture or a NIfTI volume.
    """

    name: str
    source: Path
    files: tuple[Path, ...] = ()

    @property
    def is_volume(self) -> bool:
        """Whether it is a series or a NIfTI file."""
        return bool(self.files) or _is_nifti(self.source)

    def read_volume(self) -> Volume:
        """Read the volume of a series or a NIfTI file."""
        return load_series(self.files).volume if self.files else read_nifti(self.source)


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


def find_inputs(paths: Sequence[Path]) -> tuple[tuple[Input, ...], tuple[Failure, ...]]:
    """Everything to segment that `paths` stand for, in natural order (2 before 10), and what is none.

    A file stands for itself. A folder stands for the pictures, NIfTI volumes and DICOM series directly
    in it; if there are none, for all DICOM series below it.
    """
    found = [_found(path) for path in paths]
    once: dict[tuple[Path, tuple[Path, ...]], Input] = {}
    for one in (one for these in found if not isinstance(these, Failure) for one in these):
        once.setdefault((one.source.resolve(), one.files), one)
    return _named_apart(list(once.values())), tuple(these for these in found if isinstance(these, Failure))


def _found(path: Path) -> list[Input] | Failure:
    try:
        return _in_folder(path) if path.is_dir() else [_file(path)]
    except MedsegError as error:
        return Failure.of(path, error)


def _file(path: Path) -> Input:
    if not path.is_file():
        raise DataError(f"{path} is not there", hint="check the path")
    if path.suffix.lower() == ".dcm":
        raise DataError(
            f"{path} is one DICOM file, series are segmented", hint="give the folder that holds its series"
        )
    return Input(_stem(path), path)


def _in_folder(folder: Path) -> list[Input]:
    files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=_natural)
    plain = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES or _is_nifti(path)]
    series = group_by_series(path for path in files if path not in set(plain))
    if not plain and not series:
        series = find_series(folder)
    if not plain and not series:
        raise DataError(
            f"{folder}: nothing to segment in it",
            hint="give a folder with pictures (PNG, JPEG, TIFF, GIF, BMP), NIfTI volumes or DICOM series",
        )
    return [Input(_stem(path), path) for path in plain] + _series(folder, series.items())


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


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def _stem(path: Path) -> str:
    return path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key in which numbers in names count as numbers."""
    parts = re.split(r"([0-9]+)", path.as_posix().casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
