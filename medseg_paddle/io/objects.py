"""Annotations object by object: instance maps, and one mask picture per object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Overlap = Literal["refuse", "earlier", "later"]


def read_instances(path: Path) -> NDArray[np.int32]:
    """Read an instance map: 0 is background, every other value one object.

    Returns
    -------
    ndarray, shape (height, width), int32
        Values as they are stored (8 or 16 bits).

    Raises
    ------
    DataError
        As for :func:`~medseg_paddle.io.images.read_label`.
    """
    raise NotImplementedError


def read_object_masks(
    paths: Sequence[Path],
    shape: tuple[int, int],
    *,
    threshold: int | None = None,
    overlap: Overlap = "refuse",
) -> NDArray[np.int32]:
    """Read one mask picture per object into an instance map.

    Parameters
    ----------
    paths : sequence of Path
        Object i + 1 is ``paths[i]``. May be empty: a picture without objects.
    shape : tuple of int
        Height and width of the picture that was annotated.
    threshold : int, optional
        Values above it are the object. Without it, a mask holds 0 and one other value.
    overlap : {"refuse", "earlier", "later"}
        Who keeps a pixel that two objects claim. It does not matter to who only asks where any object is.

    Returns
    -------
    ndarray, shape `shape`, int32
        0 for background, object numbers else.

    Raises
    ------
    DataError
        A mask of another size, empty, or of more than two values; overlap where that is refused; as
        for :func:`~medseg_paddle.io.images.read_label`.
    """
    raise NotImplementedError
