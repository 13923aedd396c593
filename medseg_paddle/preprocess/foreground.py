"""Where the foreground of a label is, in little memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Foreground:
    """Pixels of a label that are neither background nor ignored, in the order of `foreground_indices`.

    Only their count up to the end of each row is kept, 4 bytes a row, where a list of them takes 8 bytes or more
    a pixel; a pixel's column is looked for in its row of the label when it is asked for.

    Parameters
    ----------
    label : ndarray, shape (rows, columns), integer
        Is kept, not copied.
    ignore_index : int
        Label value that is neither learned nor scored.
    ends : ndarray, shape (rows,), int32, optional
        :attr:`ends` of the same label, from before.

    Attributes
    ----------
    ends : ndarray, shape (rows,), int32
        Foreground pixels up to the end of each row.
    """

    def __init__(self, label: NDArray[Any], ignore_index: int, ends: NDArray[np.int32] | None = None) -> None:
        self._label, self._ignore_index = label, ignore_index
        if ends is None:
            ends = np.cumsum(np.count_nonzero(self._where(label), axis=1), dtype=np.int32)
        self.ends = ends

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Row and column of a pixel; IndexError where there is none of this number."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        row = int(np.searchsorted(self.ends, number, side="right"))
        columns = np.flatnonzero(self._where(self._label[row]))
        return row, int(columns[number - (self.ends[row - 1] if row else 0)])

    def _where(self, label: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray((label != 0) & (label != self._ignore_index))
