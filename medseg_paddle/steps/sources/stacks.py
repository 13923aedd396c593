"""Stacks: TIFF files of many pages with label files of as many, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from medseg_paddle.config.prepare import PrepareSet, PrepareSpec
from medseg_paddle.errors import DataError
from medseg_paddle.io.stacks import read_label_stack, read_stack
from medseg_paddle.steps.sources.base import Picture, Search, Source
from medseg_paddle.steps.sources.names import chosen, keyed, paired, require_size
from medseg_paddle.steps.sources.pictures import channel_files, named_case, windowed


def stacks(search: Search, part: PrepareSet) -> Iterator[Source]:
    """TIFF files of many pages and their label files, page by page."""
    files, labels = channel_files(search, part), keyed(search, part.labels or "")
    images = paired(search, {key: paths[0] for key, paths in files.items()}, labels, "label")
    for key, path in chosen(search, part, images, files).items():
        named = named_case(search, key, path)
        if named is not None:
            read = partial(_read_stacks, named[0], files[key], labels[key], named[1], search.spec)
            yield Source(path.name, named[0], key, part.split, named[1], (*files[key], labels[key]), read)


def _read_stacks(
    name: str, images: tuple[Path, ...], label_path: Path, patient: str, spec: PrepareSpec
) -> Iterator[Picture]:
    channels = [read_stack(path) for path in images]
    for path, channel in zip(images, channels, strict=True):
        require_size(images[0], channels[0].shape[:3], path, channel.shape[:3])
        if len(images) > 1 and channel.ndim == 4:
            raise DataError(f"{path} is in colour, a channel is grey", hint="name one file per channel")
    labels = read_label_stack(label_path)
    require_size(images[0], channels[0].shape[:3], label_path, labels.shape)
    for page, label in enumerate(labels):
        image = (
            channels[0][page] if len(channels) == 1 else np.stack([one[page] for one in channels], axis=-1)
        )
        yield Picture(
            id=f"{name}_{page:03d}",
            image=windowed(image, spec, images[0]),
            label=label,
            label_path=label_path,
            patient=patient,
            volume=name,
        )
