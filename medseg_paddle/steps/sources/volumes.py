"""Volumes in files (NIfTI, NRRD, MHA) with label volumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from medseg_paddle.config.prepare import PrepareSet, PrepareSpec
from medseg_paddle.core import Volume
from medseg_paddle.errors import DataError
from medseg_paddle.io.volumes import label_names, read_label_volume, read_volume
from medseg_paddle.steps.sources.base import Picture, Search, Source
from medseg_paddle.steps.sources.names import chosen, keyed, paired
from medseg_paddle.steps.sources.pictures import channel_files, named_case
from medseg_paddle.steps.sources.slices import on_grid, slices


def volumes(search: Search, part: PrepareSet) -> Iterator[Source]:
    """Volumes and label volumes, one of each for every case."""
    files, labels = channel_files(search, part), keyed(search, part.labels or "")
    images = paired(search, {key: paths[0] for key, paths in files.items()}, labels, "label")
    for key in chosen(search, part, images, files):
        yield from volume_source(search, part, key, files[key], labels[key])


def volume_source(
    search: Search, part: PrepareSet, key: str, images: tuple[Path, ...], label: Path
) -> Iterator[Source]:
    """One volume with its label as a source; none where it has no name."""
    note_value_names(search, label)
    named = named_case(search, key, images[0])
    if named is not None:
        read = partial(_read_volumes, named[0], images, label, named[1], search.spec)
        own = (*images, label)
        yield Source(images[0].name, named[0], key, part.split, named[1], own, read, image_files=len(images))


def note_value_names(search: Search, label: Path) -> None:
    """Note what a label volume calls its values, where it does."""
    try:
        search.value_names.append((label, label_names(label)))
    except DataError as error:
        search.problems.append(error)


def _read_volumes(
    name: str, images: tuple[Path, ...], label_path: Path, patient: str, spec: PrepareSpec
) -> Iterator[Picture]:
    channels = [_with_units(read_volume(path), spec) for path in images]
    notes = []
    for place, path in enumerate(images[1:], start=1):
        channels[place], note = on_grid(images[0], channels[0], path, channels[place], "other channel")
        notes.append(note)
    labels, note = on_grid(images[0], channels[0], label_path, read_label_volume(label_path), "label")
    paths = [label_path] * len(labels.array)
    yield from slices(name, channels, labels.array, paths, patient, spec, [*notes, note])


def _with_units(volume: Volume, spec: PrepareSpec) -> Volume:
    return volume if spec.units is None else replace(volume, units=spec.units)
