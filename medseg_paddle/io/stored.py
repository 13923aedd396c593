"""Slices as a file stores them, in a temporary file: read one at a time, scaled when they are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from medseg_paddle.errors import DataError
from medseg_paddle.io.files import temporary_file

_LARGE = 8  # bytes: integers that a scale may take beyond 64 bits
_MOST_SCALE = 2.0**30  # which takes those of 32 bits to less than 2**63


@dataclass(frozen=True)
class StoredSlice:
    """Where a slice lies in the file, and what its numbers mean: ``value = stored * slope + intercept``."""

    offset: int
    dtype: np.dtype[Any]
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers of 64 bits, whatever is stored."""
        return (
            self.dtype.kind in "iu"
            and self.dtype.itemsize < _LARGE
            and all(one.is_integer() and abs(one) < _MOST_SCALE for one in (self.slope, self.intercept))
        )


class StoredSlices:
    """The slices of a volume in a temporary file without a name; a context manager that closes it.

    Parameters
    ----------
    file : file
    size : (rows, columns)
    slices : sequence of StoredSlice
        In the order of the volume.
    """

    def __init__(self, file: IO[bytes], size: tuple[int, int], slices: Sequence[StoredSlice]) -> None:
        self.file = file
        self.size = size
        self.slices = tuple(slices)

    @classmethod
    def collected(
        cls, size: tuple[int, int], count: int, dtype: np.dtype[Any], **scale: float
    ) -> StoredSlices:
        """For slices that the caller writes into its `file`, one right after the other, all alike.

        Raises
        ------
        SetupError
            No temporary file can be made.
        """
        each = size[0] * size[1] * dtype.itemsize
        slices = [StoredSlice(index * each, dtype, **scale) for index in range(count)]
        return cls(temporary_file(), size, slices)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __len__(self) -> int:
        return len(self.slices)

    def raw(self, index: int) -> NDArray[Any]:
        """One slice as it is stored, shape `size`."""
        one = self.slices[index]
        rows, columns = self.size
        wanted = rows * columns * one.dtype.itemsize
        # pread takes at most 2 GiB at a time; a slice is far below.
        self.file.flush()
        data = os.pread(self.file.fileno(), wanted, one.offset)
        if len(data) != wanted:
            raise DataError(
                "the values of a file came back short", hint="copy the file again from its source"
            )
        return np.frombuffer(data, one.dtype).reshape(self.size)

    def read(self, index: int) -> NDArray[Any]:
        """One slice, scaled: as stored where there is no scale, int64 where all numbers are whole, else float64."""
        one, stored = self.slices[index], self.raw(index)
        if (one.slope, one.intercept) == (1, 0):
            return stored
        if one.is_whole:
            return np.asarray(stored.astype(np.int64) * int(one.slope) + int(one.intercept))
        return np.asarray(stored.astype(np.float64) * one.slope + one.intercept)

    def whole(self) -> NDArray[Any]:
        """All slices of a volume whose values are not scaled, in their own type."""
        self.file.flush()
        self.file.seek(self.slices[0].offset)
        count = len(self) * self.size[0] * self.size[1]
        return np.fromfile(self.file, self.slices[0].dtype, count=count).reshape(len(self), *self.size)
