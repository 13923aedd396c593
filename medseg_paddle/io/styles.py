"""Pictures that only lend their style."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_paddle.core import MANIFEST_NAME, Manifest
from medseg_paddle.errors import DataError
from medseg_paddle.io.channels import ARRAY_SUFFIX
from medseg_paddle.io.images import IMAGE_SUFFIXES

MOST_STYLES = 200
"""Pictures of a folder that styles are taken from; of more, these, evenly from all over it."""


def style_files(folder: Path) -> tuple[Path, ...]:
    """The pictures whose style a transform takes, by name, :data:`MOST_STYLES` at most.

    Parameters
    ----------
    folder : Path
        Of a prepared data set its training images; else every picture that lies directly in it.

    Raises
    ------
    DataError
        There is no folder or no picture in it, or its manifest cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"styles: folder {folder} is not there",
            hint="name a folder with pictures from the other hospital, or one that `medseg prepare` made of them",
        )
    if (folder / MANIFEST_NAME).is_file():
        files = [case.image for case in Manifest.load(folder).cases("train")]
    else:
        suffixes = (*IMAGE_SUFFIXES, ARRAY_SUFFIX)
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise DataError(
            f"styles: {folder} holds no picture",
            hint="put pictures directly into it; of a prepared data set the training images are taken",
        )
    chosen = np.linspace(0, len(files) - 1, min(len(files), MOST_STYLES)).astype(int)
    return tuple(files[number] for number in chosen)
