"""What the values of a label stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg_paddle.errors import DataError

_SHOWN = 5  # values in a message


def require_classes(
    label: NDArray[Any], path: Path, num_classes: int, ignore_index: int, elements: str
) -> None:
    """See that every value of a label is a class, or the ignored one.

    Parameters
    ----------
    label : ndarray of integers
    path : Path
        Its file.
    num_classes, ignore_index : int
    elements : str
        What it consists of, for people: pixels or voxels.

    Raises
    ------
    DataError
        One is not.
    """
    wrong = label[((label < 0) | (label >= num_classes)) & (label != ignore_index)]
    if not wrong.size:
        return
    values, counts = np.unique(wrong, return_counts=True)
    shown = zip(values[:_SHOWN], counts[:_SHOWN], strict=True)
    listed = ", ".join(f"{value} ({count} {elements})" for value, count in shown)
    raise DataError(
        f"{path}: label value {listed} for {num_classes} classes (0..{num_classes - 1})",
        hint="correct num_classes, or map the values: `medseg prepare` with `label_map: {255: 1}`",
    )
