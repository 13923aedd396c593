"""DICOM series with a mask picture per slice, a label volume, or a DICOM segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from medseg_paddle.config.prepare import PrepareSet, PrepareSpec
from medseg_paddle.core import Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.dicom import Series, group_by_series, load_series
from medseg_paddle.io.dicom_file import read_slice
from medseg_paddle.io.images import IMAGE_SUFFIXES, read_label
from medseg_paddle.io.volumes import is_volume, read_label_volume
from medseg_paddle.steps.sources.base import Picture, Search, Source
from medseg_paddle.steps.sources.names import (
    by_key,
    file_name,
    key_of,
    listed,
    matching,
    paired,
    patient_of,
    require_size,
)  # fmt: skip
from medseg_paddle.steps.sources.slices import on_grid, require_one_grid, slices
from medseg_paddle.steps.sources.volumes import note_value_names


def series(search: Search, part: PrepareSet) -> Iterator[Source]:
    """Series with their masks; those of several patterns are channels of one case."""
    masks = matching(search, part.labels or "")
    per_slice = [path for path in masks if path.suffix.lower() in IMAGE_SUFFIXES]
    if per_slice and len(per_slice) < len(masks):
        search.fault(
            f"{search.root}: '{part.labels}' matches mask pictures and other files, such as "
            f"{search.below(next(path for path in masks if path not in per_slice))}",
            hint="let `labels` in `prepare` match the masks alone",
        )
        return
    # Masks that lie beside the images are no images of the series.
    found = [_grouped(search, pattern, set(masks)) for pattern in part.channels]
    if not all(found):
        return
    if per_slice and len(found) == 1:
        yield from _with_pictures(search, part, found[0], by_key(search, per_slice))
    elif per_slice:
        yield from _with_pictures_of_first(search, part, found, by_key(search, per_slice))
    else:
        yield from _with_volumes(search, part, found, masks)


def _grouped(search: Search, pattern: str, masks: set[Path]) -> list[list[Path]]:
    """Files of each series that a pattern matches, in order; noted as a problem where there is none."""
    paths = [path for path in matching(search, pattern) if path not in masks]
    found = group_by_series(paths, on_bad=lambda _, error: search.problems.append(error))
    if paths and not found:
        search.fault(
            f"{search.root}: no DICOM image among '{pattern}'",
            hint="correct the pattern of the images in `prepare`",
        )
    return sorted(found.values())


def _with_pictures(
    search: Search, part: PrepareSet, found: list[list[Path]], masks: Mapping[str, Path]
) -> Iterator[Source]:
    """Series of one channel with a mask picture for every slice."""
    keyed = by_key(search, [path for paths in found for path in paths])
    whole = paired(search, keyed, masks, "mask")
    mask_of = {path: masks[key] for key, path in whole.items()}
    yield from _sources(search, part, [([paths], mask_of) for paths in found])


def _with_pictures_of_first(
    search: Search, part: PrepareSet, found: list[list[list[Path]]], masks: Mapping[str, Path]
) -> Iterator[Source]:
    """Series of several channels; the masks are those of the first channel's slices."""
    keyed = by_key(search, [path for paths in found[0] for path in paths])
    whole = paired(search, keyed, masks, "mask")
    mask_of = {path: masks[key] for key, path in whole.items()}
    yield from _sources(search, part, [(channels, mask_of) for channels in _together(search, found).values()])


def _with_volumes(
    search: Search, part: PrepareSet, found: list[list[list[Path]]], masks: list[Path]
) -> Iterator[Source]:
    """Series with one label volume or segmentation each."""
    together = _together(search, found)
    mask_by_key: dict[str, Path] = {}
    for path in masks:
        key = _series_key(search, path, together)
        if key is None:
            search.fault(
                f"{search.root}: mask without a series: {search.below(path)}",
                hint="add the series, move the mask away, or set `key` in `prepare` to what both paths have in common",
            )
        elif key in mask_by_key:
            search.fault(
                f"{mask_by_key[key]} and {path} are masks of one series ('{key}')",
                hint="let `labels` in `prepare` match one of them, or set `key`",
            )
        else:
            mask_by_key[key] = path
            _note_value_names(search, path)
    lonely = [
        search.below(channels[0][0].parent) for key, channels in together.items() if key not in mask_by_key
    ]
    if lonely:
        search.fault(
            f"{search.root}: no mask for the series in {listed(lonely)}",
            hint="add the missing masks, move these series away, or correct `key` in `prepare`",
        )
    cases = [(channels, mask_by_key[key]) for key, channels in together.items() if key in mask_by_key]
    yield from _sources(search, part, cases)


def _note_value_names(search: Search, mask: Path) -> None:
    """Note what a label volume or segmentation calls its values, where it does."""
    if is_volume(mask):
        note_value_names(search, mask)
        return
    # Here, for highdicom takes a second to load, and masks are more often pictures.
    from medseg_paddle.io.dicom_seg import is_segmentation, segment_names

    try:
        if is_segmentation(mask):
            search.value_names.append((mask, segment_names(mask)))
    except DataError as error:
        search.problems.append(error)


def _together(search: Search, found: list[list[list[Path]]]) -> dict[str, list[list[Path]]]:
    """Series of all channels by what their paths have in common; every channel must have one."""
    channels: list[dict[str, list[Path]]] = []
    for groups in found:
        keyed: dict[str, list[Path]] = {}
        for paths in groups:
            key = _folder_key(search, paths[0])
            if key is not None and key in keyed:
                search.fault(
                    f"{paths[0].parent} and {keyed[key][0].parent} hold two series with the same key '{key}'",
                    hint="set `key` in `prepare` to an expression that tells them apart, with the folder's name",
                )
            elif key is not None:
                keyed[key] = paths
        channels.append(keyed)
    first, *others = channels
    complete = {key: paths[0] for key, paths in first.items()}
    for number, other in enumerate(others, start=2):
        complete = paired(
            search, complete, {key: paths[0] for key, paths in other.items()}, f"series of channel {number}"
        )
    return {key: [one[key] for one in channels] for key in complete}


def _folder_key(search: Search, path: Path) -> str | None:
    """What a series is paired by: `key`, or else the folder above the series' own."""
    if search.spec.key is not None:
        try:
            return key_of(search, path)
        except DataError as error:
            search.problems.append(error)
            return None
    above = path.parent.parent
    return above.relative_to(search.root).as_posix() if above.is_relative_to(search.root) else "."


def _series_key(search: Search, mask: Path, series: Mapping[str, object]) -> str | None:
    """Key of the series that a mask belongs to: `key`, or else the nearest folder above it that has one."""
    if search.spec.key is not None:
        key = _folder_key(search, mask)
        return key if key in series else None
    for folder in mask.relative_to(search.root).parents:
        if folder.as_posix() in series:
            return folder.as_posix()
    return None


def _sources(
    search: Search, part: PrepareSet, cases: Sequence[tuple[list[list[Path]], Mapping[Path, Path] | Path]]
) -> Iterator[Source]:
    counts: dict[str, int] = {}
    for channels, masks in cases:
        first = channels[0][0]
        try:
            default = read_slice(first).patient_id if search.spec.patient is None else ""
            patient = patient_of(search, first, default=default)
            name = file_name(patient)
        except DataError as error:
            search.problems.append(error)
            continue
        counts[name] = counts.get(name, 0) + 1
        if counts[name] > 1:
            name = f"{name}-{counts[name]}"
        images = [path for paths in channels for path in paths]
        if isinstance(masks, Path):
            own: dict[Path, Path] | Path = masks
            files = (*images, masks)
        else:
            own = {path: masks[path] for path in channels[0] if path in masks}
            if len(own) < len(channels[0]):
                continue  # said already: a slice without mask
            files = (*images, *own.values())
        read = partial(_read, name, channels, own, patient, search.spec)
        yield Source(name, name, name, part.split, patient, files, read)


def _read(
    name: str,
    channels: list[list[Path]],
    masks: Mapping[Path, Path] | Path,
    patient: str,
    spec: PrepareSpec,
) -> Iterator[Picture]:
    first, *others = (load_series(paths) for paths in channels)
    for other in others:
        require_one_grid(first.paths[0], first.volume, other.paths[0], other.volume, "other channel")
    note = ""
    if isinstance(masks, Path):
        volume, note = _label_volume(masks, first)
        labels, paths = volume.array, [masks] * len(volume.array)
    else:
        paths = [masks[path] for path in first.paths]
        pictures = []
        for path, mask_path in zip(first.paths, paths, strict=True):
            pictures.append(read_label(mask_path))
            require_size(path, first.volume.array.shape[1:], mask_path, pictures[-1].shape)
        labels = np.stack(pictures)
    volumes = [first.volume, *(other.volume for other in others)]
    yield from slices(name, volumes, labels, paths, patient, spec, [note])


def _label_volume(path: Path, images: Series) -> tuple[Volume, str]:
    """A label volume or DICOM segmentation on the grid of a series, and what was done to bring it there."""
    if is_volume(path):
        return on_grid(images.paths[0], images.volume, path, read_label_volume(path), "mask")
    # Here, for highdicom takes a second to load, and masks are more often pictures.
    from medseg_paddle.io.dicom_seg import is_segmentation, read_segmentation

    if not is_segmentation(path):
        raise DataError(
            f"{path} is no mask picture, no label volume and no DICOM segmentation",
            hint="correct `labels` in `prepare`",
        )
    return read_segmentation(path, images), ""
