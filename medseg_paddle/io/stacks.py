"""Multi-page TIFF: one picture a page, all of one size and kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.io.pictures import decode_pages, indices, intensities


def read_stack(path: Path) -> NDArray[Any]:
    """Read all pages of a TIFF as they are stored; black and white as 0 and 255.

    Returns
    -------
    ndarray, shape (pages, height, width) or, in colour, (pages, height, width, 3), uint8 or uint16

    Raises
    ------
    DataError
        Not a TIFF; pages of several sizes or kinds; a stack of which the file's directory tells a
        part only (ImageJ's large files); pages that are channels and slices at once; more than the
        size limit; and per page as for :func:`~medseg_paddle.io.images.read_samples`.
    """
    return np.stack([intensities(path, page) for page in decode_pages(path)])


def read_label_stack(path: Path) -> NDArray[Any]:
    """Read a stack of label maps; indices as they are stored.

    Returns
    -------
    ndarray, shape (pages, height, width), uint8 or uint16

    Raises
    ------
    DataError
        As for :func:`read_stack`, and per page as for :func:`~medseg_paddle.io.images.read_label`.
    """
    return np.stack([indices(path, page) for page in decode_pages(path, keep_palette=True)])
