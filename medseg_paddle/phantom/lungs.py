"""Lung parenchyma and its branching vessels."""

from __future__ import annotations

import numpy as np

from medseg_paddle.phantom.anatomy import Build
from medseg_paddle.phantom.shapes import Array, Grid, Point, ellipsoid, paint, paint_tube

_SMALLEST_VESSEL = 1.1  # mm radius, thinner ones drown in the voxel


def paint_lungs(hu: Array, grid: Grid, build: Build, rng: np.random.Generator, lung: Array) -> None:
    """Paint parenchyma: denser at the back (the patient lies on it), textured, with some emphysema."""
    slope = rng.uniform(0.3, 0.9)  # HU per mm
    base = rng.uniform(-880, -835)
    parenchyma = base + slope * grid.y + 22 * grid.noise(rng, 9) + 14 * grid.noise(rng, 4)
    if rng.random() < 0.4:
        holes = np.clip(grid.noise(rng, 7) - 1.4, 0, 1)
        parenchyma = parenchyma - 90 * holes
    paint(hu, lung, np.clip(parenchyma, -990, -600))
    if rng.random() < 0.5:  # a thin dependent band, as lungs have after lying for a while
        depth = build.chest[1] - rng.uniform(1, 6)
        band = lung * np.clip((grid.y - depth) / 6, 0, 1) * (np.abs(grid.x) > 35)
        paint(hu, band.astype(np.float32), -300.0)
    for side in (-1, 1):
        _paint_tree(hu, grid, build, rng, lung, side)


def _paint_tree(
    hu: Array, grid: Grid, build: Build, rng: np.random.Generator, lung: Array, side: int
) -> None:
    """Paint vessels from one hilum outwards: each branch parts in two thinner, shorter ones."""
    hilum = np.array([side * 40.0, 8.0, 8.0])
    # A hilum's bundle of vessels is a soft-tissue lump of its own.
    paint(hu, lung * ellipsoid(grid, (side * 43.0, 9.0, 6.0), (11, 13, 17)), build.blood)
    branches = []
    for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False) + rng.uniform(0, 0.7):
        outward = np.array([side * rng.uniform(0.55, 1.1), 0.9 * np.cos(turn), 1.1 * np.sin(turn)])
        branches.append(
            (hilum + rng.normal(0, 5, 3), outward / np.linalg.norm(outward), rng.uniform(4.0, 5.6))
        )
    while branches:
        start, direction, radius = branches.pop()
        length = rng.uniform(4.2, 6.5) * max(radius, 2.2)
        bend = direction + rng.normal(0, 0.12, 3)
        end = start + length * bend / np.linalg.norm(bend)
        thin = radius * 0.86
        paint_tube(hu, grid, (_point(start), _point(end)), (radius, thin), build.blood, lung)
        for _ in range(2):
            child = thin * rng.uniform(0.7, 0.9)
            if child >= _SMALLEST_VESSEL:
                turned = direction + rng.normal(0, 0.42, 3)
                branches.append((end, turned / np.linalg.norm(turned), child))


def _point(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Point:
    return (float(values[0]), float(values[1]), float(values[2]))
