"""Body, chest wall, skeleton and mediastinum of the phantom.

Sizes are a grown-up's in mm, Hounsfield units those of textbooks (unenhanced: fat -100, muscle 55,
blood 45, cancellous bone 200). z is 0 at the height of the lung hila.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg_paddle.phantom.shapes import Array, Grid, Point, ellipse, ellipsoid, paint, paint_tube

_Tube = tuple[tuple[Point, Point], float]  # ends, radius

_FAT, _MUSCLE, _SKIN, _AIR = -100.0, 55.0, 30.0, -1000.0


@dataclass(frozen=True)
class Build:
    """What makes a patient's body unlike another's; lengths in mm."""

    chest: tuple[float, float]  # half-axes of the chest cavity, left-right and front-back
    muscle: float
    fat: float
    blood: float  # HU; raised where contrast medium was given
    bone: float  # HU of spongy bone
    rib_phase: float
    dome: float  # z of the right diaphragm's top
    heart: float  # scale of the heart

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Build:
        """Draw a patient."""
        size = rng.uniform(0.9, 1.08)
        return cls(
            chest=(128 * size * rng.uniform(0.96, 1.04), 90 * size * rng.uniform(0.93, 1.08)),
            muscle=rng.uniform(10, 20),
            fat=rng.uniform(6, 26),
            blood=rng.uniform(90, 170) if rng.random() < 0.35 else rng.uniform(38, 58),
            bone=rng.uniform(130, 260),
            rib_phase=rng.uniform(0, 2 * np.pi),
            dome=rng.uniform(-68, -45),
            heart=rng.uniform(0.9, 1.12),
        )

    @property
    def wall(self) -> float:
        """Thickness of the body's wall: ribs, muscle, fat, skin."""
        return 12 + self.muscle + self.fat

    @property
    def half_width(self) -> float:
        """Half-width of the body."""
        return self.chest[0] + self.wall


def paint_body(hu: Array, grid: Grid, build: Build, rng: np.random.Generator) -> Array:
    """Paint body wall and skeleton; returns the membership of the chest cavity."""
    # The cavity narrows towards the apex of the lungs (z = 130) and a little towards the feet.
    height = np.clip((grid.z + 25) / 160, -1, 0.98)
    profile = np.where(height > 0, np.sqrt(1 - height**2), 1 - 0.08 * height**2).astype(np.float32)
    radius = _superellipse(grid.x, grid.y, build.chest, 2.3)  # 1 on the cavity's wall where it is widest
    rim = min(build.chest)
    cavity_distance = (radius - profile) * rim
    # Outside the ribs the body keeps its width: shoulders take over where the cavity narrows.
    body_profile = np.maximum(profile, np.float32(0.9))
    body_distance = (radius - body_profile) * rim

    wall = 10 + build.muscle
    paint(hu, grid.soft(body_distance - (wall + build.fat + 2)), _SKIN)
    paint(hu, grid.soft(body_distance - (wall + build.fat)), _FAT + 8 * grid.noise(rng, 12))
    ripple = 4 * grid.noise(rng, 18)  # muscles bulge
    paint(hu, grid.soft(body_distance - (wall + ripple)), _MUSCLE + 8 * grid.noise(rng, 8))
    # Breast or pectoral fat in front, in the skin fold between muscle layers at the sides.
    for side in (-1, 1):
        fold = ellipsoid(grid, (side * (build.chest[0] + 12), 15, 20), (3, 34, 45), side * 0.25)
        paint(hu, 0.9 * fold, _FAT)
    _paint_ribs(hu, grid, build, cavity_distance)
    _paint_shoulder_blades(hu, grid, build)
    paint(hu, ellipsoid(grid, (0, -build.chest[1] - 3, 5), (17, 7, 90)), build.bone)  # breastbone
    return grid.soft(cavity_distance)


def spine_centre(build: Build) -> float:
    """Y of the vertebral bodies' centre."""
    return build.chest[1] * 0.62


def paint_mediastinum(hu: Array, grid: Grid, build: Build, rng: np.random.Generator) -> Array:
    """Paint heart, great vessels, gullet and windpipe in fat; returns the membership of them all."""
    wave = 3.5 * grid.noise(rng, 22)
    front = -0.26 * build.chest[1]
    middle = np.hypot((grid.x - 4) / 37, (grid.y - front) / (0.70 * build.chest[1]))
    back = np.hypot(grid.x / 27, (grid.y - spine_centre(build)) / 36)
    silhouette = grid.soft(np.minimum((middle - 1) * 37, (back - 1) * 27) + wave)
    heart = _heart(grid, build, rng)
    aorta_y = spine_centre(build) - 22
    everything = np.maximum(silhouette, heart)

    soft_tissue = np.where(grid.y < spine_centre(build) - 24, np.float32(-85), np.float32(45))
    paint(hu, silhouette, soft_tissue + 10 * grid.noise(rng, 7))
    _paint_spine(hu, grid, build)
    paint(hu, heart, build.blood + 6 * grid.noise(rng, 10))
    vessels: tuple[_Tube, ...] = (
        (((-14, front, -15), (-14, front, 48)), 16.5),  # ascending aorta
        (((-14, front, 52), (22, aorta_y, 52)), 13.5),  # arch
        (((25, aorta_y, 52), (25, aorta_y, -140)), 12.5),  # descending aorta, on the left of the spine
        (((-27, front + 8, 0), (-25, front + 6, 120)), 9.5),  # superior vena cava
        (((-24, 5, -140), (-24, 0, -35)), 11.0),  # inferior vena cava
        (((20, front - 10, 2), (12, front + 16, 20)), 13.5),  # pulmonary trunk
        (((10, front + 16, 18), (-42, 6, 10)), 9.5),  # right pulmonary artery
        (((12, front + 16, 20), (44, 10, 18)), 9.5),  # left pulmonary artery
    )
    for ends, radius in vessels:
        paint_tube(hu, grid, ends, (radius, radius), build.blood + rng.normal(0, 4))
    for _ in range(5):  # lymph nodes
        centre = (rng.uniform(-25, 25), rng.uniform(front - 10, 18), rng.uniform(-10, 70))
        paint(hu, silhouette * ellipsoid(grid, centre, (5, 4, 6), rng.uniform(0, 3)), 40.0)
    paint_tube(hu, grid, ((6, aorta_y - 2, -140), (3, aorta_y - 8, 140)), (7, 7), 35.0)  # gullet
    airways: tuple[_Tube, ...] = (
        (((0, 10, 32), (0, 10, 140)), 9.0),  # windpipe
        (((0, 10, 32), (-44, 10, 8)), 7.0),
        (((0, 10, 32), (46, 14, 4)), 6.0),
    )
    for ends, radius in airways:
        paint_tube(hu, grid, ends, (radius + 2.5, radius + 2), 20.0)
    for ends, radius in airways:
        paint_tube(hu, grid, ends, (radius, radius - 1), _AIR)
    return everything


def paint_abdomen(hu: Array, grid: Grid, build: Build, rng: np.random.Generator, cavity: Array) -> Array:
    """Paint liver, spleen and stomach below the diaphragm; returns their membership."""
    right = build.dome - 42 * ((grid.x + 62) / 80) ** 2
    left = build.dome - 10 - 42 * ((grid.x - 62) / 80) ** 2
    top = np.where(grid.x < 0, right, left) - 38 * ((grid.y - 2) / (0.9 * build.chest[1])) ** 2
    below = grid.soft(grid.z - top.astype(np.float32)) * cavity
    organ = np.where(grid.x < 12, np.float32(60), np.float32(48))
    paint(hu, below, organ + 6 * grid.noise(rng, 9))
    stomach = below * ellipsoid(grid, (55, -25, build.dome - 45), (34, 28, 30))
    paint(hu, stomach, np.where(grid.y < -32, np.float32(_AIR), np.float32(15)))  # gas rises to the front
    return below


def paint_table(hu: Array, grid: Grid, back: float, rng: np.random.Generator) -> None:
    """Paint the scanner's table: two thin curved plates under the patient, never turned with him."""
    curve = back + 10 + rng.uniform(0, 4) - (grid.x / 38) ** 2
    for offset, value in ((0.0, -350.0), (26.0, -450.0)):
        plate = grid.soft(np.abs(grid.y - curve - offset) - 2.0) * (np.abs(grid.x) < 185)
        paint(hu, plate.astype(np.float32), value)
    paint(hu, ellipse(grid, (0.0, back + 24), (150.0, 6.0)), -930.0)


def _paint_ribs(hu: Array, grid: Grid, build: Build, cavity_distance: Array) -> None:
    """Ribs: bands in the wall that sink from the spine to the front, so that slices cut them obliquely."""
    from_back = np.arctan2(
        np.abs(grid.x), grid.y * np.float32(build.chest[0] / build.chest[1])
    )  # 0 back, pi front
    phase = (grid.z + 26 * from_back) * np.float32(2 * np.pi / 27) + np.float32(build.rib_phase)
    band = np.clip((np.cos(phase) - 0.15) * 2.5 + 0.5, 0, 1)
    shell = grid.soft(np.abs(cavity_distance - 6.5) - 4.0)
    marrow = grid.soft(np.abs(cavity_distance - 6.5) - 1.5)
    bony = np.clip((2.55 - from_back) * 6, 0, 1)  # cartilage in front
    rib = band * shell
    paint(hu, rib, bony * (build.bone + 380) + (1 - bony) * 95)
    paint(hu, rib * marrow * bony * 0.8, build.bone)


def _paint_shoulder_blades(hu: Array, grid: Grid, build: Build) -> None:
    for side in (-1, 1):
        centre = (side * (build.chest[0] * 0.72), build.chest[1] * 0.82 + 12, 55.0)
        paint(hu, ellipsoid(grid, centre, (40, 4.5, 60), side * -0.62), build.bone + 300)


def _paint_spine(hu: Array, grid: Grid, build: Build) -> None:
    y = spine_centre(build)
    body = ellipse(grid, (0, y), (18.5, 15.5))
    paint(hu, body, build.bone + 260)
    paint(hu, ellipse(grid, (0, y), (15.5, 12.5)), build.bone)
    disc = (np.abs((grid.z + 12) % 24 - 12) < 2.6).astype(np.float32)
    paint(hu, body * disc, 85.0)
    arch = y + 22
    for side in (-1, 1):
        paint(hu, ellipse(grid, (side * 19, arch + 3), (15, 4.5), side * 0.45), build.bone + 220)
    paint(hu, ellipse(grid, (0, arch), (15, 13)), build.bone + 330)
    paint(hu, ellipse(grid, (0, arch + 22), (3.5, 15)), build.bone + 220)
    paint(hu, ellipse(grid, (0, arch), (10.5, 9)), 15.0)
    paint(hu, ellipse(grid, (0, arch), (6, 4.5)), 40.0)


def _heart(grid: Grid, build: Build, rng: np.random.Generator) -> Array:
    """Two overlapping ellipsoids; the tip points to the left, the front and the feet."""
    s = build.heart
    x, z = rng.uniform(20, 30), rng.uniform(-58, -48)
    ventricles = ellipsoid(grid, (x + 14, -24, z), (54 * s, 40 * s, 44 * s), 0.45 + rng.uniform(-0.12, 0.12))
    atria = ellipsoid(grid, (x - 28, -10, z + 16), (36 * s, 36 * s, 38 * s))
    return np.maximum(ventricles, atria)


def _superellipse(x: Array, y: Array, radii: tuple[float, float], power: float) -> Array:
    return np.asarray(
        (np.abs(x / radii[0]) ** power + np.abs(y / radii[1]) ** power) ** (1 / power), dtype=np.float32
    )
