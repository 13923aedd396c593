"""Lung tumours: irregular lumps in the lung, at its wall or at the mediastinum, solid or faint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg_paddle.phantom.shapes import Array, Grid, paint, paint_tube

_SMALLEST, _LARGEST = 13.0, 26.0  # mm radius
_FREE_SLICES = 3  # at least so many slices show no tumour
_MEDIAL = 62.0  # mm from the midline: nearer, the lung's surface is the mediastinum's


def paint_tumours(hu: Array, grid: Grid, rng: np.random.Generator, lung: Array) -> NDArray[np.bool_]:
    """Paint one to three tumours; returns the voxels that are tumour by more than half.

    A tumour is cut off at the lung's surface, so that one at the wall is told from muscle only by the
    lung's outline. Faint ones have a solid core in a ground-glass halo; the halo is tumour too.
    Spicules and their strands are not.
    """
    truth = np.zeros(grid.shape, dtype=bool)
    depth = ndimage.distance_transform_edt(lung > 0.5, sampling=grid.spacing)
    wanted = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    kinds = rng.choice(["inside", "wall", "mediastinum"], size=wanted, p=[0.55, 0.25, 0.2])
    for kind in kinds:
        radius = float(_SMALLEST * (_LARGEST / _SMALLEST) ** rng.beta(1.6, 1.6))
        centre = _place(grid, rng, depth, truth, radius, str(kind))
        if centre is not None:
            truth |= _paint_tumour(hu, grid, rng, lung, centre, radius)
    if not truth.any():  # too few slices for what was drawn: a small one finds room
        centre = _place(grid, rng, depth, truth, _SMALLEST, "inside")
        if centre is not None:
            truth |= _paint_tumour(hu, grid, rng, lung, centre, _SMALLEST)
    return truth


def _place(grid: Grid, rng: np.random.Generator, depth: NDArray[np.float64], truth: NDArray[np.bool_],
           radius: float, kind: str) -> NDArray[np.float64] | None:  # fmt: skip
    """Draw a centre with room around it; None where the lungs have none."""
    medial = np.broadcast_to(np.abs(grid.x) < _MEDIAL, grid.shape)
    if kind == "inside":
        suited = depth > 0.8 * radius
    else:
        suited = (depth > 0.3 * radius) & (depth < 0.65 * radius) & (medial == (kind == "mediastinum"))
    if truth.any():
        suited &= ndimage.distance_transform_edt(~truth, sampling=grid.spacing) > radius + 8
    # Never so high and low that no slice is left without a tumour.
    reach = int(np.ceil(1.3 * radius / grid.spacing[0]))
    taken = truth.any(axis=(1, 2))
    for index in range(grid.shape[0]):
        would = taken.copy()
        would[max(index - reach, 0) : index + reach + 1] = True
        if (~would).sum() < _FREE_SLICES:
            suited[index] = False
    suited[[0, -1]] = False
    places = np.argwhere(suited)
    if not len(places):
        return None
    k, i, j = places[rng.integers(len(places))]
    return np.array([grid.x[0, i, j], grid.y[0, i, j], grid.z[k, 0, 0]], dtype=np.float64)


def _paint_tumour(hu: Array, grid: Grid, rng: np.random.Generator, lung: Array, centre: NDArray[np.float64],
                  radius: float) -> NDArray[np.bool_]:  # fmt: skip
    x, y, z = (np.float32(c) for c in centre)
    stretch = rng.uniform(0.82, 1.2, 3)
    u, v, w = (grid.x - x) / stretch[0], (grid.y - y) / stretch[1], (grid.z - z) / stretch[2]
    away = np.sqrt(u * u + v * v + w * w) + np.float32(1e-3)
    # The surface: a sphere with waves over the direction from the centre.
    surface = np.ones(grid.shape, dtype=np.float32)
    for _ in range(6):
        a, b, c = rng.normal(0, 2.4, 3)
        surface += np.float32(rng.normal(0, 0.065)) * np.cos(
            (a * u + b * v + c * w) / away + rng.uniform(0, 6.3)
        )
    body = grid.soft(away.astype(np.float32) - radius * surface) * lung
    value = rng.uniform(22, 68) + 9 * grid.noise(rng, 6)
    if rng.random() < 0.3:  # dead tissue in the middle of some
        value = value - 30 * grid.soft(away.astype(np.float32) - 0.45 * radius)
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(7, 14))):  # spicules
            way = rng.normal(0, 1, 3)
            way /= np.linalg.norm(way)
            tip, root = centre + way * radius * rng.uniform(1.4, 1.9), centre + way * radius * 0.7
            ends = ((root[0], root[1], root[2]), (tip[0], tip[1], tip[2]))
            paint_tube(hu, grid, ends, (2.0, 0.6), -150.0, lung)
    if rng.random() < 0.2:  # part-solid: a core in a ground-glass halo
        core = grid.soft(away.astype(np.float32) - radius * (surface - rng.uniform(0.45, 0.6))) * lung
        paint(hu, body, rng.uniform(-480, -340) + 40 * grid.noise(rng, 5))
        paint(hu, core, value)
    else:
        paint(hu, body, value)
    return np.asarray(body > 0.5)
