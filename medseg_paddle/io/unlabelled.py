"""Pictures of another hospital, without labels: they lend their style, or their features are aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_paddle.core import MANIFEST_NAME, Case, Manifest
from medseg_paddle.errors import DataError
from medseg_paddle.io.channels import ARRAY_SUFFIX
from medseg_paddle.io.images import IMAGE_SUFFIXES
from medseg_paddle.io.volumes import is_volume

MOST_STYLES = 200
"""Pictures of a folder that styles are taken from; of more, these, evenly from all over it."""


def style_files(folder: Path) -> tuple[Path, ...]:
    """The pictures whose style a transform takes, by name, :data:`MOST_STYLES` at most.

    Raises
    ------
    DataError
        See :func:`pictures_in`.
    """
    files = pictures_in(folder, "styles")
    chosen = np.linspace(0, len(files) - 1, min(len(files), MOST_STYLES)).astype(int)
    return tuple(files[number] for number in chosen)


def target_cases(folder: Path) -> tuple[Case, ...]:
    """The pictures whose features a training aligns with its own, by name.

    Raises
    ------
    DataError
        See :func:`pictures_in`.
    """
    return tuple(Case(id=path.as_posix(), image=path) for path in pictures_in(folder, "alignment.target"))


def pictures_in(folder: Path, key: str) -> tuple[Path, ...]:
    """The pictures of a folder that a training may look at.

    Parameters
    ----------
    folder : Path
        Of a prepared data set its training images; else every picture that lies directly in it.
    key : str
        What in the recipe names it, for a message.

    Raises
    ------
    DataError
        There is no folder or no picture in it, its manifest cannot be read or names whole volumes, or it lies inside
        a prepared data set, where nothing says which pictures are held out.
    """
    if not folder.is_dir():
        raise DataError(
            f"{key}: folder {folder} is not there",
            hint="name a folder with pictures from the other hospital, or one that `medseg prepare` made of them",
        )
    if (folder / MANIFEST_NAME).is_file():
        files = [case.image for case in Manifest.load(folder).cases("train")]
    else:
        around = next((p for p in folder.resolve().parents if (p / MANIFEST_NAME).is_file()), None)
        if around is not None:
            raise DataError(
                f"{key}: {folder} is a part of the prepared data set {around}, with its held-out pictures",
                hint=f"name {around} itself: its training images are taken then",
            )
        suffixes = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise DataError(
            f"{key}: {folder} holds no picture",
            hint="put pictures directly into it; of a prepared data set the training images are taken",
        )
    volume = next((path for path in files if is_volume(path)), None)
    if volume is not None:
        raise DataError(
            f"{key}: {folder} holds whole volumes, such as {volume.name}",
            hint="prepare the data again with `volumes: slices` and a `window`",
        )
    return tuple(files)
