"""Where the classes of a volume's label are, in little memory: what patches are centred on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST = 10_000  # voxels kept of a class, as nnU-Net keeps


@dataclass(frozen=True, eq=False)
class ForegroundVoxels:
    """Voxels of each class that a label holds, at most 10,000 of a class.

    Of a class that has more, every n-th in the order of memory is kept, so that the kept ones lie as the class lies;
    nothing is drawn.

    Attributes
    ----------
    classes : ndarray, shape (k,), uint8
        Classes that the label holds, without background and ignored.
    ends : ndarray, shape (k,), int64
        Where in `voxels` each class ends.
    voxels : ndarray, shape (n, 3), int32
        Slice, row and column, class by class.
    """

    classes: NDArray[np.uint8]
    ends: NDArray[np.int64]
    voxels: NDArray[np.int32]

    @classmethod
    def of(cls, label: NDArray[Any], ignore_index: int) -> ForegroundVoxels:
        """Find them in a label, shape (slices, rows, columns), uint8; may be memory-mapped, is read twice."""
        counts = np.stack([np.bincount(plane.ravel(), minlength=256) for plane in label])
        totals = counts.sum(axis=0)
        classes = [c for c in np.flatnonzero(totals) if c not in (0, ignore_index)]
        found: dict[int, list[NDArray[np.int32]]] = {c: [] for c in classes}
        kept = {c: _evenly(int(totals[c])) for c in classes}
        before = np.cumsum(counts, axis=0) - counts
        for k, plane in enumerate(label):
            for c in np.flatnonzero(counts[k]):
                if c not in found:
                    continue
                first, last = np.searchsorted(kept[c], (before[k, c], before[k, c] + counts[k, c]))
                if first < last:
                    places = np.flatnonzero(plane == c)[kept[c][first:last] - before[k, c]]
                    rows, columns = np.divmod(places, label.shape[2])
                    found[c].append(np.stack([np.full_like(rows, k), rows, columns], axis=1).astype(np.int32))
        together = [np.concatenate(parts) for parts in found.values()]
        return cls(
            np.array(classes, np.uint8),
            np.cumsum([len(part) for part in together], dtype=np.int64),
            np.concatenate(together) if together else np.empty((0, 3), np.int32),
        )

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What :meth:`from_arrays` needs, to be kept in an ``.npz``."""
        return {"classes": self.classes, "ends": self.ends, "voxels": self.voxels}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ForegroundVoxels:
        """Make the object again from :attr:`arrays`."""
        return cls(arrays["classes"], arrays["ends"], arrays["voxels"])

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int] | None:
        """Slice, row and column of a voxel: first a class, then a voxel of it, each evenly; None if there is none."""
        if not len(self.classes):
            return None
        chosen = int(rng.integers(len(self.classes)))
        first = int(self.ends[chosen - 1]) if chosen else 0
        k, row, column = self.voxels[int(rng.integers(first, int(self.ends[chosen])))]
        return int(k), int(row), int(column)


def _evenly(count: int) -> NDArray[np.int64]:
    """Up to 10,000 of the numbers from 0 to `count`, evenly spread."""
    kept = min(count, _MOST)
    return np.asarray((2 * np.arange(kept, dtype=np.int64) + 1) * count // (2 * kept))
