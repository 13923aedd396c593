"""What every layout gives: sources to read, their pictures, and what is wrong or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config.prepare import PrepareSpec
from medseg_paddle.core import Slicing, Split, Volume
from medseg_paddle.errors import DataError


@dataclass(frozen=True, eq=False)
class Picture:
    """One image as it is written, upright, with its raw label.

    Attributes
    ----------
    id, patient, volume, slicing
        As in :class:`medseg_paddle.core.Case`.
    image : ndarray, (height, width) or (height, width, channels), uint8 or uint16
        16 bits where a picture has them: prediction reads such a picture without rounding, too.
    label : ndarray, (height, width), uint8 or uint16; (height, width, 3) with `label_colors`
        Values as stored.
    roi : ndarray, (height, width), bool, or None
    label_path : Path
        Where the label was read, for messages.
    palette : mapping
        Stored value to colour, ``red << 16 | green << 8 | blue``, where the label is indices into a palette.
    notes : tuple of str
        What was done to its files that people should know; of a volume with its first slice.
    """

    id: str
    image: NDArray[Any]
    label: NDArray[Any]
    label_path: Path
    patient: str
    roi: NDArray[np.bool_] | None = None
    volume: str = ""
    slicing: Slicing | None = None
    palette: Mapping[int, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class WholeVolume(Picture):
    """A volume as it is written, with its raw label.

    Attributes
    ----------
    image : ndarray, (height, width) or (height, width, channels), uint8
        Its middle slice, upright, from the darkest to the brightest usual intensity: to be looked at.
    label : ndarray, (slices, rows, columns), uint8 or uint16
        On the grid of the volumes.
    volumes : tuple of Volume
        On one grid, a channel each.
    """

    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, eq=False)
class Source:
    """A picture or a volume to read; it can be sent to another process.

    Attributes
    ----------
    name : str
        For messages and progress.
    id : str
        What its pictures' files are named after.
    key : str
        What its image and its label have in common.
    split : str
        As the recipe or its table has it: a split, or ``"auto"``.
    patient : str
    files : tuple of Path
        All that it is read from, images first.
    read : callable
        Yields its pictures.
    center : str
        Where it was taken; empty where nobody said.
    image_files : int
        How many of `files` are its image, one for each channel; 1 for a series.
    described : str
        Digest of what other files say of its pictures, such as polygons; empty where they say nothing.
    """

    name: str
    id: str
    key: str
    split: Split | Literal["auto"]
    patient: str
    files: tuple[Path, ...]
    read: Callable[[], Iterator[Picture]]
    center: str = ""
    image_files: int = 1
    described: str = ""


@dataclass(frozen=True)
class Found:
    """What a source folder holds.

    Attributes
    ----------
    sources : tuple of Source
        Paired, in the order of the recipe's sets and of the paths.
    problems : tuple of DataError
        All that keeps the folder from being prepared, such as an image without label.
    left_out : tuple of str
        What lies in the folder and is not taken, and why; no cause to stop.
    indexes : tuple of Path
        Files that name others, such as a list.
    """

    sources: tuple[Source, ...]
    problems: tuple[DataError, ...]
    left_out: tuple[str, ...]
    indexes: tuple[Path, ...]


@dataclass
class Search:
    """A search under way: the rules, the folder, and what has come up so far."""

    spec: PrepareSpec
    root: Path
    problems: list[DataError] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    indexes: list[Path] = field(default_factory=list)
    value_names: list[tuple[Path, Mapping[int, str]]] = field(default_factory=list)  # what files call values
    unlisted: dict[Path, str] = field(default_factory=dict)  # image to the list that does not name it

    def fault(self, message: str, *, hint: str) -> None:
        """Note something that is wrong, once, and go on."""
        if all(message != known.message for known in self.problems):  # two sets may share a pattern
            self.problems.append(DataError(message, hint=hint))

    def below(self, path: Path) -> str:
        """Path below the source folder, for messages and patterns."""
        return path.relative_to(self.root).as_posix()
