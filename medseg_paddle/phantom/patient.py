"""One synthetic patient: geometry, anatomy, and what a scanner makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from medseg_paddle.core import Geometry, LabelMap, LabelSet, Volume
from medseg_paddle.phantom.anatomy import Build, paint_abdomen, paint_body, paint_mediastinum, paint_table
from medseg_paddle.phantom.lungs import paint_lungs
from medseg_paddle.phantom.shapes import Array, Grid
from medseg_paddle.phantom.tumours import paint_tumours

PHANTOM_LABELS = LabelSet.from_names(["background", "tumour"])

_AIR = -1000.0
_LOWEST, _HIGHEST = -1024, 3071  # the 12 bits of a CT


def make_patient(seed: int | Sequence[int], *, size: int = 128, slices: int = 20) -> tuple[Volume, LabelMap]:
    """Draw a patient.

    Parameters
    ----------
    seed : int or sequence of int
        The same seed gives the same patient.
    size : int
        Rows and columns, at least 32.
    slices : int
        Slices, about 5 mm apart, at least 9.

    Returns
    -------
    Volume
        Float32 whole Hounsfield units, -1024..3071, ``array[slice, row, column]``: axial slices from the
        feet to the head, row 0 in front, column 0 on the patient's right.
    LabelMap
        uint8 on the same geometry, 1 where more than half of a voxel is tumour.

    Notes
    -----
    The anatomy is painted structure over structure with soft edges (partial volume), blurred by the
    scanner's point spread, and given noise that is correlated like a soft reconstruction kernel's and
    strongest in the middle of the body.
    """
    rng = np.random.default_rng(seed)
    build = Build.draw(rng)
    geometry, grid, table = _geometry(build, rng, size, slices)

    hu: Array = np.full(grid.shape, _AIR, dtype=np.float32)
    paint_table(hu, table, build.chest[1] + build.wall, rng)
    cavity = paint_body(hu, grid, build, rng)
    abdomen = paint_abdomen(hu, grid, build, rng, cavity)
    lung = cavity * (1 - abdomen)
    paint_lungs(hu, grid, build, rng, lung)
    lung *= 1 - paint_mediastinum(hu, grid, build, rng)
    tumour = paint_tumours(hu, grid, rng, lung)
    scanned = np.clip(np.rint(_scan(hu, grid, rng)), _LOWEST, _HIGHEST).astype(np.float32)
    return Volume(scanned, geometry, units="HU"), LabelMap(tumour.astype(np.uint8), geometry, PHANTOM_LABELS)


def _geometry(build: Build, rng: np.random.Generator, size: int, slices: int) -> tuple[Geometry, Grid, Grid]:
    """Draw how the patient lies in the scanner: his own axes, and those of the table."""
    # Rounded as DICOM's decimal strings will hold them, so that nothing is lost in the file.
    in_plane = round((2 * build.half_width + rng.uniform(25, 70)) / size, 4)
    thickness = round(float(rng.choice([4.5, 5.0, 5.0, 5.5])), 4)
    corner = round(-in_plane * (size - 1) / 2, 3)
    lowest = round(rng.uniform(-22, 18) - thickness * (slices - 1) / 2, 3)
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, in_plane], [0, in_plane, 0], [thickness, 0, 0]]
    affine[:3, 3] = [corner, corner, lowest]

    across = (corner + in_plane * np.arange(size)).astype(np.float32)
    x, y = (values[None] for values in np.meshgrid(across, across))
    z = (lowest + thickness * np.arange(slices)).astype(np.float32)[:, None, None]
    spacing = (thickness, in_plane, in_plane)
    x, y = x - np.float32(rng.uniform(-8, 8)), y - np.float32(rng.uniform(-12, 4))
    turn = np.radians(rng.uniform(-6, 6))
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    patient = Grid(x * cosine + y * sine, y * cosine - x * sine, z, spacing)
    return Geometry((slices, size, size), affine), patient, Grid(x, y, z, spacing)


def _scan(hu: Array, grid: Grid, rng: np.random.Generator) -> Array:
    """Blur by the point spread, add noise."""
    blurred = ndimage.gaussian_filter(hu, (0.3, 0.6, 0.6))
    white = rng.standard_normal(grid.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(white, (0, 0.75, 0.75), mode="wrap")
    noise *= rng.uniform(12, 30) / noise.std()
    middle = 0.55 + 0.6 * np.exp(-((grid.x / 110) ** 2) - (grid.y / 80) ** 2)
    return np.asarray(blurred + noise * middle, dtype=np.float32)
