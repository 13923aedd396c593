"""Soft-edged shapes on a grid in the patient: the pencils that the phantom is drawn with.

A shape is a *membership*, 0..1 per voxel: 1 inside, 0 outside, in between where the surface cuts
through a voxel, as in a scanner's partial-volume effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxel centres in the patient's own axes, mm: x to the left, y to the back, z to the head.

    Attributes
    ----------
    x, y : ndarray, shape (1, rows, columns), float32
        The patient may lie a little turned, so both vary with row and column.
    z : ndarray, shape (slices, 1, 1), float32
    spacing : tuple of float
        mm between slices, rows and columns.
    """

    x: Array
    y: Array
    z: Array
    spacing: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return (self.z.shape[0], self.x.shape[1], self.x.shape[2])

    def soft(self, distance: NDArray[np.floating[Any]]) -> Array:
        """Membership from the signed distance to a surface in mm (negative inside)."""
        edge = 1.2 * self.spacing[2]
        return np.asarray(np.clip(0.5 - distance / edge, 0, 1), dtype=np.float32)

    def noise(self, rng: np.random.Generator, scale: float) -> Array:
        """Smooth noise of mean 0 and standard deviation 1, correlated over about `scale` mm."""
        white = rng.standard_normal(self.shape, dtype=np.float32)
        smooth = ndimage.gaussian_filter(
            white, [scale / step for step in self.spacing], mode="wrap", truncate=2.5
        )
        return np.asarray(smooth / smooth.std(), dtype=np.float32)


def ellipse(grid: Grid, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> Array:
    """Membership of a cylinder along z with an elliptic section turned by `angle` radians."""
    u, v = _turned(grid.x - centre[0], grid.y - centre[1], angle)
    return grid.soft((np.hypot(u / radii[0], v / radii[1]) - 1) * min(radii))


def ellipsoid(grid: Grid, centre: Point, radii: Point, angle: float = 0.0) -> Array:
    """Membership of an ellipsoid turned by `angle` radians about z."""
    u, v = _turned(grid.x - centre[0], grid.y - centre[1], angle)
    squared = (u / radii[0]) ** 2 + (v / radii[1]) ** 2 + ((grid.z - centre[2]) / radii[2]) ** 2
    return grid.soft((np.sqrt(squared) - 1) * min(radii))


def paint(hu: Array, membership: Array, value: Array | float) -> None:
    """Mix `value` into `hu`, in place, by the share of each voxel that belongs to a shape."""
    hu += membership * (np.asarray(value, dtype=np.float32) - hu)


def paint_tube(hu: Array, grid: Grid, ends: tuple[Point, Point], radii: tuple[float, float], value: float,
               within: Array | None = None) -> None:  # fmt: skip
    """Paint a tapering tube from one point to another, in place, only where it reaches."""
    start, end = np.array(ends, dtype=np.float32)
    reach = max(radii) + 2 * grid.spacing[2]
    near = np.flatnonzero(
        (grid.z[:, 0, 0] > min(start[2], end[2]) - reach) & (grid.z[:, 0, 0] < max(start[2], end[2]) + reach)
    )
    low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
    plane = (grid.x[0] > low[0]) & (grid.x[0] < high[0]) & (grid.y[0] > low[1]) & (grid.y[0] < high[1])
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if not (near.size and rows.size and columns.size):
        return
    box = (
        slice(near[0], near[-1] + 1),
        slice(rows[0], rows[-1] + 1),
        slice(columns[0], columns[-1] + 1),
    )
    x, y, z = grid.x[:, box[1], box[2]], grid.y[:, box[1], box[2]], grid.z[box[0]]
    axis = end - start
    along = (x - start[0]) * axis[0] + (y - start[1]) * axis[1] + (z - start[2]) * axis[2]
    along = np.clip(along / max(float(axis @ axis), 1e-6), 0, 1)
    distance = np.sqrt(
        (x - start[0] - along * axis[0]) ** 2
        + (y - start[1] - along * axis[1]) ** 2
        + (z - start[2] - along * axis[2]) ** 2
    )
    membership = grid.soft(distance - (radii[0] + along * (radii[1] - radii[0])))
    paint(hu[box], membership if within is None else membership * within[box], value)


def _turned(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine
