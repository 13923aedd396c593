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

    @property
    def kept(self) -> tuple[NDArray[Any], ...]:
        """What to hand on after the ignored label to have the same of the same label again."""
        return (self.ends,)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, number: int) -> tuple[int, int]:
        """Row and column of a pixel; IndexError where there is none of this number."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        row, place = _row(self.ends, number)
        return row, int(np.flatnonzero(self._where(self._label[row]))[place])

    def _where(self, label: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray((label != 0) & (label != self._ignore_index))


class ForegroundClasses:
    """Pixels of a label class by class, so that a class of few pixels is drawn as often as one of many.

    Like :class:`Foreground`, with 4 bytes a row and class.

    Parameters
    ----------
    label : ndarray, shape (rows, columns), integer
        Is kept, not copied.
    ignore_index : int
        Label value that is neither learned nor scored.
    classes, ends
        :attr:`kept` of the same label, from before.

    Attributes
    ----------
    kept : tuple of ndarray
        Classes that the label holds, without background and ignored, shape (classes,), and pixels of each up to the
        end of each row, shape (classes, rows), int32.
    """

    def __init__(
        self,
        label: NDArray[Any],
        ignore_index: int,
        classes: NDArray[Any] | None = None,
        ends: NDArray[np.int32] | None = None,
    ) -> None:
        if classes is None or ends is None:
            classes = np.unique(label)
            classes = classes[(classes != 0) & (classes != ignore_index)]
            counts = [np.count_nonzero(label == value, axis=1) for value in classes]
            ends = np.cumsum(np.reshape(counts, (len(classes), len(label))), axis=1, dtype=np.int32)
        self._label, self._classes, self._ends = label, classes, ends
        self.kept: tuple[NDArray[Any], ...] = (classes, ends)

    def draw(self, rng: np.random.Generator) -> tuple[int, int] | None:
        """Row and column of a pixel of a class: first the class, then the pixel, each evenly; None if there is none."""
        if not len(self._classes):
            return None
        chosen = int(rng.integers(len(self._classes)))
        ends = self._ends[chosen]
        row, place = _row(ends, int(rng.integers(ends[-1])))
        return row, int(np.flatnonzero(self._label[row] == self._classes[chosen])[place])


def _row(ends: NDArray[np.int32], number: int) -> tuple[int, int]:
    """The row of a pixel, and which one of that row it is."""
    row = int(np.searchsorted(ends, number, side="right"))
    return row, int(number - (ends[row - 1] if row else 0))
