"""Annotations object by object: one mask picture per object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import DataError
from medseg_paddle.io.images import read_label

Overlap = Literal["refuse", "earlier", "later"]


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
    objects = np.zeros(shape, dtype=np.int32)
    for number, path in enumerate(paths, start=1):
        mask = _read_mask(path, threshold)
        if mask.shape != shape:
            raise DataError(
                f"{path} is {mask.shape[0]} x {mask.shape[1]} pixels, its picture {shape[0]} x {shape[1]}",
                hint="export mask and picture in one size",
            )
        taken = mask & (objects != 0)
        if taken.any() and overlap == "refuse":
            other = paths[int(objects[taken][0]) - 1]
            raise DataError(
                f"{path} and {other} overlap in {int((taken & (objects == objects[taken][0])).sum())} pixels",
                hint="say which object keeps such pixels, the earlier or the later one",
            )
        objects[mask & ~taken if overlap == "earlier" else mask] = number
    return objects


def _read_mask(path: Path, threshold: int | None) -> NDArray[np.bool_]:
    stored = read_label(path)
    values = np.unique(stored)
    if threshold is None and (len(values) > 2 or (len(values) == 2 and values[0] != 0)):
        listed = ", ".join(str(value) for value in values[:8]) + (", ..." if len(values) > 8 else "")
        raise DataError(
            f"{path} holds the values {listed}; the mask of one object holds 0 and one other value",
            hint="name a threshold above which a pixel is the object, for example 127",
        )
    mask = np.asarray(stored > (threshold or 0))
    if not mask.any():
        raise DataError(f"{path} is the mask of an object, and empty", hint="remove it, or draw the object")
    return mask
