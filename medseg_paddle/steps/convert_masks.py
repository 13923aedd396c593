"""Masks in a folder, a file for each structure: what becomes the segments of a DICOM SEG, and what a SEG becomes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.core import LabelMap, LabelSet
from medseg_paddle.errors import DataError, MemoryShortError, RecipeError
from medseg_paddle.io.dicom_reference import Reference, labels_on
from medseg_paddle.io.dicom_seg import is_segmentation, segment_names
from medseg_paddle.io.files import new_folder, part_of_name
from medseg_paddle.io.memory import free_memory
from medseg_paddle.io.volumes import VOLUME_SUFFIXES, is_volume, read_label_volume
from medseg_paddle.steps.convert import Conversion, Wishes, convert

_MASK = LabelSet.generic(2)
_ENDING = ".nii.gz"


def find_masks(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Names and files of the masks directly in a folder, in the order of their names, and what else is there.

    Raises
    ------
    DataError
        There is none, or two have one name.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    masks: dict[str, Path] = {}
    for path in filter(is_volume, files):
        ending = max((one for one in VOLUME_SUFFIXES if path.name.lower().endswith(one)), key=len)
        name = path.name[: -len(ending)]
        if name in masks:
            raise DataError(
                f"{masks[name]} and {path} would be segments of one name", hint="rename or remove one of them"
            )
        masks[name] = path
    if not masks:
        raise DataError(
            f"{folder} holds no mask, which a SEG is written from",
            hint="name a label volume, or a folder with a NIfTI, NRRD or MetaImage file for each structure",
        )
    others = [str(path) for path in files if not is_volume(path)]
    return masks, [f"{len(others)} file(s) passed over, no mask: {others[0]}"] if others else []


def read_masks(paths: Sequence[Path], reference: Reference) -> NDArray[Any]:
    """Masks on the voxels of a series, together.

    Each is read twice where they overlap, so that those that do not never need more than one number for each voxel.

    Returns
    -------
    ndarray, shape ``reference.geometry.shape`` or that and the number of masks
        Which mask each voxel is in, from 1; where masks overlap, of each voxel and mask 0 or 1, uint8.

    Raises
    ------
    DataError
        As for :func:`~medseg_paddle.io.volumes.read_label_volume`; two labels in one file; voxels elsewhere than
        those of `reference`, or labels beyond them.
    MemoryShortError
        Masks that overlap need more memory than there is.
    """
    shape = reference.geometry.shape
    labels = np.zeros(shape, np.uint8 if len(paths) <= np.iinfo(np.uint8).max else np.uint16)
    for number, path in enumerate(paths, start=1):
        mask = _mask(path, reference)
        if labels[mask].any():
            break
        labels[mask] = number
    else:
        return labels
    del labels
    # The masks, once more in the order of frames where these have another, their frames, a bit for each voxel, before
    # and in the object, and how many masks a voxel is in, which highdicom counts.
    copies = 1 if reference.slices[0].raster.frames == 1 else 2
    needed = math.prod(shape) * (copies * len(paths) + len(paths) // 4 + 8)
    free = free_memory()
    if free is not None and needed > free:
        raise MemoryShortError(
            f"{len(paths)} masks that overlap need {needed / 2**30:.1f} GiB of memory at once, {free / 2**30:.1f} are "
            "free",
            hint="convert some of them at a time, into a SEG each",
        )
    together = np.zeros((*shape, len(paths)), np.uint8)
    for number, path in enumerate(paths):
        together[..., number] = _mask(path, reference)
    return together


def _mask(path: Path, reference: Reference) -> NDArray[np.bool_]:
    volume = read_label_volume(path)
    values = np.unique(volume.array)
    if np.count_nonzero(values) > 1:
        raise DataError(
            f"{path} holds {np.count_nonzero(values)} labels, and a mask in a folder is of one structure",
            hint="convert it by itself, or split it into masks",
        )
    mask = LabelMap((volume.array != 0).view(np.uint8), volume.geometry, _MASK)
    try:
        return labels_on(reference, mask).astype(bool)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", hint=error.hint) from error


def convert_each(source: Path, output: Path, *, wishes: Wishes | None = None) -> Conversion:
    """Write every segment of a DICOM segmentation as a file of its own; they may overlap.

    Parameters
    ----------
    source : Path
        The segmentation's file.
    output : Path
        Folder to make. Each file in it, ``.nii.gz``, is called as its segment is, and holds the segment's number
        and 0, on the grid that :func:`~medseg_paddle.steps.convert.convert` puts a segmentation on.
    wishes : Wishes, optional
        As for :func:`~medseg_paddle.steps.convert.convert`; `segments` names some of them.

    Raises
    ------
    RecipeError
        `source` is no segmentation's file.
    DataError, SetupError
        As for :func:`~medseg_paddle.steps.convert.convert`; nothing is written then. `output` is there and not empty.
    """
    wishes = wishes or Wishes()
    if not source.is_file() or is_volume(source) or not is_segmentation(source):
        raise RecipeError(
            f"{source} is no DICOM segmentation, and segments are to be files of their own",
            hint="name the file of a SEG, or leave out --each",
        )
    names = segment_names(source)
    if not names:
        raise DataError(f"{source} holds no segment", hint="export the segmentation again")
    files, wanted = _file_names(names), dict.fromkeys(wishes.segments or names)
    notes: list[str] = []
    with new_folder(output) as folder:
        for number in wanted:
            one = replace(wishes, segments=(number,))
            # A number that is not there has no name; reading refuses it.
            made = convert(source, folder / files.get(number, f"{number}{_ENDING}"), wishes=one)
            notes += [note for note in made.notes if note not in notes]
            notes.append(f"segment {number} ('{names[number]}') is {output / files[number]}")
    what = f"{len(wanted)} segment{'s' * (len(wanted) > 1)}"
    return Conversion(output, made.shape, made.spacing, what, "unknown", tuple(notes))


def _file_names(names: dict[int, str]) -> dict[int, str]:
    """Each as its segment is called; with the number where two would be the same on some file system."""
    parts = {number: part_of_name(name) for number, name in names.items()}
    taken = Counter(part.casefold() for part in parts.values())
    return {
        number: f"{part}{_ENDING}"
        if part and taken[part.casefold()] == 1
        else f"{part}_{number}{_ENDING}".lstrip("_")
        for number, part in parts.items()
    }
