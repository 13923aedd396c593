"""A volume that is never there as a whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


class Passing:
    """A volume whose slices come once, in their order, and go when they are not needed any more.

    Parameters
    ----------
    shape : tuple of int
        Of the whole volume.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._first = 0
        self._kept: Plane = np.empty((0, *shape[1:]), np.float32)
        self._came: Plane = self._kept

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice) -> Plane:
        """Slices that are there; a copy of those that came at different times."""
        if not isinstance(key, slice):
            return np.asarray(self[key : key + 1][0])
        start, stop, border = key.start - self._first, key.stop - self._first, len(self._kept)
        if start < 0 or stop > border + len(self._came):
            raise IndexError(f"slices {key.start} to {key.stop} are gone or did not come yet")
        if stop <= border:
            return self._kept[start:stop]
        if start >= border:
            return self._came[start - border : stop - border]
        return np.concatenate([self._kept[start:], self._came[: stop - border]])

    def put(self, came: Plane) -> None:
        """Take the next slices, shape (n, rows, columns); not copied before :meth:`keep`."""
        self._came = came

    def keep(self, first: int) -> None:
        """Copy those from slice `first` on that are there, and let go of what came."""
        end = self._first + len(self._kept) + len(self._came)
        first = min(max(first, self._first), end)
        self._kept = np.array(self[first:end])
        self._first, self._came = first, self._kept[:0]
