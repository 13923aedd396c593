"""Pictures with label pictures, paired by their names; with one mask per object; as PaddleSeg's lists name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.config.prepare import PrepareSet, PrepareSpec
from medseg_paddle.errors import DataError
from medseg_paddle.io.channels import read_channels
from medseg_paddle.io.dicom import DICOM_SUFFIXES
from medseg_paddle.io.dicom_pictures import read_dicom_picture
from medseg_paddle.io.images import read_label, read_palette, read_roi, read_samples
from medseg_paddle.io.objects import read_object_masks
from medseg_paddle.preprocess.window import windowed_picture
from medseg_paddle.steps.sources.base import Picture, Search, Source
from medseg_paddle.steps.sources.names import (
    below_root,
    by_key,
    chosen,
    file_name,
    index_file,
    key_of,
    keyed,
    listed,
    matching,
    paired,
    patient_of,
    require_size,
)  # fmt: skip

_BETWEEN = re.compile(r"[ \t,;]+")


def pairs(search: Search, part: PrepareSet) -> Iterator[Source]:
    """Pictures and label pictures, one of each for every case."""
    files, labels = channel_files(search, part), keyed(search, part.labels or "")
    images = paired(search, {key: paths[0] for key, paths in files.items()}, labels, "label")
    rois = None if part.rois is None else keyed(search, part.rois)
    if rois is not None:
        images = paired(search, images, rois, "roi")
    for key in chosen(search, part, images, files):
        yield from source_of(search, part, key, files[key], labels[key], None if rois is None else rois[key])


def objects(search: Search, part: PrepareSet) -> Iterator[Source]:
    """Pictures with one mask picture per object."""
    files = channel_files(search, part)
    masks: dict[str, list[Path]] = {}
    for path in matching(search, part.labels or ""):
        try:
            masks.setdefault(key_of(search, path), []).append(path)
        except DataError as error:
            search.problems.append(error)
    first = {key: paths[0] for key, paths in masks.items()}
    images = paired(search, {key: paths[0] for key, paths in files.items()}, first, "mask")
    for key, path in chosen(search, part, images, files).items():
        named = named_case(search, key, path)
        if named is not None:
            read = partial(_read_objects, named[0], files[key], tuple(masks[key]), named[1], search.spec)
            own = (*files[key], *masks[key])
            yield Source(
                path.name, named[0], key, part.split, named[1], own, read, image_files=len(files[key])
            )


def lists(search: Search, part: PrepareSet) -> Iterator[Source]:
    """Pictures and label pictures that PaddleSeg's lists name line by line."""
    listing = index_file(search, part.index or "")
    if listing is None:
        return
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        search.fault(f"list {listing} cannot be read: {error}", hint="save it as UTF-8 text")
        return
    labels: dict[Path, Path] = {}
    alone = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cut = cut_line(search.root, line.strip(), part.separator)
        if len(cut) == 1 and len(cut[0]) == 1:
            alone.append(line.strip())
        elif len(cut) == 1:
            image, label = cut[0]
            if image in labels:
                search.fault(
                    f"{listing}, line {number}: {image} is listed twice", hint="list every image once"
                )
            labels.setdefault(image, label)
        elif cut:
            search.fault(
                f"{listing}, line {number}: '{line.strip()}' can be read in {len(cut)} ways",
                hint="say what stands between image and label with `separator` in `prepare`",
            )
        else:
            search.fault(
                f"{listing}, line {number}: '{line.strip()}' does not name an image and a label that are files "
                f"below {search.root}",
                hint="correct the list, the source folder, or `separator` in `prepare`",
            )
    if alone:
        search.left_out.append(
            f"{len(alone)} images without a label in {search.below(listing)}: {listed(alone)}"
        )
    for key, image in by_key(search, labels).items():
        yield from source_of(search, part, key, (image,), labels[image], None)


def cut_line(root: Path, line: str, separator: str | None) -> list[tuple[Path, ...]]:
    """Every way to read a line of a list as an image and its label, both of them files; or as an image alone.

    Parameters
    ----------
    root : Path
        What the paths are relative to.
    line : str
        Without its end.
    separator : str or None
        What stands between the two; None for blanks, tab, comma and semicolon. A path may hold these as well.
    """
    if separator is None:
        places = [(found.start(), found.end()) for found in _BETWEEN.finditer(line)]
    else:
        places = [(found.start(), found.end()) for found in re.finditer(re.escape(separator), line)]
    found = []
    for start, end in places:
        texts = [text.strip().strip("\"'") for text in (line[:start], line[end:])]
        two = [path for text in texts if text and (path := _file_below(root, text)) is not None]
        if len(two) == len(texts):
            found.append(tuple(two))
    if not found and (alone := _file_below(root, line.strip("\"'"))) is not None:
        return [(alone,)]
    if not found and "\\" in line:  # written on Windows
        return cut_line(root, line.replace("\\", "/"), separator)
    return found


def _file_below(root: Path, text: str) -> Path | None:
    path = below_root(root, root, text)
    return path if path is not None and path.is_file() else None


def channel_files(search: Search, part: PrepareSet) -> dict[str, tuple[Path, ...]]:
    """The files of every image by its key: one, or one for each channel."""
    first, *others = (keyed(search, pattern) for pattern in part.channels)
    images = dict(first)
    for number, other in enumerate(others, start=2):
        images = paired(search, images, other, f"file of channel {number}")
    return {key: tuple(one[key] for one in (first, *others)) for key in images}


def named_case(search: Search, key: str, path: Path, patient: str | None = None) -> tuple[str, str] | None:
    """File name and patient of a case; None, and a problem noted, where there is none."""
    try:
        return file_name(key), patient_of(search, path, default=key if patient is None else patient)
    except DataError as error:
        search.problems.append(error)
        return None


def source_of(
    search: Search, part: PrepareSet, key: str, images: tuple[Path, ...], label: Path, roi: Path | None
) -> Iterator[Source]:
    """One picture with its label as a source; none where it has no name."""
    named = named_case(search, key, images[0])
    if named is not None:
        files = (*images, label) if roi is None else (*images, label, roi)
        read = partial(_read_pair, named[0], images, label, roi, named[1], search.spec)
        yield Source(
            images[0].name, named[0], key, part.split, named[1], files, read, image_files=len(images)
        )


def _read_pair(
    name: str,
    images: tuple[Path, ...],
    label_path: Path,
    roi_path: Path | None,
    patient: str,
    spec: PrepareSpec,
) -> Iterator[Picture]:
    image = read_picture(images, spec)
    label = read_label_picture(label_path, spec)
    require_size(images[0], image.shape[:2], label_path, label.shape[:2])
    roi = None
    if roi_path is not None:
        roi = read_roi(roi_path)
        require_size(images[0], image.shape[:2], roi_path, roi.shape)
    # Where every value but 0 is one class, the others' colours tell objects apart and mean nothing.
    colors = read_palette(label_path, label) if spec.label_colors is None else {}
    colors = {value: color for value, color in colors.items() if value == 0 or spec.instances is None}
    yield Picture(name, image, label, label_path, patient, roi, palette=colors)


def _read_objects(
    name: str, images: tuple[Path, ...], masks: tuple[Path, ...], patient: str, spec: PrepareSpec
) -> Iterator[Picture]:
    image = read_picture(images, spec)
    height, width = image.shape[:2]
    # Who keeps a pixel does not matter: all objects are one class.
    label = read_object_masks(masks, (height, width), threshold=spec.label_threshold, overlap="later")
    yield Picture(name, image, (label != 0).astype(np.uint8), masks[0].parent, patient)


def read_picture(paths: Sequence[Path], spec: PrepareSpec) -> NDArray[Any]:
    """Read a picture from one file, or from one for each channel, with the recipe's window if it has one.

    Returns
    -------
    ndarray, (height, width) or (height, width, channels), uint8 or uint16

    Raises
    ------
    DataError
        A file that cannot be read, or has other channels or another depth than the recipe says.
    """
    if len(paths) == 1 and paths[0].suffix.lower() in DICOM_SUFFIXES:
        windows = [(one.level, one.width) for one in spec.windows]
        return read_dicom_picture(paths[0], windows, spec.bits or 16)
    several = len(paths) > 1 or spec.channels is not None or paths[0].suffix.lower() == ".npy"
    image = read_channels(paths) if several else read_samples(paths[0])
    if spec.channels is not None and image.shape[2] != spec.channels:
        raise DataError(
            f"{paths[0]} holds {image.shape[2]} channels, `channels` says {spec.channels}",
            hint="correct `channels` in `prepare`, or leave this file out",
        )
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    return windowed(image, spec, paths[0])


def windowed(image: NDArray[Any], spec: PrepareSpec, path: Path) -> NDArray[Any]:
    """Apply the recipe's window for pictures of 16 bits; without one the picture is as stored.

    Raises
    ------
    DataError
        A picture of 8 bits, which needs no window.
    """
    if not spec.windows:
        return image
    try:
        return windowed_picture(image, [(one.level, one.width) for one in spec.windows], spec.bits or 16)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", hint=error.hint) from error


def read_label_picture(path: Path, spec: PrepareSpec) -> NDArray[Any]:
    """Read a label picture's values as stored; red, green and blue where the recipe declares colours."""
    if spec.label_colors is None:
        return read_label(path)
    samples = read_samples(path)
    if samples.dtype != np.uint8:
        raise DataError(
            f"{path} has 16 bits, `label_colors` are of 8", hint="save the label picture with 8 bits"
        )
    return np.repeat(samples[:, :, None], 3, axis=2) if samples.ndim == 2 else samples
